"""Sources of text whose probabilities and entropy are known exactly."""

# fmt: off
from companion.sources.automaton import AutomatonSource, ScoredText, checked_tokens
from companion.sources.grammar import GrammarConfig, ReviewGrammar, compile_grammar
from companion.sources.markov import EntropyBounds, HiddenMarkovSource, MarkovSource
from companion.sources.noise import InsertionSource, SubstitutionSource
from companion.sources.numerals import TOKENS, number_words, numeral_batch, prompt_of, reply_of
from companion.sources.reviews import GrammarSource
from companion.sources.streams import (
    TextSource, beginnings, endless_text, split_texts, surprisals, true_rows,
)

__all__ = [
    "TOKENS", "AutomatonSource", "EntropyBounds", "GrammarConfig",
    "GrammarSource", "HiddenMarkovSource", "InsertionSource", "MarkovSource", "ReviewGrammar",
    "ScoredText", "SubstitutionSource", "TextSource", "beginnings", "checked_tokens",
    "compile_grammar", "endless_text", "number_words", "numeral_batch", "prompt_of", "reply_of",
    "split_texts", "surprisals", "true_rows",
]
