"""Presets: named settings of a tokenizer, a model and its training that work well together."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from companion.core.settings import (
    as_text,
    check_choice,
    check_type,
    field_texts,
    parse,
    setting_types,
    settings_class,
    unknown_setting,
)
from companion.models.lstm import LSTMConfig
from companion.text.tokenizers import KINDS
from companion.training.config import TrainConfig


@settings_class
class Preset:
    """The settings that `companion train --preset NAME` uses."""

    description: str
    """Purpose of the preset, and its loss if that was measured."""
    tokenizer: str
    """Kind of tokenizer: byte, character, word or bpe."""
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the tokenizer's `fit`."""
    model: Mapping[str, Any]
    """Fields of `LSTMConfig`; the vocabulary size comes from the tokenizer."""
    train: TrainConfig
    """Settings of the training."""
    threads: int | None = None
    """CPU threads; for small models one is best, as more cost more CPU time than they save. None
    leaves the choice to torch."""

    def __post_init__(self) -> None:
        check_choice("the kind of tokenizer", self.tokenizer, KINDS)
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be >= 1, got {self.threads}")

    def model_config(self, vocabulary_size: int) -> LSTMConfig:
        """The model's configuration for a tokenizer with `vocabulary_size` tokens."""
        return LSTMConfig(vocabulary_size=vocabulary_size, **self.model)


#: 7.5 epochs up, 37.5 flat, 45 down. Validation and a checkpoint cost as much as two epochs, so
#: there are nine. The chunked loss is exact and needs no memory for all logits.
_AWD = TrainConfig(
    epochs=90, num_streams=100, window_length=70, window_jitter=5.0, learning_rate=5e-3,
    betas=(0.75, 0.99), l2=1.2e-6, warmup=7.5 / 90, flat=37.5 / 90, clip_norm=0.12,
    activation_penalty=3.0, temporal_penalty=1.5, unigram_bias=True, loss="chunked",
    evaluate_epochs=10.0, precision="fp16",
)  # fmt: skip

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
        description="Characters, one layer of 128.",
        tokenizer="character",
        model={"embedding_size": 64, "hidden_size": 128},
        train=TrainConfig(
            epochs=4, num_streams=32, window_length=64, learning_rate=1e-2, reset_state=0.02
        ),
        threads=1,
    ),
    "char-medium": Preset(
        description="Characters, one layer of 256.",
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
    # AWD-LSTM as Gugger & Howard trained it to 68.7 / 65.5 on WikiText-2 in 90 epochs (repository
    # sgugger/Adam-experiments). Of it are left out: the cycle of the first beta between .8 and .7
    # (here their mean), a linear first part of the descent (here all of it is a cosine), and 1150
    # hidden units (here the next multiple of 8). The output bias starts at the tokens' shares.
    "awd-lstm": Preset(
        description="For a GPU: AWD-LSTM (Merity et al. 2018), one cycle of Adam in fp16.",
        tokenizer="word",
        model={
            "embedding_size": 400, "hidden_size": 1152, "num_layers": 3, "last_size": 400,
            "tie_weights": True, "variational": True, "dropout": 0.4, "input_dropout": 0.6,
            "layer_dropout": 0.2, "embedding_dropout": 0.1, "weight_drop": 0.5,
        },
        train=_AWD,
    ),
    "awd-lstm-1024": Preset(
        description="As awd-lstm, in sizes for which cuDNN has a faster kernel; 29 M weights.",
        tokenizer="word",
        model={
            "embedding_size": 384, "hidden_size": 1024, "num_layers": 3, "last_size": 384,
            "tie_weights": True, "variational": True, "dropout": 0.4, "input_dropout": 0.6,
            "layer_dropout": 0.2, "embedding_dropout": 0.1, "weight_drop": 0.5,
        },
        # cuDNN keeps the weights of a layer on the processors between time steps only in fp16, with
        # at most 1,024 units, a multiple of 128, and at most 128 streams, a multiple of 8.
        train=dataclasses.replace(_AWD, num_streams=96),
    ),
}  # fmt: skip


