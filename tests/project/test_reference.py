"""The package reference: every public name and every option, readable as they are written."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from companion.core.settings import settings_class
from tools import chapters, packages, reference

PAGES = chapters.ROOT / "book" / "reference"


def directives(package: str) -> list[str]:
    """The names that a package's page has autodoc describe."""
    return re.findall(r"(?m)^\.\. auto\w+:: (\S+)$", reference.names_page(package))


# --- every name -----------------------------------------------------------------------------------


@pytest.mark.parametrize("package", reference.PACKAGES)
def test_a_page_describes_every_public_name_of_its_package_once(package: str) -> None:
    found = directives(package)
    exported = importlib.import_module(f"companion.{package}").__all__
    assert {f"companion.{package}.{name}" for name in exported} <= set(found)
    assert len(found) == len(set(found))


def test_every_package_has_a_page_in_the_table_of_contents() -> None:
    inside = [path.stem for path in chapters.toc_files() if path.parent == PAGES]
    assert inside == ["package", *reference.PACKAGES, "commands"]
    assert {*reference.PACKAGES, "cli", "__main__"} == set(packages.ORDER)
    for package in reference.PACKAGES:
        text = (PAGES / f"{package}.md").read_text(encoding="utf-8")
        assert text.endswith(f"# companion.{package}\n\n% package: {package}\n")


def test_what_chapters_take_from_a_module_is_described_too() -> None:
    names = reference.described()
    used = {
        name
        for name in reference.uses()
        if name.removeprefix("companion.").rpartition(".")[0] in packages.modules()
    }
    homes = {reference.home(reference.found_at(name)) for name in names}
    for name in used - names:
        thing = reference.found_at(name)
        module = getattr(thing, "__name__", "") in {f"companion.{m}" for m in packages.modules()}
        assert module or reference.home(thing) in homes, name
    assert "companion.models.LSTMConfig" in used


def test_every_study_shows_its_settings_its_results_and_its_run() -> None:
    found = directives("studies")
    for study in reference.studies():
        for name in ("Config", "Result", "run"):
            assert f"companion.studies.{study}.{name}" in found


def test_a_new_public_name_is_there_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    package = importlib.import_module("companion.losses")

    def brand_new() -> None:
        """Nothing."""

    monkeypatch.setattr(package, "brand_new", brand_new, raising=False)
    monkeypatch.setattr(package, "__all__", [*package.__all__, "brand_new"])
    assert "brand_new" in reference.exported("losses")["companion.losses"]


def test_constants_have_a_text_of_their_own() -> None:
    for name in sorted(reference.described()):
        if reference._directive(reference.found_at(name)) == "autodata":
            assert reference.comment_of(name), name


# --- docstrings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Take `x`, not x*y or a_.", ["Take ``x``, not x\\*y or a\\_."]),
        ("All `B`s of `score`.", ["All ``B``\\ s of :py:obj:`score <here.score>`."]),
        ("Run:\n\n    a = 1\n    b(a)", ["Run:", "", "::", "", "        a = 1", "        b(a)"]),
        ("Has\n- one\n- two\n  lines", ["Has", "", "- one", "- two", "  lines"]),
        ("n: how many,\n    at most 3.\nend_id: stop", [
            "``n``", "    how many,", "    at most 3.", "", "``end_id``", "    stop",
        ]),
        ("Reference: nobody.\nMore.", ["Reference: nobody.", "More."]),
        ("a ``b`` c", ["a ``b`` c"]),
        ("A.\n\n>>> f(1_0)\n'x_'", ["A.", "", ">>> f(1_0)", "'x_'"]),
    ],
)  # fmt: skip
def test_a_docstring_becomes_restructured_text(text: str, lines: list[str]) -> None:
    found = reference.as_rst(text, lambda code: "here.score" if code == "score" else None)
    while found and not found[-1]:
        found.pop()
    assert found == lines


def test_a_name_in_a_docstring_leads_to_what_it_means_there() -> None:
    look = reference.looked_up
    assert look("Example", "companion.text") == "companion.text.Example"
    assert look("Example", "companion.world") == "companion.world.Example"
    assert look("Example", "companion.models") is None  # one of two
    assert look("LSTMConfig", "companion.training") == "companion.models.LSTMConfig"
    fitted = "companion.evaluation.fit_temperature"
    assert look("calibration.fit_temperature", "companion.text") == fitted
    assert look("companion.evaluation.fit_temperature", "companion.text") == fitted
    assert look("text.fit_temperature", "companion.text") is None
    assert look("no_such_thing", "companion.text") is None
    assert look("Config", "companion.studies.demands") == "companion.studies.demands.Config"


