"""Old names that go on working for a while, and say what they are called now."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

AnyCallable = TypeVar("AnyCallable", bound=Callable[..., Any])


def renamed(package: str, names: Mapping[str, str], *, removed_in: str) -> Callable[[str], Any]:
    """A package's `__getattr__` that gives what an old name is called now, with a FutureWarning.

    In the `__init__` of a package, behind its imports:

        __getattr__ = renamed(__name__, {"old_name": "new_name"}, removed_in="0.3.0")

    package: the package's `__name__`
    names: the new name of each old one
    removed_in: the version that no longer has the old names
    """

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(f"{package}.{name}", f"{package}.{names[name]}", removed_in)
        return getattr(sys.modules[package], names[name])

    get.renamed = {old: (new, removed_in) for old, new in names.items()}  # type: ignore[attr-defined]
    return get


def renamed_arguments(*, removed_in: str, **names: str) -> Callable[[AnyCallable], AnyCallable]:
    """A decorator: the function or class still takes an argument by its old name, with a
    FutureWarning. TypeError where both names are given.

        @renamed_arguments(removed_in="0.3.0", old="new")
        def function(new: int) -> None: ...
    """

    def decorate(thing: AnyCallable) -> AnyCallable:
        function: Callable[..., Any] = thing.__init__ if inspect.isclass(thing) else thing

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old, new in names.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise TypeError(f"{old} is now {new}: give {new} alone")
                _warn(f"{thing.__qualname__}({old}=...)", f"{new}=...", removed_in)
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        call.renamed = {old: (new, removed_in) for old, new in names.items()}  # type: ignore[attr-defined]
        if not inspect.isclass(thing):
            return call  # type: ignore[return-value]
        thing.__init__ = call  # type: ignore[method-assign]
        return thing

    return decorate


def _warn(old: str, new: str, removed_in: str) -> None:
    """The warning, at the line that uses the old name."""
    said = f"{old} is now {new}; the old name works until version {removed_in}"
    warnings.warn(said, FutureWarning, stacklevel=3)
