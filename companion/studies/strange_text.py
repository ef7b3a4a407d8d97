"""How does a model of real text meet text of another kind, and can strange text be told?

An LSTM over bytes learns Python's language reference. It reads other documentation, source code
and, where COMPANION_DATA has it, Shakespeare: bits a byte, accuracy and calibration. Then scores
try to tell pieces of those, and repetitive texts, from held-out pieces of the reference.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from companion.calibration import fit_temperature, reliability
from companion.corpora import load_corpus
from companion.evaluation import score, summarize
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.ngram import NGramModel
from companion.out_of_distribution import auroc, pieces, repetitive_texts, text_scores
from companion.runtime import make_generator, seed_everything
from companion.tokenizers import ByteTokenizer, encode_documents
from companion.training import TrainConfig, train

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model, and how much text is read."""

    steps: int = 600
    """Optimizer steps, each on 2,048 bytes."""
    real_bytes: int = 40_000
    """Held-out text of each kind, at most."""
    piece_bytes: int = 300
    """Length of a text that is to be told familiar from strange."""
    num_pieces: int = 100
    """Such texts of each kind, at most."""

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
    """1 where Shakespeare was at hand and is among the texts."""
    bits_per_byte: dict[str, float] = field(default_factory=dict)
    """Of held-out text."""
    ngram_bits_per_byte: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same under Kneser-Ney 5-grams, by what they were fitted on."""
    accuracy: dict[str, float] = field(default_factory=dict)
    """Share of bytes that were the most probable."""
    confidence: dict[str, float] = field(default_factory=dict)
    """Mean probability of the most probable byte."""
    ece: dict[str, float] = field(default_factory=dict)
    """Expected calibration error."""
    ece_after_temperature: dict[str, float] = field(default_factory=dict)
    """The same at the temperature that is best for familiar text."""
    temperature: float = 1.0
    """That temperature."""
    auroc: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each kind of strange text, by score."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train on the reference, and meet the rest."""
    model = byte_model(config.steps, seed=seed, progress=progress)
    return measure(model, config, seed=seed)


def byte_model(steps: int, *, seed: int, progress: bool = False) -> LSTMLanguageModel:
    """An LSTM over bytes, trained on the language reference."""
    ids = encode_documents(ByteTokenizer(), load_corpus("python-docs").train).ids
    seed_everything(seed)
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=257, embedding_size=32, hidden_size=128))
    settings = TrainConfig(steps=steps, num_streams=32, window_length=64, learning_rate=1e-2)
    train(model, ids, settings, device="cpu", progress=progress)
    return model.eval()


def held_out_texts(num_bytes: int) -> dict[str, str]:
    """Validation text of each corpus at hand, the familiar one first, cut after `num_bytes`."""
    corpora = {"reference": "python-docs", "docstrings": "python-docstrings", "code": "python-code"}
    folder = os.environ.get("COMPANION_DATA")
    if folder and Path(folder, "tinyshakespeare", "input.txt").exists():
        corpora["Shakespeare"] = "tiny-shakespeare"
    return {
        name: load_corpus(corpus).text("valid").encode()[:num_bytes].decode(errors="ignore")
        for name, corpus in corpora.items()
    }


def measure(model: LSTMLanguageModel, config: Config, *, seed: int) -> Result:
    """Bits per byte, calibration and detection of what lies beside the language reference."""
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
        name: pieces(text, config.piece_bytes, config.num_pieces) for name, text in texts.items()
    }
    familiar = kinds.pop("reference")
    kinds |= repetitive_texts(model, familiar, generator=make_generator(seed))
    normal = text_scores(model, familiar)
    for name, strange in kinds.items():
        found = text_scores(model, strange)
        result.auroc[name] = {by: auroc(normal[by], found[by]) for by in normal}
    return result


def _stream(text: str) -> Int[torch.Tensor, " bytes"]:
    """An end token, then the bytes of the text."""
    tokenizer = ByteTokenizer()
    return torch.tensor([tokenizer.end_id, *tokenizer.encode(text)])
