"""Studies: one module answers one question of the book.

A study has a `Config` (frozen dataclass), a `Result` (dataclass of plain numbers and lists) and
`run(config, *, seed, progress=False) -> Result`. A chapter runs it and reads its result; the
command line runs the same over several seeds; `companion.figures` draws it. Studies do not import
each other.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import json
import pkgutil
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from companion.checkpoints import CheckpointError, write_json
from companion.claims import spread, stored_report
from companion.runtime import cpu_seconds, cpu_threads, environment

__all__ = [
    "configured",
    "load_study",
    "one_thread",
    "run_study",
    "spread",
    "stored_report",
    "study_names",
]


def study_names() -> tuple[str, ...]:
    """Names of the studies, which are their modules' names."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_study(name: str) -> ModuleType:
    """The module of a study; ValueError when there is none of that name."""
    if name not in study_names():
        raise ValueError(f"unknown study {name!r}; the studies are {', '.join(study_names())}")
    return importlib.import_module(f"{__name__}.{name}")


def configured(name: str, settings: Mapping[str, str]) -> Any:
    """The study's `Config` with some fields changed, given as text: `{"steps": "100"}`.

    Values are read as Python literals; where the field holds several, commas stand between, and no
    text is none of them.
    ValueError names what is not a field, or cannot be its value.
    """
    default = load_study(name).Config()
    fields = {field.name: getattr(default, field.name) for field in dataclasses.fields(default)}
    types = typing.get_type_hints(type(default))
    changes = {}
    for setting, text in settings.items():
        if setting not in fields:
            raise ValueError(f"unknown setting {setting!r} of {name}; it has {', '.join(fields)}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = text
        if isinstance(fields[setting], tuple) and not isinstance(value, tuple):
            value = (value,) if text else ()
        if not _fits(value, types[setting]):
            wanted = f"like {fields[setting]!r}"
            if fields[setting] is None:
                wanted = f"of type {types[setting]}"
            raise ValueError(f"{setting} must be {wanted}, got {text!r}")
        changes[setting] = value
    return dataclasses.replace(default, **changes)


def _fits(value: Any, declared: Any) -> bool:
    """Whether `value` is of the declared type; a whole number also passes for another number."""
    inner = typing.get_args(declared)
    if typing.get_origin(declared) is tuple:
        return isinstance(value, tuple) and all(_fits(part, inner[0]) for part in value)
    if inner:  # X | None
        return any(_fits(value, each) for each in inner)
    if declared is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is declared


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


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Let torch use one CPU thread for a while."""
    return cpu_threads(1)
