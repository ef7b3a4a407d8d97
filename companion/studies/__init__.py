"""Studies: one module answers one question of the book.

A study has a `Config` (frozen dataclass), a `Result` (dataclass of plain numbers and lists) and
`run(config, *, seed, progress=False) -> Result`. A chapter runs it and reads its result; the
command line runs the same over several seeds; `companion.figures` draws it. Studies do not import
each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from companion.checkpoints import CheckpointError, write_json
from companion.runtime import cpu_seconds, environment


def study_names() -> tuple[str, ...]:
    """Names of the studies, which are their modules' names."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_study(name: str) -> ModuleType:
    """The module of a study; ValueError when there is none of that name."""
    if name not in study_names():
        raise ValueError(f"unknown study {name!r}; the studies are {', '.join(study_names())}")
    return importlib.import_module(f"{__name__}.{name}")


def run_study(
    name: str,
    seeds: Sequence[int],
    *,
    config: Any = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run a study once a seed; the report, which is written to `out` after each seed.

    Each seed runs on one CPU thread: the models are small, a second thread would cost more time
    than it saves, and CPU seconds then mean the same everywhere.

    An existing `out` is refused. `config` defaults to the study's own `Config()`. Each result has
    the `cpu_seconds` that its seed took.
    """
    study = load_study(name)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be one or more different numbers, got {list(seeds)}")
    if out is not None and Path(out).exists():
        raise CheckpointError(f"{out} already exists; choose another --out")
    if out is not None and not Path(out).resolve().parent.is_dir():
        raise CheckpointError(f"the folder of {out} does not exist; make it first")
    config = study.Config() if config is None else config
    results: list[dict[str, Any]] = []
    report = {
        "study": name,
        "config": dataclasses.asdict(config),
        "environment": environment(),
        "seeds": list(seeds),
        "results": results,
    }
    for seed in seeds:
        before = cpu_seconds()
        with one_thread():
            result = study.run(config, seed=seed, progress=progress)
        figures = dataclasses.asdict(result)
        results.append({"seed": seed, "cpu_seconds": round(cpu_seconds() - before, 2), **figures})
        json.dumps(report, allow_nan=False)  # a result that JSON cannot hold is a bug: say so now
        if out is not None:
            write_json(Path(out), report)
    return report


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one CPU thread for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def spread(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, lowest and highest over seeds of every figure that is a single number."""
    numbers = [
        name
        for name, value in results[0].items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "seed"
    ]
    table = {}
    for name in numbers:
        values = [float(result[name]) for result in results]
        table[name] = {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}
    return table
