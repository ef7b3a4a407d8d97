"""Named recipes: a tokenizer, a model and a training that go together."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from companion.lstm import LSTMConfig
from companion.tokenizers import KINDS
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

    def __post_init__(self) -> None:
        if self.tokenizer not in KINDS:
            raise ValueError(
                f"the kind of tokenizer must be one of {', '.join(KINDS)}, got {self.tokenizer!r}"
            )
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads must be >= 1, got {self.threads}")

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


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One choice of a preset, which `train --set NAME=VALUE` changes."""

    name: str
    """As in `override`: tokenizer.kind, tokenizer.OPTION, threads, model.FIELD or train.FIELD."""
    value: Any
    """What the preset chose, or left as it is by default."""
    description: str
    """What it is."""

    @property
    def text(self) -> str:
        """The value as `override` reads it."""
        if isinstance(self.value, tuple):
            return ",".join(map(str, self.value)) or "()"
        return str(self.value).lower() if self.value in (None, True, False) else str(self.value)


def settings_of(preset: Preset) -> list[Setting]:
    """Everything that `preset` decides, its defaults too."""
    own, kind = _documented(Preset), KINDS[preset.tokenizer]
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
            for name, description in _documented(type(config)).items()
            if f"{section}.{name}" in _TYPES
        ]
    return settings


def override(preset: Preset, settings: Mapping[str, str]) -> Preset:
    """`preset` with some settings changed: `{"train.epochs": "2", "tokenizer.kind": "byte"}`.

    Values are text, read as the setting's type. With another kind of tokenizer, options that only
    the old one has are left out. ValueError names the setting that is wrong.
    """
    model, train = dict(preset.model), dataclasses.asdict(preset.train)
    tokenizer: dict[str, Any] = {"kind": preset.tokenizer, **preset.tokenizer_options}
    own: dict[str, Any] = {"threads": preset.threads}
    for setting, text in settings.items():
        if setting not in _TYPES:
            raise ValueError(_unknown(setting))
        value = _parse(setting, text)
        section, _, name = setting.rpartition(".")
        {"model": model, "train": train, "tokenizer": tokenizer, "": own}[section][name] = value
        other = {"train.epochs": "steps", "train.steps": "epochs"}.get(setting)
        if other and value is not None and f"train.{other}" not in settings:
            train[other] = None  # one replaces the other; TrainConfig refuses both together
    kind = tokenizer.pop("kind")
    known = KINDS[kind].options if kind in KINDS else tokenizer  # Preset refuses an unknown kind
    for option in [option for option in tokenizer if option not in known]:
        if f"tokenizer.{option}" in settings:
            raise ValueError(
                f"tokenizer.{option} is no option of a {kind} tokenizer, which takes "
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
    # So that a bad value is refused before any work; the vocabulary is not known yet.
    changed.model_config(vocabulary_size=2**31)
    return changed


def is_setting(name: str) -> bool:
    """Whether `override` knows a setting of that name."""
    return name in _TYPES


def _types() -> dict[str, str]:
    """The settings by name, with their types as they are declared."""
    types = {"tokenizer.kind": "str"}
    types |= {f"tokenizer.{option}": "int" for kind in KINDS.values() for option in kind.options}
    types["threads"] = "int | None"
    for section, owner in (("model", LSTMConfig), ("train", TrainConfig)):
        types |= {f"{section}.{f.name}": str(f.type) for f in dataclasses.fields(owner)}
    del types["model.vocabulary_size"]
    return types


_TYPES = _types()


def _unknown(setting: str) -> str:
    """That there is no such setting, which may be meant, and which there are."""
    section, _, name = setting.rpartition(".")
    whole = {known.rpartition(".")[2]: known for known in _TYPES} | {"tokenizer": "tokenizer.kind"}
    near = difflib.get_close_matches(name, whole, n=1)
    hint = f" Did you mean {whole[near[0]]!r}?" if near else ""
    own = [known for known in _TYPES if section and known.startswith(f"{section}.")]
    return (
        f"unknown setting {setting!r}.{hint} The settings"
        f"{f' of {section}' if own else ''} are {', '.join(own or _TYPES)}; "
        "companion presets NAME says what each is"
    )


def _documented(owner: type) -> dict[str, str]:
    """The fields of a dataclass, each with the text that stands under it, on one line."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field_node, text in itertools.pairwise(tree.body):
        if isinstance(field_node, ast.AnnAssign) and isinstance(field_node.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{field_node.target.id} needs a text under it"
            found[field_node.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _parse(setting: str, text: str) -> Any:
    """`text` as the setting's type."""
    declared = _TYPES[setting]
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
