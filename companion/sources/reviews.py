"""The source of little reviews: the review grammar, compiled into an automaton."""

from __future__ import annotations

from companion.sources.automaton import AutomatonSource, Tokens
from companion.sources.grammar import (
    OPINIONS,
    VOCABULARY,
    GrammarConfig,
    ReviewGrammar,
    compile_grammar,
)


class GrammarSource(AutomatonSource):
    """The review grammar of `companion.sources.grammar`, compiled into an automaton.

    All review grammars share one vocabulary, so a model of one can be scored on another.
    """

    def __init__(self, config: GrammarConfig | None = None) -> None:
        self.config = config or GrammarConfig()
        super().__init__(VOCABULARY, *compile_grammar(ReviewGrammar(self.config)))

    def opinion(self, tokens: Tokens) -> str:
        """The opinion of a text: "+", "-", or "0" when no word of it has one.

        It is that of the first word that has one; in a grammatical text all others agree.
        """
        words = (self.vocabulary[token] for token in self._checked(tokens))
        return next((OPINIONS[word] for word in words if word in OPINIONS), "0")
