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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from companion.checkpoints import CheckpointError, read_json, write_json
from companion.runtime import cpu_seconds, cpu_threads, environment


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
    changes = {}
    for setting, text in settings.items():
        if setting not in fields:
            raise ValueError(f"unknown setting {setting!r} of {name}; it has {', '.join(fields)}")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        if isinstance(fields[setting], tuple) and not isinstance(value, tuple):
            value = (value,) if text else ()
        if fields[setting] is not None and not _alike(value, fields[setting]):
            raise ValueError(f"{setting} must be like {fields[setting]!r}, got {text!r}")
        changes[setting] = value
    return dataclasses.replace(default, **changes)


def _alike(value: Any, default: Any) -> bool:
    """Whether `value` is of the default's type; a whole number also passes for another number."""
    if isinstance(default, tuple):
        return isinstance(value, tuple) and all(_alike(part, default[0]) for part in value)
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


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


def stored_report(name: str) -> dict[str, Any]:
    """A measurement that took longer than a chapter may: book/results/NAME.json, with its command,
    commit, configuration, environment and figures.

    ValueError when there is none of that name.
    """
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "_results", here.parent / "book" / "results"):  # installed, or a clone
        path = folder / f"{name}.json"
        if path.exists():
            return read_json(path, "a stored measurement")
    raise ValueError(f"no stored measurement is called {name!r}; make one with: make results")


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Let torch use one CPU thread for a while."""
    return cpu_threads(1)


def spread(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean, lowest and highest over seeds of every figure that is a number, or names numbers."""
    rows = [dict(_numbers(result)) for result in results]
    table = {}
    for name in rows[0]:
        if name != "seed" and all(name in row for row in rows):
            values = [row[name] for row in rows]
            mean = sum(values) / len(values)
            table[name] = {"mean": mean, "min": min(values), "max": max(values)}
    return table


def _numbers(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
