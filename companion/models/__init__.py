"""Language models: the interface, recurrent networks, a Transformer, n-grams; and what is built on
them: translators, classifiers; and a small real encoder of sentences."""

# fmt: off
from companion.models.averaged import SwapAveraged
from companion.models.base import LanguageModel, State, detach, evaluation_mode
from companion.models.classifier import (
    ClassifierConfig, Pooling, TextClassifier, class_logits, layer_groups, pooled,
)
from companion.models.lstm import (
    LSTMConfig, LSTMLanguageModel, LSTMStack, VariationalDropout, lstm_cell, reference_lstm,
)
from companion.models.ngram import NGramModel
from companion.models.recurrent import RecurrentModel
from companion.models.sentence_encoder import (
    SentenceEncoder, has_sentence_encoder, load_sentence_encoder, read_sentence_encoder,
)
from companion.models.seq2seq import (
    Attention, DecoderState, GivenSource, Seq2Seq, Seq2SeqConfig, SourceAttention,
)
from companion.models.transformer import TransformerModel

__all__ = [
    "Attention", "ClassifierConfig", "DecoderState", "GivenSource", "LSTMConfig",
    "LSTMLanguageModel", "LSTMStack", "LanguageModel", "NGramModel", "Pooling",
    "RecurrentModel", "SentenceEncoder", "Seq2Seq", "Seq2SeqConfig", "SourceAttention", "State",
    "SwapAveraged", "TextClassifier", "TransformerModel", "VariationalDropout", "class_logits",
    "detach", "evaluation_mode", "has_sentence_encoder", "layer_groups",
    "load_sentence_encoder", "lstm_cell", "pooled", "read_sentence_encoder", "reference_lstm",
]
