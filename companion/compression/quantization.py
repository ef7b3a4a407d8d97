"""Weights as small whole numbers: rounding to the nearest of 2**bits - 1 levels, row by row.

Every row of a matrix, or every group of neighbours in it, has one scale, its largest absolute
weight divided by the highest code; a code times its scale is the weight again. This is the
"round-to-nearest" that GPTQ (Frantar et al. 2023) and AWQ (Lin et al. 2024) are compared with. It
needs no data, and rounds the same on every processor.

The codes are stored, and weights are made from them when a model is loaded: that saves disk and
download, and neither time nor memory while the model runs. `int8_kernels` saves those, where torch
has such kernels.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from companion.core.settings import check_whole
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMLanguageModel

if TYPE_CHECKING:
    from typing import TypeVar

    from jaxtyping import Float, Int8, UInt8

    Model = TypeVar("Model", bound=LanguageModel)

#: Bits of a code: one level is zero, and as many lie above it as below.
FEWEST_BITS, MOST_BITS = 2, 8


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A matrix as codes and scales."""

    codes: Int8[Tensor, "rows columns"]
    """Whole numbers in [-(2**(bits - 1) - 1), 2**(bits - 1) - 1]."""
    scales: Float[Tensor, "rows groups"]
    """The weight of a code of 1, for each group of neighbours in a row."""
    bits: int
    """Bits of a code."""

    def weights(self) -> Float[Tensor, "rows columns"]:
        """The matrix that is computed with: each code times its scale.

        Raises ValueError where the scales are not those of groups of equal size.
        """
        rows, columns = self.codes.shape
        count = self.scales.shape[1] if self.scales.ndim == 2 else 0
        if self.scales.shape != (rows, count) or not 1 <= count <= columns:
            raise ValueError(
                f"scales of shape {tuple(self.scales.shape)} are not those of codes of shape "
                f"{tuple(self.codes.shape)}"
            )
        size = -(-columns // count)
        return self.codes * self.scales.repeat_interleave(size, dim=1)[:, :columns]


def check_bits(bits: int, group_size: int | None) -> None:
    """Raise an error that says which numbers of bits and sizes of groups there are."""
    check_whole(bits=bits)
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise ValueError(f"bits must be in [{FEWEST_BITS}, {MOST_BITS}], got {bits}")
    if group_size is not None and group_size < 1:
        raise ValueError(f"group_size must be >= 1, or None for whole rows, got {group_size}")


def quantize(
    matrix: Float[Tensor, "rows columns"], bits: int, *, group_size: int | None = None
) -> Quantized:
    """`matrix` rounded to the nearest codes; None makes each whole row one group.

    A row has as few groups of at most `group_size` neighbours as can be, of equal size except the
    last, which may be shorter: 64 columns and a group_size of 24 make groups of 22, 22 and 20. So
    the number of scales says where groups begin. No weight moves by more than half its group's
    scale.
    """
    check_bits(bits, group_size)
    weights = matrix.detach().float().cpu()
    if not bool(weights.isfinite().all()):
        raise ValueError("the weights must be finite: a model that has diverged has no codes")
    rows, columns = weights.shape
    size = -(-columns // -(-columns // (group_size or columns)))
    groups = nn.functional.pad(weights, (0, -columns % size)).view(rows, -1, size)
    top = 2 ** (bits - 1) - 1
    scales = groups.abs().amax(dim=-1) / top
    # A group of zeros has no scale; any will do.
    codes = (groups / scales.where(scales > 0, torch.ones(())).unsqueeze(-1)).round()
    codes = codes.clamp(-top, top).view(rows, -1)[:, :columns]
    return Quantized(codes=codes.to(torch.int8).contiguous(), scales=scales, bits=bits)


def pack_codes(codes: Int8[Tensor, "rows columns"], bits: int) -> UInt8[Tensor, " bytes"]:
    """The codes one after the other, each in `bits` bits, the highest first."""
    unsigned = (codes.numpy().astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    return torch.from_numpy(np.packbits(np.unpackbits(unsigned.reshape(-1, 1), axis=1)[:, -bits:]))


def unpack_codes(
    packed: UInt8[Tensor, " bytes"], bits: int, shape: tuple[int, int]
) -> Int8[Tensor, "rows columns"]:
    """The codes that `pack_codes` packed; ValueError where there are not as many."""
    count = shape[0] * shape[1]
    if packed.numel() != -(-count * bits // 8):
        raise ValueError(f"{packed.numel()} bytes are not {count} codes of {bits} bits")
    flat = np.unpackbits(packed.numpy())[: count * bits].reshape(count, bits)
    wide = np.zeros((count, 8), dtype=np.uint8)
    wide[:, 8 - bits :] = flat
    unsigned = np.packbits(wide, axis=1).reshape(shape).astype(np.int16)
    return torch.from_numpy((unsigned - 2 ** (bits - 1)).astype(np.int8))


def quantized(model: Model, bits: int, *, group_size: int | None = None) -> Model:
    """A copy of `model` whose matrices hold the weights of their codes; biases stay as they are."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 2:
                parameter.copy_(quantize(parameter, bits, group_size=group_size).weights())
    return made


def int8_kernels(model: LSTMLanguageModel) -> LSTMLanguageModel:
    """A copy of `model` that computes in int8 on the CPU, by torch's dynamic quantization.

    Weights are kept as int8, and the inputs of each layer are rounded when they come. torch calls
    this API deprecated, and torchao, which takes its place, has no LSTM (0.18); so it serves to
    measure, and nothing is stored in its format. Raises ValueError where torch has no such kernels,
    or for layers of different size or weight drop, which they do not know.
    """
    if not isinstance(model.lstm, nn.LSTM):
        raise ValueError("torch's int8 kernels know nn.LSTM alone; last_size, weight_drop and "
                         "variational dropout make another network of it")  # fmt: skip
    try:
        from torch.ao.quantization import quantize_dynamic
    except ImportError as error:
        raise ValueError(f"torch {torch.__version__} has no dynamic quantization") from error
    if torch.backends.quantized.engine == "none":
        raise ValueError("torch has no int8 kernels for this processor")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the API is deprecated
        made: LSTMLanguageModel = quantize_dynamic(  # type: ignore[no-untyped-call]
            copy.deepcopy(model).cpu().eval(), {nn.LSTM, nn.Linear}, dtype=torch.qint8
        )
    return made
