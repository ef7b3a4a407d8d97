"""The public names of the package with their arguments, and what a change of them breaks.

    python -m tools.public_names            print them
    python -m tools.public_names --write    put them into tests/project/public_names.txt

Public is what the `__init__` of a package exports, with the fields of its dataclasses and the
methods of its classes, and every command with its options. The settings of studies are not: they
change with the chapters. A name or argument that a release had is not taken away at once: for one
minor version the old one goes on working and warns (`companion.core.renamed`). The list in the
tests makes each change visible, and `faults` says of it what breaks callers.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

from tools import reference
from tools.chapters import ROOT

LIST = ROOT / "tests" / "project" / "public_names.txt"

HEADER = """\
# What a release promises: names with their arguments, and commands with their options.
# Written by `python -m tools.public_names --write`; the rule is in CONTRIBUTING.md.
"""

#: What stands before the new name where an old one still works.
NOW = " is now "


def entries() -> dict[str, list[str]]:
    """Each public name with its arguments, fields and methods, a line each."""
    found: dict[str, list[str]] = {}
    for package in reference.PACKAGES:
        module = importlib.import_module(f"companion.{package}")
        for name in module.__all__:
            found[f"companion.{package}.{name}"] = list(_parts(getattr(module, name)))
        aliases = getattr(vars(module).get("__getattr__"), "renamed", {})
        for old, (new, version) in aliases.items():
            found[f"companion.{package}.{old}"] = [f"{NOW.strip()} {new}, until {version}"]
    for command, options in _commands():
        found[command] = options
    return dict(sorted(found.items()))


def _parts(thing: Any) -> Iterator[str]:
    """The lines below a name."""
    if not callable(thing):
        return
    if inspect.isclass(thing):
        if dataclasses.is_dataclass(thing):
            if all(field.kw_only for field in dataclasses.fields(thing)):
                yield "*"
            for name, annotation, default, _ in reference.fields(thing):
                yield f"{name}: {annotation}{f' = {default}' if default else ''}"
        elif _made_by_us(thing):
            yield from _arguments(thing)
        yield from _methods(thing)
    else:
        yield from _arguments(thing)
    function = thing.__init__ if inspect.isclass(thing) else thing
    for old, (new, version) in getattr(function, "renamed", {}).items():
        yield f"{old}{NOW}{new}, until {version}"


def _made_by_us(thing: type) -> bool:
    """Whether we say what a class is made with, and not Python, whose releases differ."""
    return any(
        owner.__module__.startswith("companion.") and {"__init__", "__new__"} & set(vars(owner))
        for owner in thing.__mro__
    )


def _signature(thing: Any) -> str:
    """Arguments and result on one line, a name as it is written."""
    arguments, result = reference.signature(thing)
    text = f"{arguments} -> {result}" if result else arguments
    return re.sub(r"~[\w.]*\.(\w+)", r"\1", text)


def _arguments(thing: Any) -> Iterator[str]:
    """The arguments of a function or class, a line each, and what it returns."""
    text = _signature(thing)
    inside, _, result = text.rpartition(") -> ") if ") -> " in text else (text[:-1], "", "")
    yield from _split(inside[1:])
    if result:
        yield f"-> {result}"


def _split(arguments: str) -> Iterator[str]:
    """Arguments one by one: commas in brackets and quotes part nothing."""
    depth, quoted, start = 0, "", 0
    for place, letter in enumerate(arguments):
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "'\"":
            quoted = letter
        elif letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and depth == 0:
            yield arguments[start:place].strip()
            start = place + 1
    if arguments[start:].strip():
        yield arguments[start:].strip()


def _methods(thing: type) -> Iterator[str]:
    """The public methods and properties that a class has from us, each on one line."""
    found: dict[str, str] = {}
    fields = getattr(thing, "__dataclass_fields__", {})
    for owner in reversed(thing.__mro__):
        if not owner.__module__.startswith("companion."):
            continue
        for name, member in vars(owner).items():
            if name.startswith("_") or name in fields:
                continue
            if isinstance(member, (staticmethod, classmethod)):
                member = member.__func__
            if inspect.isfunction(member):
                found[name] = f".{name}{_signature(member)}"
            elif isinstance(member, property) or hasattr(member, "func"):
                found[name] = f".{name}"
    yield from (found[name] for name in sorted(found))


def _commands() -> Iterator[tuple[str, list[str]]]:
    """Commands with their arguments and the names of their options."""
    for name, command in reference.commands():
        shown = [each for each in command.params if not getattr(each, "hidden", False)]
        yield (
            name,
            [
                str(each.name).upper()
                if each.param_type_name == "argument"
                else ", ".join([*each.opts, *each.secondary_opts])
                for each in shown
            ],
        )


# --- As a text, and what changed ------------------------------------------------------------------


def as_text(found: dict[str, list[str]]) -> str:
    """The list as it is stored: a name, and what belongs to it indented below."""
    lines = [line for name, parts in found.items() for line in (name, *(f"    {p}" for p in parts))]
    return HEADER + "\n".join(lines) + "\n"


def from_text(text: str) -> dict[str, list[str]]:
    """What `as_text` wrote."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("    "):
            found[next(reversed(found))].append(line[4:])
        elif line and not line.startswith("#"):
            found[line] = []
    return found


