"""The site's Sphinx extensions as modules: book/_ext is no package."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from tools.chapters import ROOT


def extension(name: str) -> ModuleType:
    """The extension with this name."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "book" / "_ext" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module