# --- signatures and fields ------------------------------------------------------------------------


def test_shapes_are_shown_as_they_are_written() -> None:
    from companion.losses import sampled_nats, token_nats

    assert reference.signature(token_nats) == (
        "(logits: Float[Tensor, 'batch time vocab'], targets: Int[Tensor, 'batch time'])",
        "Float[Tensor, 'batch time']",
    )
    assert reference.signature(sampled_nats)[0].startswith(
        "(features: Float[Tensor, 'targets hidden'], weight: Float[Tensor, 'vocab hidden'], "
        "bias: Float[Tensor, 'vocab'], "
    )


def test_a_named_tuple_shows_its_types_and_a_protocol_nothing() -> None:
    from companion.sources import ScoredText, TextSource

    assert reference.signature(ScoredText) == ("(tokens: list[int], log_prob: float)", "")
    assert reference.signature(TextSource) == ("", "")


def test_a_name_that_two_things_have_is_spelled_out() -> None:
    from companion.runs import evaluate_on
    from companion.studies import demands

    assert "Sequence[~companion.text.Example]" in reference.signature(evaluate_on)[0]
    assert "(config: ~companion.studies.demands.Config, *" in reference.signature(demands.run)[0]


def test_defaults_are_shown_short_and_without_addresses() -> None:
    def example(a: int = 3, b: Any = len, c: Any = "x" * 100, *, e: bool) -> int:
        return a

    arguments, result = reference.signature(example)
    assert arguments == "(a: int = 3, b: Any = len, c: Any = ..., *, e: bool)"
    assert reference._value(object()) == "..."
    assert result == "int"


@settings_class
class Inner:
    """Settings."""

    size: int = 3
    """A size."""
    name: str = "a"
    """A name."""


@dataclass
class Outer:
    """Not all of its fields have a text."""

    inner: Inner = Inner(size=4)  # noqa: RUF009
    """An inner `Inner`."""
    bare: int = 0
    wanted: str = ""
    """Last."""


def test_fields_are_listed_with_type_default_and_text() -> None:
    assert list(reference.fields(Inner)) == [
        ("size", "int", "3", "A size."),
        ("name", "str", "'a'", "A name."),
    ]
    assert list(reference.fields(Outer)) == [
        ("inner", "Inner", "Inner(size=4)", "An inner `Inner`."),
        ("bare", "int", "0", ""),
        ("wanted", "str", "''", "Last."),
    ]
    assert reference.signature(Outer) == ("", "")
    lines = reference.field_lines(Outer, lambda code: None)
    assert "    ``inner: Inner = Inner(size=4)``" in lines
    assert "        An inner ``Inner``." in lines


# --- sources --------------------------------------------------------------------------------------


def test_source_leads_to_the_lines_of_the_code() -> None:
    def shown(module: str, name: str) -> str:
        address = reference.source_address(module, name)
        assert address is not None
        path, _, lines = address.partition("/blob/main/")[2].partition("#")
        first, last = map(int, re.findall(r"\d+", lines))
        text = (chapters.ROOT / path).read_text(encoding="utf-8").splitlines()
        return "\n".join(text[first - 1 : last])

    assert "def evaluate(" in shown("companion.evaluation", "evaluate").splitlines()[0]
    assert "class LSTMConfig" in shown("companion.models", "LSTMConfig")
    assert "def perplexity(" in shown("companion.evaluation", "Evaluation.perplexity")
    assert reference.source_address("companion.world", "VALUES") is None


# --- commands -------------------------------------------------------------------------------------


def options() -> Iterator[tuple[str, str]]:
    for name, command in reference.commands():
        for parameter in command.params:
            yield name, parameter.opts[-1]


def test_the_page_of_commands_has_every_command_with_every_option() -> None:
    sections = dict(
        part.split("\n", 1) for part in re.split(r"(?m)^## ", reference.commands_page())[1:]
    )
    assert {name for name, _ in options()} == set(sections)
    assert {"companion train", "companion classify predict", "companion study run"} <= set(sections)
    for name, option in options():
        heading = option if option.startswith("-") else option.upper()
        assert re.search(rf"\{{option\}} (.*, )?{re.escape(heading)}\b", sections[name]), option
    assert "Seed of all random numbers. Default: 0." in sections["companion train"]
    assert "companion train --out <path> [OPTIONS]" in sections["companion train"]
    assert "companion evaluate RUN [OPTIONS]" in sections["companion evaluate"]


def test_an_option_in_a_help_text_keeps_its_two_dashes() -> None:
    assert reference._prose("Give --out or `x --y`, <b>, a-b.") == (
        "Give `--out` or `x --y`, &lt;b>, a-b."
    )
