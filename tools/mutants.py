"""Mutation testing: would the tests notice, if a line of the package were wrong?

Each mutant is a module with one small mistake planted: a comparison, an operator, a number, a truth
value, or a statement left out. The module's own tests run on it, in a copy of the repository. A
mutant that no test notices, a survivor, is a line whose claim no test holds, or one that does not
matter. Run by `make mutants`; it needs a system that can fork.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import math
import multiprocessing
import os
import queue
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.chapters import ROOT

#: Modules that the rest of the package and the book stand on.
CORE = (
    "training.trainer", "training.checkpoints", "losses.cross_entropy", "losses.large_vocabulary",
    "losses.training_loss", "text.batching", "preferences.dpo", "preferences.policy_gradient",
    "evaluation.calibration", "evaluation.scoring", "generation.decoding", "generation.beam",
    "models.lstm", "sources.automaton",
)  # fmt: skip
#: Where a module's tests are, if not, or not only, in the file named as it.
TESTS = {
    "losses.large_vocabulary": ["tests/losses/test_cross_entropy.py"],
    "losses.training_loss": ["tests/losses/test_cross_entropy.py"],
    "sources.automaton": ["tests/generalization/test_shift.py", "tests/sources/test_sources.py"],
    "training.trainer": [
        "tests/training/test_mixed_precision.py", "tests/training/test_distributed.py"
    ],
}  # fmt: skip
#: Copies of the repository in which mutants run side by side.
COPIES = 2
#: Seconds that a second of processor time may take.
PATIENCE = 20
NOT_COPIED = (".*", "_build", "__pycache__", "book")
#: Imported once; each run of the tests is a fork of the process that did. No plugins of pytest.
PRELOADED = ["pytest", "torch", "torch._dynamo", "accelerate", "tokenizers", "sklearn.metrics"]

OPPOSITE: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A module with one mistake."""

    line: int
    """Line of the original source."""
    change: str
    """What was done there, in words."""
    source: str
    """The whole module with it."""


def mutants_of(source: str) -> list[Mutant]:
    """All mutants of a module, in the order of its lines."""
    made = []
    for number in range(len(list(mistakes(ast.parse(source))))):
        tree = ast.parse(source)
        line, change, plant = list(mistakes(tree))[number]
        plant()
        made.append(Mutant(line, change, ast.unparse(tree)))
    return sorted(made, key=lambda mutant: mutant.line)


def mistakes(tree: ast.Module) -> Iterator[tuple[int, str, Callable[[], object]]]:
    """The places of `tree` where a mistake can be: line, words, and what plants it."""
    for node in code_of(tree):
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in OPPOSITE:
            change, other = swap(node.op)
            yield node.lineno, change, partial(setattr, node, "op", other)
        if isinstance(node, ast.Compare):
            for index, operator in enumerate(node.ops):
                change, other = swap(operator)
                yield node.lineno, change, partial(node.ops.__setitem__, index, other)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            twice = ast.UnaryOp(op=node.op, operand=node.operand)
            change = f"{type(node.op).__name__} left out"
            yield node.lineno, change, partial(setattr, node, "operand", twice)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield node.lineno, f"{node.value} -> {value}", partial(setattr, node, "value", value)
        for block in ("body", "orelse", "finalbody"):
            found = getattr(node, block, None)
            statements: list[ast.stmt] = found if isinstance(found, list) else []  # or a lambda's
            for index, statement in enumerate(statements):
                if can_be_left_out(statement):
                    change = f"left out: {ast.unparse(statement).splitlines()[0]}"
                    plant = partial(statements.__setitem__, index, ast.Pass())
                    yield statement.lineno, change, plant


