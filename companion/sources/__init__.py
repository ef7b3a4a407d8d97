"""Sources of text whose probabilities and entropy are known exactly."""

# fmt: off
from companion.sources.automaton import AutomatonSource, ScoredText, checked_tokens
from companion.sources.grammar import GrammarConfig, ReviewGrammar, compile_grammar
from companion.sources.markov import EntropyBounds, HiddenMarkovSource, MarkovSource
from companion.sources.noise import InsertionSource, SubstitutionSource
from companion.sources.numerals import TOKENS, number_words, numeral_batch, prompt_of, reply_of
from companion.sources.reviews import GrammarSource
from companion.sources.spelled_out import (
    Meaning, chinese_number, currency_name, draw_meanings, number_in_words, written,
)
from companion.sources.streams import (
    TextSource, beginnings, endless_text, split_texts, surprisals, true_rows,
)

__all__ = [
    "TOKENS", "AutomatonSource", "EntropyBounds", "GrammarConfig", "GrammarSource",
    "HiddenMarkovSource", "InsertionSource", "MarkovSource", "Meaning", "ReviewGrammar",
    "ScoredText", "SubstitutionSource", "TextSource", "beginnings", "checked_tokens",
    "chinese_number", "compile_grammar", "currency_name", "draw_meanings", "endless_text",
    "number_in_words", "number_words", "numeral_batch", "prompt_of", "reply_of", "split_texts",
    "surprisals", "true_rows", "written",
]