def get_preset(name: str) -> Preset:
    """The preset called `name`; if there is none, a ValueError that suggests the nearest name."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown preset {name!r}; the presets are {', '.join(PRESETS)}.{hint}")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a preset, which `train --set NAME=VALUE` can change."""

    name: str
    """Name of the setting: tokenizer.kind, tokenizer.OPTION, threads, model.FIELD or
    train.FIELD."""
    value: Any
    """Value in the preset, or the default value."""
    description: str
    """Description of the setting, on one line."""

    @property
    def text(self) -> str:
        """The value as text that `override` can parse."""
        return as_text(self.value)


def settings_of(preset: Preset) -> list[Setting]:
    """All settings of `preset`, including those left at their defaults."""
    own, kind = field_texts(Preset), KINDS[preset.tokenizer]
    settings = [
        Setting(name="tokenizer.kind", value=preset.tokenizer, description=own["tokenizer"])
    ]
    for option, description in kind.options.items():
        default = inspect.signature(kind.fit).parameters[option].default
        value = preset.tokenizer_options.get(option, default)
        settings.append(Setting(name=f"tokenizer.{option}", value=value, description=description))
    settings.append(Setting(name="threads", value=preset.threads, description=own["threads"]))
    # The vocabulary is not known yet; it comes from the tokenizer and is not listed.
    for section, config in (("model", preset.model_config(2**31)), ("train", preset.train)):
        settings += [
            Setting(name=f"{section}.{name}", value=getattr(config, name), description=description)
            for name, description in field_texts(type(config)).items()
            if f"{section}.{name}" in _TYPES
        ]
    return settings


def override(preset: Preset, settings: Mapping[str, str]) -> Preset:
    """`preset` with some settings changed, such as `{"train.epochs": "2", "threads": "4"}`.

    Values are text and are parsed as the setting's type. If tokenizer.kind changes, options that
    the new kind does not have are dropped. Raises a ValueError that names the wrong setting,
    TypeError for a preset or a value of another type.
    """
    check_type("preset", preset, Preset, "get_preset(name) gives one")
    check_type("settings", settings, Mapping, 'give names and texts: {"train.epochs": "2"}')
    model, train = dict(preset.model), dataclasses.asdict(preset.train)
    tokenizer: dict[str, Any] = {"kind": preset.tokenizer, **preset.tokenizer_options}
    own: dict[str, Any] = {"threads": preset.threads}
    for setting, text in settings.items():
        if setting not in _TYPES:
            raise ValueError(
                f"{unknown_setting(setting, _TYPES)} (all of them: settings_of(preset); on the "
                "command line: companion presets NAME)"
            )
        value = parse(setting, text, _TYPES[setting])
        section, _, name = setting.rpartition(".")
        {"model": model, "train": train, "tokenizer": tokenizer, "": own}[section][name] = value
        other = {"train.epochs": "steps", "train.steps": "epochs"}.get(setting)
        if other and value is not None and f"train.{other}" not in settings:
            train[other] = None  # one replaces the other; TrainConfig allows only one of them
    kind = tokenizer.pop("kind")
    known = KINDS[kind].options if kind in KINDS else tokenizer  # Preset refuses an unknown kind
    for option in [option for option in tokenizer if option not in known]:
        if f"tokenizer.{option}" in settings:
            raise ValueError(
                f"tokenizer.{option} is not an option of a {kind} tokenizer, which takes "
                f"{', '.join(known) or 'none'}; leave it out, or set tokenizer.kind as well"
            )
        del tokenizer[option]
    changed = dataclasses.replace(
        preset,
        tokenizer=kind,
        tokenizer_options=tokenizer,
        model=model,
        train=TrainConfig(**train),
        **own,
    )
    # Check the values before any work; the vocabulary size is not known yet.
    changed.model_config(vocabulary_size=2**31)
    return changed


def is_setting(name: str) -> bool:
    """Whether `override` has a setting called `name`."""
    return name in _TYPES


def setting_type(name: str) -> Any:
    """The declared type of the setting called `name`; None where there is none."""
    return _TYPES.get(name)


def _types() -> dict[str, Any]:
    """The declared type of each setting, by name."""
    types: dict[str, Any] = {"tokenizer.kind": str}
    types |= {f"tokenizer.{option}": int for kind in KINDS.values() for option in kind.options}
    types["threads"] = setting_types(Preset)["threads"]
    for section, config in (("model", LSTMConfig), ("train", TrainConfig)):
        types |= {f"{section}.{name}": each for name, each in setting_types(config).items()}
    del types["model.vocabulary_size"]
    return types


_TYPES = _types()
