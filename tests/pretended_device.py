"""A device without float64, as Apple's MPS is, on a machine that has none.

A tensor on it is a wrapper around one on the CPU, which does the computing. Its name is "meta", the
one device name that torch lets differentiate without a driver. What would give it a float64 tensor
raises TypeError, in the words of MPS; on the CPU float64 is as free as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_any, tree_map

DEVICE = torch.device("meta")


class OnDevice(torch.Tensor):
    """A tensor on the pretended device."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OnDevice:
        if inner.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"the pretended device has no {inner.dtype}")
        made: OnDevice = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _on_the_cpu(func, args, kwargs or {})


@contextlib.contextmanager
def pretended_device() -> Iterator[torch.device]:
    """The device, which is there until the block ends."""
    with _Operations(), _Literals():
        yield DEVICE


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _on_the_cpu(func, args, kwargs or {})


class _Literals(TorchFunctionMode):
    """torch.tensor and tolist pass by what a dispatch mode sees."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        if func is torch.tensor and named.get("device") == DEVICE:
            del named["device"]
            return OnDevice(torch.tensor(*args, **named))
        if func is torch.Tensor.tolist and isinstance(args[0], OnDevice):
            return args[0].inner.tolist()
        return func(*args, **named)


def _on_the_cpu(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What `func` gives, computed on the CPU and put on the device that torch would put it on."""
    wrappers: dict[int, OnDevice] = {}

    def unwrap(value: Any) -> Any:
        if isinstance(value, OnDevice):
            wrappers[id(value.inner)] = value
            return value.inner
        on_device = isinstance(value, torch.device) and value == DEVICE
        return torch.device("cpu") if on_device else value

    def wrap(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in wrappers:  # an operation in place gives its own argument
            return wrappers[id(value)]
        return OnDevice(value)

    on_device = tree_any(lambda value: isinstance(value, OnDevice), (args, kwargs))
    if kwargs.get("device") is not None:
        on_device = torch.device(kwargs["device"]) == DEVICE
    result = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    return tree_map(wrap, result) if on_device else result
