"""Find a study by name, change its settings, and run it over several seeds."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from companion.core.files import FileError, check_writable, disk_errors, write_json
from companion.core.runtime import cpu_seconds, cpu_threads, environment
from companion.core.seeds import check_seed
from companion.core.settings import changed


def study_names() -> tuple[str, ...]:
    """Names of the studies, which are the names of their modules."""
    here = Path(__file__)
    modules = pkgutil.iter_modules([str(here.parent)])
    return tuple(sorted(module.name for module in modules if module.name != here.stem))


def load_study(name: str) -> ModuleType:
    """The module of a study; ValueError if there is no study of that name."""
    if name not in study_names():
        raise ValueError(f"unknown study {name!r}; the studies are {', '.join(study_names())}")
    return importlib.import_module(f"{__package__}.{name}")


def configured(name: str, settings: Mapping[str, str]) -> Any:
    """The study's `Config` with some fields changed, given as text: `{"steps": "100"}`.

    Raises a ValueError that names an unknown field or a value that does not fit its field.
    """
    return changed(load_study(name).Config(), settings)


def run_study(
    name: str,
    seeds: Sequence[int],
    *,
    config: Any = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run a study once for each seed, and return the report; it is written to `out` after each.

    Each seed runs on one CPU thread: with such small models a second thread would cost more time
    than it saves, and CPU seconds are comparable.

    Raises FileError if `out` exists. `config` defaults to the study's own `Config()`. Each result
    has the `cpu_seconds` that its seed took.
    """
    study = load_study(name)
    if not seeds or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds must be one or more different numbers, got {list(seeds)}")
    for seed in seeds:
        check_seed(seed)
    if out is not None:
        if Path(out).exists():
            raise FileError(f"{out} already exists; choose another file")
        if not Path(out).resolve().parent.is_dir():
            raise FileError(f"the folder of {out} does not exist; make it first")
        check_writable(Path(out).resolve().parent)
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
            with disk_errors(Path(out)):
                write_json(Path(out), report)
    return report


def one_thread() -> contextlib.AbstractContextManager[None]:
    """Let torch use one CPU thread inside the `with` block."""
    return cpu_threads(1)
