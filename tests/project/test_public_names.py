"""What users of the package import changes only on purpose, and old names go on working."""

from __future__ import annotations

import importlib

import pytest

from companion.core.deprecation import renamed, renamed_arguments
from tools import chapters, public_names

OLD = """\
# a comment
companion.text.clean
    text: str
    keep: bool = True
    *
    limit: int = 5
    -> str
companion.text.Cleaner
    *
    first: int
    second: int = 2
    .run(text: str) -> str
companion train
    --out
"""


def changed(*changes: tuple[str, str]) -> list[str]:
    """What breaks callers when lines of the list above are replaced."""
    text = OLD
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return public_names.faults(public_names.from_text(OLD), public_names.from_text(text))


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    """The package's public names."""
    return public_names.entries()


def test_the_public_names_are_those_of_the_list(found: dict[str, list[str]]) -> None:
    stored = public_names.from_text(public_names.LIST.read_text(encoding="utf-8"))
    lines = {(name, part) for name, parts in found.items() for part in ["", *parts]}
    known = {(name, part) for name, parts in stored.items() for part in ["", *parts]}
    differ = [f"{'+' if each in lines else '-'} {' '.join(each)}" for each in lines ^ known]
    breaks = "\n".join(public_names.faults(stored, found)) or "nothing"
    assert found == stored, (
        "the public names have changed:\n"
        + "\n".join(sorted(differ))
        + f"\nThis breaks: {breaks}\n"
        "What a release had goes on working for one minor version: give an old name to "
        "companion.core.renamed, an old argument to renamed_arguments. "
        "Then write the list: python -m tools.public_names --write"
    )


def test_no_old_name_outlives_the_version_that_removes_it(found: dict[str, list[str]]) -> None:
    assert public_names.outdated(found, chapters.version()) == []


@pytest.mark.parametrize(
    ("version", "over"), [("0.2.9", 0), ("0.3.0", 1), ("0.10.0", 1), ("1.0", 1)]
)
def test_an_old_name_is_over_from_its_version_on(version: str, over: int) -> None:
    found = {"companion.text.old": ["is now new, until 0.3.0"], "companion.text.new": []}
    assert len(public_names.outdated(found, version)) == over


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("companion.text.clean\n", "companion.text.tidy\n", "companion.text.clean is gone"),
        ("    keep: bool = True\n", "", "clean: keep: bool = True is gone"),
        ("text: str\n    keep", "text: bytes\n    keep", "text: str is now text: bytes"),
        ("keep: bool = True", "keep: bool", "clean: keep has no default any more"),
        ("    limit", "    size: int\n    limit", "clean: callers must now give size: int"),
        ("    keep", "    size: int = 1\n    keep", "clean: arguments have moved"),
        ("    *\n    limit: int = 5", "    limit: int = 5\n    *", ""),
        ("    keep: bool = True\n    *", "    *\n    keep: bool = True", "arguments have moved"),
        ("    -> str", "    -> bytes", "-> str is now -> bytes"),
        ("run(text: str)", "run(text: str, twice: bool)", ".run(text: str) -> str is now .run"),
        ("    --out", "    --folder", "companion train: --out is gone"),
        ("limit: int = 5", "limit: int = 6", ""),
        ("    first: int\n    second: int = 2", "    second: int = 2\n    first: int", ""),
        ("    -> str", "    more: int = 1\n    -> str", ""),
        ("companion train", "companion.text.new\n    x: int\ncompanion train", ""),
        ("    keep: bool = True", "    keep is now stay, until 0.3.0\n    stay: bool = True", ""),
    ],
)  # fmt: skip
def test_what_breaks_callers_is_told_from_what_does_not(
    before: str, after: str, fault: str
) -> None:
    found = changed((before, after))
    assert len(found) == bool(fault)
    assert fault in "".join(found)


def test_an_old_name_that_works_and_an_old_argument_are_in_the_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = importlib.import_module("companion.losses")

    @renamed_arguments(removed_in="0.3.0", old="new")
    def brand_new(new: int, *, other: str = "a, b") -> None:
        """Nothing."""

    monkeypatch.setattr(package, "brand_new", brand_new, raising=False)
    monkeypatch.setattr(package, "__all__", [*package.__all__, "brand_new"])
    alias = renamed(package.__name__, {"ancient": "brand_new"}, removed_in="0.3.0")
    monkeypatch.setattr(package, "__getattr__", alias, raising=False)
    found = public_names.entries()
    assert found["companion.losses.ancient"] == ["is now brand_new, until 0.3.0"]
    assert found["companion.losses.brand_new"] == [
        "new: int", "*", "other: str = 'a, b'", "-> None", "old is now new, until 0.3.0",
    ]  # fmt: skip
    assert public_names.from_text(public_names.as_text(found)) == found
    before = {**found, "companion.losses.ancient": ["old: int"]}
    assert public_names.faults(before, found) == []
