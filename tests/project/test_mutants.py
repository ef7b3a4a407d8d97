"""The tool that plants mistakes: what it plants, and that it tells a killed mutant from another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools import mutants

MODULE = '''"""A module."""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Count = 1


def passes(points: "1 + 1", limit: int = 10) -> bool:
    """Whether there are enough, and not 0."""
    if points < 0:
        raise ValueError(f"points must be >= {0}")
    log.append(points)
    return points >= limit and not cancelled


@settings_class
class Grades:
    best: int = 20
    def half(self):
        return self.best / 2
'''
SMALL = """log = []

def passes(points):
    log.append(points)
    return points >= 10
"""
#: Holds the limit, and not what is appended to the log.
TEST = """from companion.exams.grading import passes

def test_ten_pass():
    assert passes(10) and not passes(9)
"""


def test_each_mutant_has_one_mistake_in_what_computes() -> None:
    made = [(mutant.line, mutant.change) for mutant in mutants.mutants_of(MODULE)]
    assert made == [
        (8, "10 -> 11"),
        (10, "Lt -> LtE"),
        (10, "0 -> 1"),
        (11, "left out: raise ValueError(f'points must be >= {0}')"),
        (12, "left out: log.append(points)"),
        (13, "And -> Or"),
        (13, "GtE -> Gt"),
        (13, "Not left out"),
        (20, "Div -> Mult"),
        (20, "2 -> 3"),
    ]
    sources = {mutant.source for mutant in mutants.mutants_of(MODULE)}
    assert len(sources) == len(made)
    for source in sources:
        compile(source, "mutant", "exec")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_mutant_that_no_test_notices_survives_and_the_tree_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mutants, "PRELOADED", ["pytest"])
    tree = tmp_path / "tree"
    for name, text in {
        "companion/exams/grading.py": SMALL, "companion/__init__.py": "",
        "companion/exams/__init__.py": "", "tests/exams/test_grading.py": TEST,
    }.items():  # fmt: skip
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    monkeypatch.setattr(mutants, "ROOT", tree)
    monkeypatch.setattr(sys, "argv", ["mutants", "--only", "exams.grading"])
    assert mutants.main() == 0
    out = capsys.readouterr().out
    assert "companion/exams/grading.py:5     killed    GtE -> Gt" in out
    assert "exams.grading: 2 of 3 mutants killed" in out
    assert out.endswith(
        "Survivors:\n  companion/exams/grading.py:4: left out: log.append(points)\n"
        "      log.append(points)\n"
    )
    assert (tree / "companion/exams/grading.py").read_text() == SMALL
    endless = "while True:\n    pass\n"
    assert mutants.outcome(tree, "exams.grading", ["tests/exams"], endless, 2) == "timeout"
    (tree / "tests/exams/test_grading.py").write_text("def test_it():\n    assert False\n")
    with pytest.raises(ValueError, match=r"test_grading.py fails on exams.grading as it is"):
        mutants.main()


def test_every_core_module_has_tests_of_its_own() -> None:
    for module in mutants.CORE:
        assert (mutants.ROOT / mutants.path_of(module)).exists(), module
        assert mutants.tests_of(module)
    for files in mutants.TESTS.values():
        assert all((mutants.ROOT / file).exists() for file in files)
    with pytest.raises(ValueError, match=r"models\.none has no tests in tests/models"):
        mutants.tests_of("models.none")
