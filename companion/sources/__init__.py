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

# fmt: off
from companion.sources.automaton import AutomatonSource, ScoredText, checked_tokens
from companion.sources.capitals import COUNTRIES, Country, without_accents
from companion.sources.grammar import OPINIONS, GrammarConfig, ReviewGrammar, compile_grammar
from companion.sources.labelled_reviews import (
    CUES, GROUPS, SENTIMENTS, IndependentOpinions, Reviews, ReviewSizes, ShuffledWords, Without,
    disagreeing_reviews, with_cue, without_opening, write_reviews,
)
from companion.sources.markov import EntropyBounds, HiddenMarkovSource, MarkovSource
from companion.sources.noise import InsertionSource, SubstitutionSource
from companion.sources.numerals import TOKENS, number_words, numeral_batch, prompt_of, reply_of
from companion.sources.planted import (
    PlantedConfig, PlantedSource, Question, forward_questions, joint_shares,
    reverse_questions,
)
from companion.sources.reviews import GrammarSource
from companion.sources.spelled_out import (
    Meaning, chinese_number, currency_name, draw_meanings, number_in_words, written,
)
from companion.sources.streams import (
    TextSource, beginnings, endless_text, split_texts, surprisals, true_rows,
)

__all__ = [
    "COUNTRIES", "CUES", "GROUPS", "OPINIONS", "SENTIMENTS", "TOKENS", "AutomatonSource",
    "Country", "EntropyBounds", "GrammarConfig", "GrammarSource", "HiddenMarkovSource",
    "IndependentOpinions", "InsertionSource", "MarkovSource", "Meaning", "PlantedConfig",
    "PlantedSource", "Question", "ReviewGrammar", "ReviewSizes", "Reviews", "ScoredText",
    "ShuffledWords", "SubstitutionSource", "TextSource", "Without", "beginnings", "checked_tokens",
    "chinese_number", "compile_grammar", "currency_name", "disagreeing_reviews", "draw_meanings",
    "endless_text", "forward_questions", "joint_shares", "number_in_words", "number_words",
    "numeral_batch", "prompt_of", "reply_of", "reverse_questions", "split_texts", "surprisals",
    "true_rows", "with_cue", "without_accents", "without_opening", "write_reviews", "written",
]
