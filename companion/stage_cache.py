"""Trained models that several chapters need, kept on the disk and found by what made them.

A model is found only under the very settings, package source, torch version, kernels and number of
threads that made it: change a line of the package, and it is trained again. The folder is
`COMPANION_CACHE`, or else `trained-to-predict` in the user's cache folder; it may be deleted at any
time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn


def cached_model(
    name: str,
    settings: Mapping[str, Any],
    build: Callable[[], nn.Module],
    make: Callable[[], nn.Module],
) -> nn.Module:
    """The model that `make()` gives, from the cache where it has been made before.

    name: tells stages of one training apart.
    settings: all that decides the weights, as JSON; the source of the package is added.
    build: gives a model of the same shape, whose weights do not matter.

    In evaluation mode. A file that cannot be read is said in a warning, and replaced.
    """
    path = cache_folder() / f"{name}-{_key(name, settings)}.safetensors"
    if path.exists():
        model = build()
        try:
            model.load_state_dict(load_file(path))
            return model.eval()
        except (SafetensorError, OSError, RuntimeError) as error:
            warnings.warn(f"{path} cannot be read ({error}); training again", stacklevel=2)
    model = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as folder:
        partial = Path(folder) / path.name
        # Tied weights share storage, which safetensors refuses: store a copy of each.
        save_file({key: value.clone() for key, value in model.state_dict().items()}, partial)
        os.replace(partial, path)  # another process sees the whole file, or none
    return model.eval()


def cache_folder() -> Path:
    """Where models are kept; the folder need not exist."""
    chosen = os.environ.get("COMPANION_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "trained-to-predict"


def _key(name: str, settings: Mapping[str, Any]) -> str:
    text = json.dumps([name, dict(settings)], sort_keys=True)
    kernels = f"{torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()}"
    made_by = f"{text} {torch.__version__} {kernels} {package_digest()}"
    return hashlib.sha256(made_by.encode()).hexdigest()[:24]


@cache
def package_digest() -> str:
    """SHA-256 of the source of this package, as the running process found it first."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