def code_of(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all below it that computes: no annotations, imports for them, or messages, and
    no default of a setting, which is a choice that no test should repeat."""
    yield node
    if isinstance(node, ast.Raise | ast.Assert):
        return
    settings = isinstance(node, ast.ClassDef) and any(
        ast.unparse(decorator).startswith("settings_class") for decorator in node.decorator_list
    )
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if settings and isinstance(child, ast.AnnAssign):
                continue
            if isinstance(child, ast.AST):
                yield from code_of(child)


def swap(operator: ast.AST) -> tuple[str, ast.AST]:
    """Words for it, and the operator that takes the place of `operator`."""
    other = OPPOSITE[type(operator)]()
    return f"{type(operator).__name__} -> {type(other).__name__}", other


def can_be_left_out(statement: ast.stmt) -> bool:
    """Whether a statement does something, and nothing after it needs a name from it."""
    if isinstance(statement, ast.Assign):
        return not any(isinstance(target, ast.Name | ast.Tuple) for target in statement.targets)
    called = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    kinds = ast.Raise | ast.AugAssign | ast.Break | ast.Continue | ast.Delete
    return called or isinstance(statement, kinds)


# --- running the tests ---------------------------------------------------------------------------


def outcome(
    copy: Path, module: str, tests: Sequence[str], source: str, seconds: float | None = None
) -> str:
    """What the `tests` say of `module` with this source in a copy of the repository: "survived",
    "killed", or, where they took more than `seconds` of processor time, "timeout"."""
    path = copy / path_of(module)
    before = path.stat()
    path.write_text(source, encoding="utf-8")
    # Byte code is found by the second a file was changed in: each source has its own.
    os.utime(path, (before.st_atime, before.st_mtime + 1))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=run_tests, args=(str(copy), tests, seconds))
    process.start()
    # The processor may be busy with something else; tests that wait for ever use none of it.
    process.join(seconds and PATIENCE * seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return "timeout"
    if process.exitcode == -signal.SIGXCPU:
        return "timeout"
    return "killed" if process.exitcode else "survived"


def run_tests(copy: str, tests: Sequence[str], seconds: float | None) -> None:
    """Leave this process with the exit code of pytest, on a copy of the repository; it is killed
    after so many seconds of processor time."""
    import resource

    import pytest

    if seconds is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), resource.RLIM_INFINITY))

    # The fork server may be older than this tool and have imported the package from elsewhere.
    for name in [name for name in sys.modules if name.partition(".")[0] == "companion"]:
        del sys.modules[name]
    os.chdir(copy)
    os.environ["PYTHONPATH"] = copy  # for the processes that tests start
    sys.path.insert(0, copy)
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-m", "not gpu", *tests])
    sys.exit(int(code))


def path_of(module: str) -> Path:
    """The file of a module of the package, in the repository: training.trainer."""
    return Path("companion", *module.split(".")).with_suffix(".py")


def tests_of(module: str) -> list[str]:
    """The files with its tests, its own first; ValueError when there is none."""
    package, _, name = module.rpartition(".")
    own = f"tests/{package}/test_{name}.py"
    found = [file for file in (own, *TESTS.get(module, ())) if (ROOT / file).exists()]
    if not found:
        raise ValueError(f"{module} has no tests in {own}; add them, or name them in TESTS")
    return found


def survivors(module: str, sample: int | None, copies: Sequence[Path]) -> list[Mutant]:
    """Try the mutants of `module`, or `sample` of them, print what became of each, and return
    those that no test killed. ValueError where the tests fail without any."""
    original = (ROOT / path_of(module)).read_text(encoding="utf-8")
    tests = tests_of(module)
    started = time.monotonic()
    if outcome(copies[0], module, tests, ast.unparse(ast.parse(original))) != "survived":
        raise ValueError(f"{' '.join(tests)} fails on {module} as it is: mend that first")
    limit = 20 + 5 * (time.monotonic() - started)
    mutants = mutants_of(original)
    if sample is not None:
        chosen = random.Random(0).sample(mutants, min(sample, len(mutants)))
        mutants = sorted(chosen, key=lambda mutant: mutant.line)
    free: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def try_out(mutant: Mutant) -> str:
        copy = free.get()
        try:
            return outcome(copy, module, tests, mutant.source, limit)
        finally:
            free.put(copy)

    alive = []
    with ThreadPoolExecutor(len(copies)) as pool:
        for mutant, found in zip(mutants, pool.map(try_out, mutants), strict=True):
            print(f"{path_of(module)}:{mutant.line:<5} {found:9} {mutant.change}", flush=True)
            if found == "survived":
                alive.append(mutant)
    for copy in copies:
        (copy / path_of(module)).write_text(original, encoding="utf-8")
    print(f"{module}: {len(mutants) - len(alive)} of {len(mutants)} mutants killed\n", flush=True)
    return alive


def main() -> int:
    """Command line: which modules, and how many mutants of each."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tools.mutants")
    parser.add_argument("--only", help="one module, as training.trainer; by default the core ones")
    parser.add_argument("--sample", type=int, help="so many mutants of a module; by default all")
    options = parser.parse_args()
    alive = {}
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(folder, str(number)) for number in range(COPIES)]
        for copy in copies:
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
        for module in [options.only] if options.only else CORE:
            alive[module] = survivors(module, options.sample, copies)
    print("Survivors:" if any(alive.values()) else "No survivors.")
    for module, mutants in alive.items():
        lines = (ROOT / path_of(module)).read_text(encoding="utf-8").splitlines()
        for mutant in mutants:
            print(f"  {path_of(module)}:{mutant.line}: {mutant.change}")
            print(f"      {lines[mutant.line - 1].strip()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
