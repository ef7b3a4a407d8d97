"""Language models: the interface, recurrent networks, a Transformer, n-grams; and translators."""

# fmt: off
from companion.models.base import LanguageModel, State, detach, evaluation_mode
from companion.models.lstm import (
    LSTMConfig, LSTMLanguageModel, LSTMStack, VariationalDropout, lstm_cell, reference_lstm,
)
from companion.models.ngram import NGramModel
from companion.models.recurrent import RecurrentModel
from companion.models.seq2seq import (
    Attention, DecoderState, GivenSource, Seq2Seq, Seq2SeqConfig, SourceAttention,
)
from companion.models.transformer import TransformerModel

__all__ = [
    "Attention", "DecoderState", "GivenSource", "LSTMConfig", "LSTMLanguageModel", "LSTMStack",
    "LanguageModel", "NGramModel", "RecurrentModel", "Seq2Seq", "Seq2SeqConfig",
    "SourceAttention", "State", "TransformerModel", "VariationalDropout", "detach",
    "evaluation_mode", "lstm_cell", "reference_lstm",
]
