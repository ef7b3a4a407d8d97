"""Named recipes: a tokenizer, a model and a training that go together."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from companion.lstm import LSTMConfig
from companion.training import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A recipe that `companion train --preset NAME` follows."""

    description: str
    """What it is for, and what it reaches where that was measured."""
    tokenizer: str
    """Kind of tokenizer: byte, character, word or bpe."""
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of its `fit`."""
    model: Mapping[str, Any]
    """Fields of `LSTMConfig`; the vocabulary size comes from the tokenizer."""
    train: TrainConfig
    """How it is trained."""
    threads: int | None = None
    """CPU threads: a small model's matrices are too small to share, and two threads cost more CPU
    time than they save. None leaves torch's own choice."""

    def model_config(self, vocabulary_size: int) -> LSTMConfig:
        """The model for a tokenizer with this many tokens."""
        return LSTMConfig(vocabulary_size=vocabulary_size, **self.model)


PRESETS: dict[str, Preset] = {
    "small": Preset(
        description="About a minute on a laptop: 1,000 BPE tokens, one layer of 192.",
        tokenizer="bpe",
        tokenizer_options={"vocabulary_size": 1000},
        model={"embedding_size": 96, "hidden_size": 192, "dropout": 0.2},
        train=TrainConfig(
            epochs=8, num_streams=16, window_length=64, learning_rate=6e-3, reset_state=0.02
        ),
        threads=1,
    ),
    "char-small": Preset(
        description="Characters, one layer of 128. Tiny Shakespeare: 1.60 nats a character.",
        tokenizer="character",
        model={"embedding_size": 64, "hidden_size": 128},
        train=TrainConfig(
            epochs=4, num_streams=32, window_length=64, learning_rate=1e-2, reset_state=0.02
        ),
        threads=1,
    ),
    "char-medium": Preset(
        description="Characters, one layer of 256. Tiny Shakespeare: 1.50 nats a character.",
        tokenizer="character",
        model={"embedding_size": 64, "hidden_size": 256, "dropout": 0.1},
        train=TrainConfig(
            epochs=6, num_streams=32, window_length=64, learning_rate=6e-3, reset_state=0.02
        ),
    ),
    "medium": Preset(
        description="For a GPU or patience: 8,000 BPE tokens, two tied layers of 512.",
        tokenizer="bpe",
        tokenizer_options={"vocabulary_size": 8000},
        model={
            "embedding_size": 512, "hidden_size": 512, "num_layers": 2,
            "dropout": 0.4, "tie_weights": True,
        },
        train=TrainConfig(
            epochs=20, num_streams=64, window_length=96, learning_rate=3e-3, reset_state=0.02,
            patience=3,
        ),
    ),
    "wikitext-cpu": Preset(
        description="Whole words on one CPU core: sampled softmax, one tied layer of 200.",
        tokenizer="word",
        model={"embedding_size": 200, "hidden_size": 200, "tie_weights": True},
        train=TrainConfig(
            epochs=3, num_streams=32, window_length=35, learning_rate=1e-2, loss="sampled",
            num_samples=1024, unigram_bias=True,
        ),
        threads=1,
    ),
    "awd-lstm": Preset(
        description="For a GPU: AWD-LSTM (Merity et al. 2018), one cycle of AdamW in bf16.",
        tokenizer="word",
        model={
            "embedding_size": 400, "hidden_size": 1150, "num_layers": 3, "last_size": 400,
            "tie_weights": True, "variational": True, "dropout": 0.4, "input_dropout": 0.65,
            "layer_dropout": 0.2, "embedding_dropout": 0.1, "weight_drop": 0.5,
        },
        train=TrainConfig(
            epochs=90, num_streams=80, window_length=70, window_jitter=5.0, learning_rate=5e-3,
            weight_decay=0.05, warmup=0.25, clip_norm=0.25, activation_penalty=2.0,
            temporal_penalty=1.0, unigram_bias=True, precision="bf16",
        ),
    ),
}  # fmt: skip


def get_preset(name: str) -> Preset:
    """The preset called `name`; ValueError, with the nearest name, when there is none."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown preset {name!r}; the presets are {', '.join(PRESETS)}.{hint}")


def override(preset: Preset, settings: Mapping[str, str]) -> Preset:
    """`preset` with some fields changed: `{"train.epochs": "2", "model.hidden_size": "64"}`.

    Values are text, read as the field's type. ValueError names the setting that is wrong.
    """
    model, train = dict(preset.model), dataclasses.asdict(preset.train)
    for setting, text in settings.items():
        section, _, name = setting.partition(".")
        known = {"model": LSTMConfig, "train": TrainConfig}.get(section)
        names = [] if known is None else [f.name for f in dataclasses.fields(known)]
        names = [field_name for field_name in names if field_name != "vocabulary_size"]
        if known is None or name not in names:
            raise ValueError(
                f"unknown setting {setting!r}; use model.FIELD of LSTMConfig or train.FIELD of "
                f"TrainConfig{', one of ' + ', '.join(names) if names else ''}"
            )
        value = _parse(setting, text, known, name)
        (model if section == "model" else train)[name] = value
        other = {"train.epochs": "steps", "train.steps": "epochs"}.get(setting)
        if other and value is not None and f"train.{other}" not in settings:
            train[other] = None  # one replaces the other; TrainConfig refuses both together
    changed = dataclasses.replace(preset, model=model, train=TrainConfig(**train))
    # So that a bad value is refused before any work; the vocabulary is not known yet.
    changed.model_config(vocabulary_size=2**31)
    return changed


def _parse(setting: str, text: str, owner: type, name: str) -> Any:
    """`text` as the type that the dataclass `owner` declares for its field `name`."""
    declared = str(next(f.type for f in dataclasses.fields(owner) if f.name == name))
    kinds = [kind.strip() for kind in declared.split("|")]
    if text.lower() == "none" and "None" in kinds:
        return None
    try:
        match kinds[0]:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return {"true": True, "false": False}[text.lower()]
            case "tuple[float, float]":
                first, second = (float(part) for part in text.split(","))
                return first, second
            case "tuple[int, ...]":
                return tuple(int(part) for part in text.strip("()").split(",") if part)
            case _:
                return text
    except (ValueError, KeyError):
        raise ValueError(f"{setting} must be of type {declared}, got {text!r}") from None
