"""Sources of text whose entropy and probabilities are known exactly.

Each source has, under the same names:

- `vocabulary`: its tokens as words; `encode(text)` and `decode(tokens)` go between the two;
- `entropy_rate()`: nats per token; no model can do better on average;
- `log_prob(tokens)`: the exact log-probability of a text, or of a beginning of texts, in nats;
- `next_token_probs(prefix)`: the exact distribution of the next token;
- `sample(n, generator=)`: n tokens of a Markov source, n texts of a grammar;
- `most_probable(...)`: its most probable text, which is seldom what a sample looks like.

`MarkovSource` and `HiddenMarkovSource` are stationary streams without an end; `GrammarSource`
writes separate texts, token 0 ending each. Reference: Cover & Thomas (2006), chapter 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from companion.sources.automaton import AutomatonSource, ScoredText, Tokens
from companion.sources.grammar import (
    OPINIONS,
    VOCABULARY,
    GrammarConfig,
    ReviewGrammar,
    compile_grammar,
)
from companion.sources.markov import EntropyBounds, HiddenMarkovSource, MarkovSource

if TYPE_CHECKING:
    pass

__all__ = [
    "AutomatonSource",
    "EntropyBounds",
    "GrammarConfig",
    "GrammarSource",
    "HiddenMarkovSource",
    "MarkovSource",
    "ScoredText",
]


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
