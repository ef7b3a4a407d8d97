"""A GPU that is not there: its tensors have shapes and no numbers, so any size costs very little.

They are torch's meta tensors. Every operation on them passes here, and is looked at for the two
things that a CPU hides. Tensors of two devices in one operation raise, as on a GPU. A number that
the host reads makes it wait for the device, and is counted, with where in the package it was read:
what is read is zero.

Copies to the device wait as well, unless they are asked not to (`non_blocking`).
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
aten = torch.ops.aten

#: Their results have as many entries as the data say, so the host must know the data.
SIZED_BY_DATA = {
    aten.nonzero.default, aten.masked_select.default, aten._unique2.default,
    aten.repeat_interleave.Tensor, aten.bincount.default, aten.unique_consecutive.default,
}  # fmt: skip
#: Kernels that change their arguments in place, and that torch has for no device without numbers.
IN_PLACE = ("_fused_adam", "_amp_foreach_non_finite_check", "_amp_update_scale")


class MixedDevices(RuntimeError):
    """An operation was given tensors of two devices."""


class AbsentGPU(TorchDispatchMode):
    """The device. `waits` counts the reads, by operation and place in the package."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copied_bytes = 0

    def wait(self, what: str) -> None:
        self.waits[f"{what} {_place()}"] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, named)) if isinstance(leaf, torch.Tensor)]
        there = any(tensor.is_meta for tensor in tensors)
        if func in (aten._to_copy.default, aten.copy_.default):
            return self._copy(func, args, named)
        if not there:
            return func(*args, **named)
        name = func.__name__
        if name.startswith(IN_PLACE):
            return args[0] if name.startswith("_amp_update_scale") else None
        indexed = name.startswith(("index.", "index_put"))
        for tensor in tensors:
            if not tensor.is_meta and tensor.ndim:
                if not indexed:
                    shapes = [(tuple(each.shape), each.device.type) for each in tensors]
                    raise MixedDevices(f"{func} was given {shapes}, {_place()}")
                self.wait("index on the CPU")
        if func is aten._local_scalar_dense.default:
            self.wait("item")
            return 0.0 if args[0].is_floating_point() else 0
        if func in SIZED_BY_DATA:
            self.wait(name)
            return args[0].new_empty((0, args[0].ndim), dtype=torch.int64)
        if func is aten.equal.default:
            self.wait("equal")
            return True
        if indexed and any(t is not None and t.dtype == torch.bool for t in args[1]):
            self.wait("mask")
            if name.startswith("index_put"):
                return args[0]
            return args[0].new_empty((0, *args[0].shape[args[1][0].ndim :]))
        return func(*args, **named)

    def _copy(self, func: Any, args: Any, named: dict[str, Any]) -> Any:
        if func is aten.copy_.default:
            target, source = args[:2]
            if target.is_meta == source.is_meta:
                return func(*args, **named)
            if not (len(args) > 2 and args[2]) and not named.get("non_blocking"):
                self.wait("copy to" if target.is_meta else "copy from")
            return target if target.is_meta else target.zero_()
        source = args[0]
        onto = named.get("device")
        meta = source.is_meta if onto is None else torch.device(onto) == DEVICE
        if meta == source.is_meta:
            return func(*args, **named)
        if not (meta and named.get("non_blocking")):
            self.wait("copy to" if meta else "copy from")
        dtype = named.get("dtype") or source.dtype
        self.copied_bytes += 0 if meta else source.numel() * source.element_size()
        if meta:
            return torch.empty_strided(source.shape, source.stride(), dtype=dtype, device=DEVICE)
        return torch.zeros((), dtype=dtype).expand(source.shape)  # of any size, in no memory


class _Literals(TorchFunctionMode):
    """torch.tensor and tolist pass by what a dispatch mode sees."""

    def __init__(self, gpu: AbsentGPU) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        onto = named.get("device") or "cpu"
        if func in (torch.tensor, torch.as_tensor) and torch.device(onto) == DEVICE:
            self.gpu.wait("tensor")
            return torch.empty_like(func(*args, **{**named, "device": "cpu"}), device=DEVICE)
        if func is torch.Tensor.tolist and args[0].is_meta:
            self.gpu.wait("tolist")
            return torch.zeros(args[0].shape, dtype=args[0].dtype).tolist()
        if getattr(func, "__name__", "") == "lstm" and args[0].is_meta:
            return _lstm(*args)
        return func(*args, **named)


def _lstm(
    inputs: torch.Tensor, state: Any, weights: Any, has_biases: bool, num_layers: int,
    dropout: float, training: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """In place of cuDNN's one kernel, something of its shapes that depends on all it is given;
    without it torch would take a time step after the other."""
    assert has_biases
    assert not bidirectional
    assert not batch_first
    ends = []
    for layer in range(num_layers):
        w_ih, w_hh, b_ih, b_hh = weights[4 * layer : 4 * layer + 4]
        h, c = state[0][layer], state[1][layer]
        gates = inputs @ w_ih.T + (h @ w_hh.T + b_ih + b_hh)
        inputs = gates.chunk(4, dim=-1)[0] + c
        ends.append(inputs[-1])
    return inputs, torch.stack(ends), torch.stack(ends)


@contextlib.contextmanager
def absent_gpu() -> Iterator[AbsentGPU]:
    """The device, which is there until the block ends."""
    gpu = AbsentGPU()
    with gpu, _Literals(gpu):
        yield gpu


def _place() -> str:
    """The innermost line of the package, or of a test, that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if ("/companion/" in path or "/test_" in path) and "site-packages" not in path:
            return f"in {path.rpartition('/')[2]}: {frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
