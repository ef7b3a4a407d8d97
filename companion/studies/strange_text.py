"""How well does a model predict text of another kind, and can such strange text be detected?

An LSTM over bytes learns Python's language reference. Bits per byte, accuracy and calibration are
measured on other documentation, source code and, if COMPANION_DATA has it, Shakespeare. Then scores
are tested for detecting pieces of these, and repetitive texts, among held-out pieces of the
reference.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import settings_class
from companion.evaluation.calibration import fit_temperature, reliability
from companion.evaluation.scoring import score, summarize
from companion.generalization.out_of_distribution import (
    auroc,
    byte_pieces,
    repetitive_texts,
    strangeness_scores,
)
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.ngram import NGramModel
from companion.text.corpora import load_corpus
from companion.text.tokenizers import ByteTokenizer, encode_documents
from companion.training.config import TrainConfig
from companion.training.trainer import train

if TYPE_CHECKING:
    from jaxtyping import Int


@settings_class
class Config:
    """Settings of the model, its training and the texts."""

    model: LSTMConfig = LSTMConfig(vocabulary_size=257, embedding_size=32, hidden_size=128)
    """Size of the LSTM over bytes."""
    training: TrainConfig = TrainConfig(
        steps=600, num_streams=32, window_length=64, learning_rate=1e-2
    )
    """Training on the language reference."""
    real_bytes: int = 40_000
    """Maximum number of bytes of held-out text of each kind."""
    piece_bytes: int = 300
    """Bytes of each piece that is classified as familiar or strange."""
    num_pieces: int = 100
    """Maximum number of pieces of each kind."""

    def __post_init__(self) -> None:
        if self.piece_bytes < 80:
            raise ValueError(f"piece_bytes must be >= 80, got {self.piece_bytes}")
        if self.real_bytes < self.piece_bytes or self.num_pieces < 1:
            raise ValueError(
                "real_bytes must be >= piece_bytes, and num_pieces >= 1, got "
                f"{self.real_bytes} and {self.num_pieces}"
            )


@dataclass(kw_only=True)
class Result:
    """Figures by kind of text; "reference" is the familiar one."""

    shakespeare: int = 0
    """1 if Shakespeare was available and is among the texts, otherwise 0."""
    bits_per_byte: dict[str, float] = field(default_factory=dict)
    """Loss of the LSTM on held-out text, in bits per byte."""
    ngram_bits_per_byte: dict[str, dict[str, float]] = field(default_factory=dict)
    """Loss of Kneser-Ney 5-grams on the same text, in bits per byte, by training text."""
    accuracy: dict[str, float] = field(default_factory=dict)
    """Share of bytes to which the LSTM gave the highest probability."""
    confidence: dict[str, float] = field(default_factory=dict)
    """Mean probability of the most probable byte."""
    ece: dict[str, float] = field(default_factory=dict)
    """Expected calibration error of the LSTM."""
    ece_after_temperature: dict[str, float] = field(default_factory=dict)
    """Expected calibration error at `temperature`."""
    temperature: float = 1.0
    """Temperature with the lowest loss on familiar text."""
    auroc: dict[str, dict[str, float]] = field(default_factory=dict)
    """AUROC of each score for detecting each kind of strange text."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train on the language reference, and measure all other texts."""
    model = byte_model(config, seed=seed, progress=progress)
    return measure(model, config, seed=seed)


def byte_model(config: Config, *, seed: int, progress: bool = False) -> LSTMLanguageModel:
    """An LSTM over bytes, trained on the language reference."""
    ids = encode_documents(ByteTokenizer(), load_corpus("python-docs").train).ids
    seed_everything(seed)
    model = LSTMLanguageModel(config.model)
    train(model, ids, config.training, device="cpu", progress=progress)
    return model.eval()


def held_out_texts(num_bytes: int) -> dict[str, str]:
    """Validation text of each available corpus, the familiar one first, cut after `num_bytes`."""
    corpora = {"reference": "python-docs", "docstrings": "python-docstrings", "code": "python-code"}
    folder = os.environ.get("COMPANION_DATA")
    if folder and Path(folder, "tinyshakespeare", "input.txt").exists():
        corpora["Shakespeare"] = "tiny-shakespeare"
    return {
        name: load_corpus(corpus).text("valid").encode()[:num_bytes].decode(errors="ignore")
        for name, corpus in corpora.items()
    }


def measure(model: LanguageModel, config: Config, *, seed: int) -> Result:
    """The study's result for a model that is already trained on the language reference."""
    texts = held_out_texts(config.real_bytes)
    result = Result(shakespeare=int("Shakespeare" in texts))
    ids = {name: _stream(text) for name, text in texts.items()}
    result.temperature = fit_temperature(model, _stream(load_corpus("python-docs").text("test")))
    for name, row in ids.items():
        scores = score(model, row)
        summary = summarize(scores, num_bytes=len(row) - 1)
        result.bits_per_byte[name] = float(summary.bits_per_byte or 0.0)
        result.accuracy[name] = summary.accuracy
        assert scores.confidences is not None
        result.confidence[name] = float(scores.confidences.double().mean())
        for table, temperature in (
            (result.ece, 1.0),
            (result.ece_after_temperature, result.temperature),
        ):
            at = score(model, row, temperature=temperature)
            assert at.confidences is not None
            table[name] = reliability(at.confidences, at.predictions == at.targets).ece
    for fitted_on, corpus in (("reference", "python-docs"), ("code", "python-code")):
        training = _stream(load_corpus(corpus).text("train"))[:300_000]
        ngrams = NGramModel.fit(training, order=5, vocabulary_size=257, smoothing="kneser-ney")
        result.ngram_bits_per_byte[fitted_on] = {
            name: float(ngrams.nats(row)[1:].mean()) / math.log(2) for name, row in ids.items()
        }
    kinds = {
        name: byte_pieces(text, config.piece_bytes, config.num_pieces)
        for name, text in texts.items()
    }
    familiar = kinds.pop("reference")
    kinds |= repetitive_texts(model, familiar, generator=make_generator(seed, "repetitive texts"))
    normal = strangeness_scores(model, familiar)
    for name, strange in kinds.items():
        found = strangeness_scores(model, strange)
        result.auroc[name] = {by: auroc(normal[by], found[by]) for by in normal}
    return result


def _stream(text: str) -> Int[torch.Tensor, " bytes"]:
    """An end token, then the bytes of the text."""
    tokenizer = ByteTokenizer()
    return torch.tensor([tokenizer.end_id, *tokenizer.encode(text)])