def _word(part: str) -> str:
    """The name in a line below a name: an argument, `.method`, `--option`; "->" for the result."""
    found = re.match(r"->|\*{0,2}\.?[\w-]+|\*|/", part)
    return found[0] if found else part


def _without_default(part: str) -> str:
    """An argument with its type alone; a method whole."""
    return part if part.startswith(".") else part.partition(" = ")[0]


def _by_place(parts: list[str]) -> list[str]:
    """The arguments that callers may give without their names, in their order."""
    before_star = parts[: parts.index("*")] if "*" in parts else parts
    return [_word(part) for part in before_star if re.match(r"[a-z_]", part) and NOW not in part]


def faults(old: dict[str, list[str]], new: dict[str, list[str]]) -> list[str]:
    """What of a change breaks those who use the names, one sentence each.

    Adding names and arguments with a default breaks nothing, nor does an old name that still works.
    """
    found = [f"{name} is gone" for name in old if name not in new]
    for name in sorted(old.keys() & new.keys()):
        if new[name] and new[name][0].startswith(NOW.strip()):
            continue  # an old name that still works
        before = {_word(part): part for part in old[name]}
        after = {_word(part): part for part in new[name]}
        for word, part in before.items():
            if word == "*" or NOW in part or NOW in after.get(word, ""):
                continue
            if word not in after:
                found.append(f"{name}: {part} is gone")
            elif _without_default(part) != _without_default(after[word]):
                found.append(f"{name}: {part} is now {after[word]}")
            elif " = " in part and " = " not in after[word]:
                found.append(f"{name}: {word} has no default any more")
        found += [
            f"{name}: callers must now give {part}"
            for word, part in after.items()
            if word not in before and re.match(r"[a-z_]", part)
            and " = " not in part and NOW not in part
        ]  # fmt: skip
        places = [word for word in _by_place(old[name]) if word in after and NOW not in after[word]]
        if _by_place(new[name])[: len(places)] != places:
            found.append(f"{name}: arguments have moved, {', '.join(places)} had places")
    return found


def outdated(found: dict[str, list[str]], version: str) -> list[str]:
    """Old names that should have gone by this version."""

    def key(text: str) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", text)))

    lines = ((name, part) for name, parts in found.items() for part in parts)
    return [
        f"{name} {part}"
        for name, part in lines
        if NOW.strip() in part and ", until " in part
        and key(part.rpartition(", until ")[2]) <= key(version)
    ]  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tools.public_names",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--write", action="store_true")
    text = as_text(entries())
    if parser.parse_args().write:
        LIST.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
