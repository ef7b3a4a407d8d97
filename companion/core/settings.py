"""Settings: dataclasses that help() shows with the text of each field, read from text by their
types (`--set NAME=VALUE` on the command line)."""

from __future__ import annotations

import ast
import contextlib
import csv
import dataclasses
import difflib
import functools
import inspect
import itertools
import math
import numbers
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, TypeVar

AnySettings = TypeVar("AnySettings")


@typing.dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,)
)
def settings_class(plain: type[AnySettings]) -> type[AnySettings]:
    """Makes a class a class of settings: a frozen dataclass with arguments by name alone, whose
    help() ends with the text of each field, and which refuses what is not a whole number where one
    is declared (TypeError), and nan (ValueError).

    The texts stand as strings under the fields, where Python forgets them; they are read from the
    source when `__doc__` is asked for, and types when the first instance is made, so a class costs
    nothing until then.
    """
    made = dataclasses.dataclass(frozen=True, kw_only=True)(plain)
    made.__doc__ = _DocWithFields(made.__doc__ or "")  # type: ignore[assignment]
    init = made.__init__

    @functools.wraps(init)
    def checked(self: object, *refused: Any, **values: Any) -> None:
        declared = _hints(made)
        for name, value in values.items():
            if name in declared and not _is_whole_if_declared(value, declared[name]):
                raise TypeError(f"{name} must be {_described(declared[name])}, got {value!r}")
        init(self, *refused, **values)
        for name, value in values.items():
            parts = value if isinstance(value, tuple) else (value,)
            if any(isinstance(part, float) and math.isnan(part) for part in parts):
                raise ValueError(f"{name} must not be nan, got {value}")

    made.__init__ = checked  # type: ignore[method-assign]
    return made


_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)


