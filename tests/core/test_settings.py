"""Text becomes what a dataclass declares, or is refused by a sentence that names the setting."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import math
import pkgutil
import pydoc
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from annotation_checker import unchecked

import companion as package
from companion import studies
from companion.core.settings import (
    as_text,
    changed,
    check_choice,
    check_counts,
    field_texts,
    setting_types,
    settings_class,
)
from companion.generation.decoding import SamplingConfig
from companion.models.lstm import LSTMConfig
from companion.models.ngram import NGramModel
from companion.models.transformer import TransformerModel
from companion.text.corpora import load_corpus
from companion.training.config import TrainConfig

Loss = Literal["full", "sampled"]


@dataclass(frozen=True)
class Training:
    steps: int = 10
    rate: float = 0.1
    loss: Loss = "full"


@dataclass(frozen=True)
class Config:
    training: Training = field(default_factory=Training)
    before: Training = field(default_factory=lambda: Training(steps=3))
    ways: tuple[str, ...] = ("a",)
    betas: tuple[float, float] = (0.9, 0.99)
    tied: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.training.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.training.steps}")


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"training.steps": "100", "training.rate": "1"}, {"training": Training(100, 1.0)}),
        (
            {"before.loss": "sampled", "training.steps": "7"},
            {"before": Training(3, loss="sampled"), "training": Training(7)},
        ),
        ({"ways": "a,b"}, {"ways": ("a", "b")}),
        ({"ways": " (c, d,) "}, {"ways": ("c", "d")}),
        ({"ways": '"c, d",e'}, {"ways": ("c, d", "e")}),
        ({"ways": ""}, {"ways": ()}),
        ({"ways": "()"}, {"ways": ()}),
        ({"betas": "0,1e-3", "tied": "True"}, {"betas": (0.0, 1e-3), "tied": True}),
        ({"patience": "3"}, {"patience": 3}),
        ({"patience": "None"}, {"patience": None}),
        ({}, {}),
    ],
)
def test_text_becomes_the_declared_type_and_nothing_else_changes(settings, wanted):
    before = Config()
    got = changed(before, settings)
    assert got == dataclasses.replace(before, **wanted)
    assert repr(got) == repr(dataclasses.replace(before, **wanted))  # 1 is not 1.0
    assert before == Config()


@pytest.mark.parametrize(
    ("setting", "text", "message"),
    [
        ("training.steps", "1.5", "training.steps must be a whole number, got '1.5'"),
        ("training.rate", "", "training.rate must be a number, got ''"),
        ("training.loss", "half", "training.loss must be one of full, sampled, got 'half'"),
        ("tied", "1", "tied must be true or false, got '1'"),
        ("patience", "abc", "patience must be a whole number or none, got 'abc'"),
        ("betas", "1", "betas must be 2 values with commas between, each a number, got '1'"),
        ("betas", "", "betas must be 2 values with commas between, each a number, got ''"),
        ("training.step", "1", "unknown setting 'training.step'. Did you mean 'training.steps'?"),
        ("before.step", "1", "Did you mean 'before.steps'?"),
        ("patiense", "1", "Did you mean 'patience'?"),
        ("training", "1", "Did you mean 'training.steps'?"),
        ("training.x", "1", "'training.x'. The settings of training are training.steps, training."),
        (
            "xyz",
            "1",
            "The settings are training.steps, before.steps, ways, betas, tied, patience and 4",
        ),
        ("", "1", "unknown setting ''. The settings are training.steps"),
        ("xyz", "1", "(all of them: help(test_settings.Config))"),
        ("training.steps", "0", "steps must be >= 1, got 0"),
    ],
)
def test_what_means_nothing_is_refused_by_name_value_and_what_it_must_be(setting, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        changed(Config(), {setting: text})


@pytest.mark.parametrize("name", studies.study_names())
def test_every_setting_of_a_study_can_be_given_as_text(name):
    config = studies.load_study(name).Config()
    for setting in setting_types(type(config)):
        value = config
        for part in setting.split("."):
            value = getattr(value, part)
        assert studies.configured(name, {setting: as_text(value)}) == config, setting


def test_a_value_that_is_no_choice_is_refused_with_the_choices():
    check_choice("loss", "full", Loss)
    with pytest.raises(ValueError, match="loss must be one of full, sampled, got 'half'"):
        check_choice("loss", "half", Loss)
    with pytest.raises(ValueError, match="got None"):
        check_choice("loss", None, Loss)


@settings_class
class Base:
    """A base."""

    first: int = 1
    """The first
    field."""


@settings_class
class Shown(Base):
    """What it is.

    And more.
    """

    second: int = 2
    """The second."""


@settings_class
class Overriding(Shown):
    """Other defaults."""

    second: int = 3
    first: int = 4


def test_a_field_with_another_default_keeps_the_text_it_had() -> None:
    texts = "Fields:\n    first: The first field.\n    second: The second.\n"
    assert Overriding.__doc__ == f"Other defaults.\n\n{texts}"
    assert (Overriding().first, Overriding().second) == (4, 3)


def test_a_new_field_without_a_text_is_named() -> None:
    @settings_class
    class Bare(Base):
        """A field without a text."""

        third: int = 3

    with pytest.raises(AssertionError, match="third needs a text"):
        field_texts(Bare)


def test_help_ends_with_the_text_of_each_field_inherited_ones_too() -> None:
    texts = "Fields:\n    first: The first field.\n    second: The second.\n"
    assert Shown.__doc__ == f"What it is.\n\nAnd more.\n\n{texts}"
    assert Shown().__doc__ == Shown.__doc__
    assert Base.__doc__ == "A base.\n\nFields:\n    first: The first field.\n"
    assert "second: The second." in pydoc.plaintext.document(Shown)


@settings_class
class Counts(Base):
    """Counts of things."""

    some: int | None = None
    """Some."""
    many: tuple[int, ...] = ()
    """Many."""
    share: float = 0.5
    """No count."""
    flag: bool = False
    """No count."""


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"first": 2.5}, "first must be a whole number, got 2.5"),
        ({"first": 2.0}, "first must be a whole number, got 2.0"),
        ({"first": True}, "first must be a whole number, got True"),
        ({"first": "3"}, "first must be a whole number, got '3'"),
        ({"first": None}, "first must be a whole number, got None"),
        ({"some": 1.5}, "some must be a whole number or none, got 1.5"),
        ({"many": (1, 2.5)}, "each a whole number, got (1, 2.5)"),
    ],
)
def test_what_is_no_whole_number_is_refused_where_one_is_declared(
    values: dict[str, Any], words: str
) -> None:
    with unchecked(), pytest.raises(TypeError, match=re.escape(words)):
        Counts(**values)
    with unchecked(), pytest.raises(TypeError, match=re.escape(words)):
        dataclasses.replace(Counts(), **values)


def test_whole_numbers_of_numpy_and_other_fields_are_taken_as_they_are() -> None:
    with unchecked():
        made = Counts(first=np.int64(3), some=None, many=(1, 2), share=1, flag=True)
    assert made == Counts(first=3, many=(1, 2), share=1.0, flag=True)
    assert list(inspect.signature(Counts).parameters) == ["first", "some", "many", "share", "flag"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TrainConfig(steps=2.5), "steps must be a whole number"),
        (lambda: TrainConfig(steps=True), "steps must be a whole number"),
        (lambda: SamplingConfig(top_k=1.5), "top_k must be a whole number"),
        (lambda: LSTMConfig(vocabulary_size=2.0), "vocabulary_size must be a whole number"),
        (
            lambda: NGramModel.fit([0, 1, 0, 1], order=2.5, vocabulary_size=2),
            "order must be a whole number",
        ),
        (
            lambda: load_corpus("python-docs", max_characters=500.5),
            "max_characters must be a whole",
        ),
        (lambda: TransformerModel(vocabulary_size=5, width=8.0), "width must be a whole number"),
    ],
)
def test_classes_of_settings_and_functions_refuse_what_is_no_whole_number(
    call: Callable[[], object], words: str
) -> None:
    with unchecked(), pytest.raises(TypeError, match=words):
        call()


def test_without_source_the_docstring_is_all() -> None:
    made = settings_class(type("Made", (), {"__doc__": "Alone.", "__annotations__": {"a": int}}))
    assert made.__doc__ == "Alone."
    assert [field.name for field in dataclasses.fields(made)] == ["a"]


def test_every_class_of_settings_shows_its_fields_in_its_help() -> None:
    found = []
    for module in pkgutil.walk_packages(package.__path__, "companion."):
        # That module is Transformers' own kind of settings.
        if module.name in ("companion.__main__", "companion.interop.lstm_for_transformers"):
            continue
        for name, each in vars(importlib.import_module(module.name)).items():
            own = isinstance(each, type) and each.__module__ == module.name
            if (
                own
                and dataclasses.is_dataclass(each)
                and (name.endswith("Config") or name == "Preset")
            ):
                found.append(each)
                shown = re.findall(r"(?m)^    (\w+): \S", each.__doc__ or "")
                assert shown == [field.name for field in dataclasses.fields(each)], each
    assert len(found) > 30


@settings_class
class Sizes:
    """Sizes."""

    width: int = 1
    """Width."""
    extra: int = 0
    """Extra."""
    rates: tuple[float, ...] = (0.1,)
    """Rates."""

    def __post_init__(self) -> None:
        check_counts(self, zero=("extra",))


@pytest.mark.parametrize(
    ("name", "wrong", "words"),
    [
        ("width", 0, "width must be >= 1, got 0"),
        ("extra", -1, "extra must be >= 0, got -1"),
        ("rates", (0.1, math.nan), r"rates must not be nan, got \(0.1, nan\)"),
    ],
)
def test_counts_are_of_something_and_no_setting_is_nan(name: str, wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Sizes(**{name: wrong})
