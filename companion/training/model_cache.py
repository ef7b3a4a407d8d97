"""A disk cache of trained models that several chapters need.

A model is reused only with the same settings, package source, torch version, kernels and number of
threads: change a line of the package, and it is trained again. The folder is `COMPANION_CACHE`, or
else `trained-to-predict` in the user's cache folder; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

from companion.core.files import load_tensors, save_tensors, whole_file

Model = TypeVar("Model", bound=nn.Module)


def cached_model(
    name: str,
    settings: Mapping[str, Any],
    build: Callable[[], Model],
    make: Callable[[], Model],
) -> Model:
    """The model that `make()` returns, in evaluation mode; from the cache if it was made before.

    name: distinguishes the stages of one training.
    settings: all that determines the weights, as JSON; the package's source is added.
    build: returns a model of the same shape, whose weights are overwritten.

    Warns about an unreadable file and overwrites it.
    """
    path = cache_folder() / f"{name}-{_key(name, settings)}.safetensors"
    if path.exists():
        model = build()
        try:
            model.load_state_dict(load_tensors(path))
            return model.eval()
        except (SafetensorError, OSError, RuntimeError) as error:
            warnings.warn(f"{path} cannot be read ({error}); training again", stacklevel=2)
    model = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path, shared=True) as partial:
        save_tensors(model.state_dict(), partial)
    return model.eval()


def cache_folder() -> Path:
    """The folder of the cached models; it need not exist."""
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
    """SHA-256 of this package's source files, at the first call in this process."""
    digest = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