def _is_whole_if_declared(value: object, declared: Any) -> bool:
    """False where `declared` is made of whole numbers (and None), and `value` of something else."""
    inner = typing.get_args(declared)
    origin = typing.get_origin(declared)
    if origin in (types.UnionType, typing.Union):
        others = [each for each in inner if each is not type(None)]
        return value is None or len(others) != 1 or _is_whole_if_declared(value, others[0])
    if origin is tuple and isinstance(value, tuple):
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return all(itertools.starmap(_is_whole_if_declared, zip(value, kinds, strict=False)))
    return declared is not int or _is_whole(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_whole(**values: object) -> None:
    """Raise TypeError that names the argument where a value is not a whole number."""
    for name, value in values.items():
        if not _is_whole(value):
            raise TypeError(f"{name} must be a whole number, got {value!r}")


def check_type(name: str, value: object, kind: type, how: str) -> None:
    """Raise TypeError where the argument `name` is not a `kind`; `how` says where to get one."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, got {value!r:.99}; {how}")


def check_sizes(**values: int) -> None:
    """Raise an error that names the argument where a value is not a whole number (TypeError) or
    below 1 (ValueError)."""
    check_whole(**values)
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")


def check_counts(config: object, *, zero: Collection[str] = ()) -> None:
    """Raise ValueError that names the field where one that is declared a whole number is below 1,
    or below 0 for those named in `zero`."""
    for name, declared in _hints(type(config)).items():
        least = 0 if name in zero else 1
        if declared is int and getattr(config, name) < least:
            raise ValueError(f"{name} must be >= {least}, got {getattr(config, name)}")


class _DocWithFields:
    """A class's `__doc__`, made when it is read; without source it is the docstring alone."""

    def __init__(self, doc: str) -> None:
        self.doc = doc

    def __get__(self, instance: object, owner: type) -> str:
        try:
            texts = field_texts(owner)
        except (OSError, TypeError):  # no source, as in a frozen program or a session
            return self.doc
        shown = (
            textwrap.fill(f"{name}: {text}", 96, initial_indent="    ", subsequent_indent=" " * 8)
            for name, text in texts.items()
        )
        return "\n".join([inspect.cleandoc(self.doc), "", "Fields:", *shown, ""])


def field_texts(config: type) -> dict[str, str]:
    """The fields of a dataclass, inherited ones first, each with the string under it on one line.

    A field that overrides an inherited one may leave its text out: it keeps the inherited one.
    OSError where the source cannot be read.
    """
    found: dict[str, str] = {}
    for owner in reversed(config.__mro__):
        if not dataclasses.is_dataclass(owner):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for node, text in itertools.pairwise([*tree.body, None]):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                if isinstance(text, ast.Expr):
                    found[node.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
                assert node.target.id in found, f"{node.target.id} needs a text under it"
    return found


def changed(config: AnySettings, settings: Mapping[str, str]) -> AnySettings:
    """A dataclass with some fields changed: `{"steps": "100", "model.hidden_size": "64"}`.

    A dotted name reaches into a field that is a dataclass itself. Values are read by `parse`.
    ValueError names an unknown setting, or one whose value cannot be read.
    """
    declared = setting_types(type(config))
    values: dict[str, Any] = {}
    for name, text in settings.items():
        if name not in declared:
            owner = f"{type(config).__module__}.{type(config).__qualname__}"
            raise ValueError(f"{unknown_setting(name, declared)} (all of them: help({owner}))")
        values[name] = parse(name, text, declared[name])
    replaced: AnySettings = _replaced(config, values)
    return replaced


def setting_types(config: type) -> dict[str, Any]:
    """The settings of a dataclass by name, dotted where dataclasses nest, each with its type."""
    hints = typing.get_type_hints(config)
    settings: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        declared = hints[field.name]
        if dataclasses.is_dataclass(declared):
            inner = setting_types(typing.cast(type, declared))
            settings |= {f"{field.name}.{name}": each for name, each in inner.items()}
        else:
            settings[field.name] = declared
    return settings


def parse(name: str, text: str, declared: Any) -> Any:
    """`text` as a value of the declared type; ValueError names the setting and what it must be.

    Knows bool, int, float, str, `X | None`, Literal and tuples, whose parts stand between commas
    (in double quotes where they hold one); no text is the empty tuple. TypeError for no text.
    """
    check_type(name, text, str, f'give it as text, "{text}"')
    try:
        return _parse(text.strip(), declared)
    except (ValueError, csv.Error):
        raise ValueError(f"{name} must be {_described(declared)}, got {text!r}") from None


def as_text(value: Any) -> str:
    """A setting's value as `parse` reads it."""
    if isinstance(value, tuple):
        parts = map(as_text, value)
        return ",".join(f'"{part}"' if "," in part else part for part in parts) or "()"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


#: Most settings that a message lists.
MOST_LISTED = 8


def unknown_setting(name: str, known: Collection[str]) -> str:
    """The message for an unknown setting, with the nearest names, or some where none is near."""
    section, _, last = name.rpartition(".")
    own = [each for each in known if section and each.startswith(f"{section}.")]
    # By the last part of a name, and by that of a section: the first setting in it.
    sections: dict[str, str] = {}
    for each in known:
        sections.setdefault(each.partition(".")[0], each)
    by_name = ({} if section else sections) | {
        each.rpartition(".")[2]: each for each in (*known, *own)
    }
    near = [last] if last in by_name else difflib.get_close_matches(last, by_name, n=3)
    # Else a word of a name, or its first letters: "rate" and "lr" are near "learning_rate".
    near = near or [each for each in by_name if last in (*each.split("_"), _initials(each))][:3]
    refusal = f"unknown setting {name!r}."
    if near:
        return f"{refusal} Did you mean {' or '.join(repr(by_name[each]) for each in near)}?"
    there, of_section = (own, f" of {section}") if own else (list(known), "")
    listed = there if len(there) <= MOST_LISTED or own else list(sections.values())
    listed = listed[:MOST_LISTED]
    more = f" and {len(there) - len(listed)} more" if len(listed) < len(there) else ""
    return f"{refusal} The settings{of_section} are {', '.join(listed)}{more}"


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise ValueError where `value` is not one of the choices: a Literal type, or their names."""
    known = typing.get_args(choices) or tuple(choices)
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")


def _replaced(config: Any, values: Mapping[str, Any]) -> Any:
    """`config` with fields replaced, and within its fields those of dotted names."""
    sections: dict[str, dict[str, Any]] = {}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        section, dot, inner = name.partition(".")
        if dot:
            sections.setdefault(section, {})[inner] = value
        else:
            changes[name] = value
    for section, inside in sections.items():
        changes[section] = _replaced(getattr(config, section), inside)
    return dataclasses.replace(config, **changes)


def _parse(text: str, declared: Any) -> Any:
    """`text` as the declared type; a ValueError without words where it cannot be."""
    inner = typing.get_args(declared)
    origin = typing.get_origin(declared)
    if origin in (types.UnionType, typing.Union):
        if type(None) in inner and text.lower() == "none":
            return None
        for each in inner:
            with contextlib.suppress(ValueError):
                return _parse(text, each)
    if origin is Literal:
        for choice in inner:
            if str(choice) == text:
                return choice
    if origin is tuple:
        text = text.removeprefix("(").removesuffix(")").removesuffix(",")  # "(5,)" is Python's
        parts = [part for line in csv.reader([text], skipinitialspace=True) for part in line]
        kinds = inner[:1] * len(parts) if inner[1:] == (...,) else inner
        return tuple(_parse(part.strip(), kind) for part, kind in zip(parts, kinds, strict=True))
    if declared is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if declared in (int, float, str):
        return declared(text)
    raise ValueError


def _described(declared: Any) -> str:
    """A type in words: "a whole number or none"."""
    inner = typing.get_args(declared)
    origin = typing.get_origin(declared)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(_described, inner))
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin is tuple:
        number = "any number of" if inner[1:] == (...,) else str(len(inner))
        return f"{number} values with commas between, each {_described(inner[0])}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return {**words, type(None): "none"}.get(declared, "what no text can give")
