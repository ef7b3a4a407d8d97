"""Compressed weights as tensors with names, for a file, and a model filled from them again.

    embedding.weight               as it was
    lstm.weight_hh_l0.int4         codes of 4 bits, one after the other
    lstm.weight_hh_l0.scales       their scales, by row and group
    lstm.weight_ih_l0.kept         a bit for each weight, and
    lstm.weight_ih_l0.values       those weights that are not zero
    output.weight.left, .right     two thin matrices whose product it is

A tied matrix is there once, under the embedding's name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from companion.compression.low_rank import factors, output_name
from companion.compression.pruning import from_sparse, matrices, to_sparse
from companion.compression.quantization import (
    FEWEST_BITS,
    MOST_BITS,
    Quantized,
    pack_codes,
    quantize,
    unpack_codes,
)
from companion.models.lstm import LSTMLanguageModel


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters as they are, each tied one once: what the others are compared with."""
    return {name: each.detach() for name, each in model.named_parameters()}


def quantized_tensors(
    model: nn.Module, bits: int, *, group_size: int | None = None
) -> dict[str, Tensor]:
    """The parameters with the matrices as codes and scales."""
    packed = plain_tensors(model)
    for name in matrices(model):
        found = quantize(packed.pop(name), bits, group_size=group_size)
        packed[f"{name}.int{bits}"] = pack_codes(found.codes, bits)
        packed[f"{name}.scales"] = found.scales
    return packed


def sparse_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of a pruned model with the matrices sparse."""
    packed = plain_tensors(model)
    for name in matrices(model):
        packed[f"{name}.kept"], packed[f"{name}.values"] = to_sparse(packed.pop(name))
    return packed


def low_rank_tensors(model: LSTMLanguageModel, rank: int) -> dict[str, Tensor]:
    """The parameters with the output matrix as two factors."""
    packed, name = plain_tensors(model), output_name(model)
    packed[f"{name}.left"], packed[f"{name}.right"] = factors(packed.pop(name), rank)
    return packed


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the tensors' numbers; a file adds some hundred for their names and shapes."""
    return sum(each.numel() * each.element_size() for each in tensors.values())


@torch.no_grad()
def fill(model: nn.Module, packed: Mapping[str, Tensor]) -> None:
    """Give `model`, in place, the weights in `packed`.

    Raises ValueError where it lacks a parameter, has one too many, or one of another shape.
    """
    used: set[str] = set()
    for name, parameter in model.named_parameters():
        weights, names = _unpacked(name, parameter, packed)
        if weights.shape != parameter.shape:
            raise ValueError(
                f"{name} has shape {tuple(weights.shape)}, and the model's is "
                f"{tuple(parameter.shape)}"
            )
        parameter.copy_(weights)
        used |= names
    if left := sorted(set(packed) - used):
        raise ValueError(f"the model has no {left[0]}")


def _unpacked(
    name: str, parameter: Tensor, packed: Mapping[str, Tensor]
) -> tuple[Tensor, set[str]]:
    """The weights of one parameter, and the names of the tensors that they are made of."""
    if name in packed:
        return packed[name], {name}
    shape = tuple(parameter.shape)
    if len(shape) == 2:
        for bits in range(FEWEST_BITS, MOST_BITS + 1):
            names = [f"{name}.int{bits}", f"{name}.scales"]
            if names[0] in packed and names[1] in packed:
                codes = unpack_codes(packed[names[0]], bits, shape)
                found = Quantized(codes=codes, scales=packed[names[1]], bits=bits)
                return found.weights(), set(names)
        names = [f"{name}.kept", f"{name}.values"]
        if names[0] in packed and names[1] in packed:
            return from_sparse(packed[names[0]], packed[names[1]], shape), set(names)
        names = [f"{name}.left", f"{name}.right"]
        if names[0] in packed and names[1] in packed:
            return packed[names[0]] @ packed[names[1]], set(names)
    raise ValueError(f"there are no weights for {name}")
