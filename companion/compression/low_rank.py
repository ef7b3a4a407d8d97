"""The output matrix as a product of two thin ones, by its truncated singular value decomposition.

The best matrix of rank r in squared error keeps the r largest singular values (Eckart & Young
1936). With V tokens and H hidden units it has r (V + H) numbers in place of V H. A tied output
matrix is the embedding as well, so truncating it changes both ends of the network.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from companion.models.lstm import LSTMLanguageModel

if TYPE_CHECKING:
    from jaxtyping import Float


def highest_rank(rows: int, columns: int) -> int:
    """The highest rank whose two factors have fewer numbers than the matrix."""
    return (rows * columns - 1) // (rows + columns)


def factors(
    matrix: Float[Tensor, "rows columns"], rank: int
) -> tuple[Float[Tensor, "rows rank"], Float[Tensor, "rank columns"]]:
    """Two matrices whose product is the nearest of rank `rank` to `matrix`.

    Raises ValueError where they would have no fewer numbers than it.
    """
    rows, columns = matrix.shape
    most = highest_rank(rows, columns)
    if not 1 <= rank <= most:
        raise ValueError(
            f"rank must be in [1, {most}], got {rank}: factors of a higher rank have no fewer "
            f"numbers than a matrix of {rows} rows and {columns} columns"
        )
    left, values, right = torch.linalg.svd(matrix.detach().double().cpu(), full_matrices=False)
    root = values[:rank].sqrt()  # both factors get weights of similar size
    thin = left[:, :rank] * root, root[:, None] * right[:rank]
    return thin[0].float().contiguous(), thin[1].float().contiguous()


def output_name(model: LSTMLanguageModel) -> str:
    """The name of the output matrix: the embedding's, if they are tied. ValueError for an adaptive
    softmax, whose clusters have matrices of their own."""
    if not isinstance(model.output, nn.Linear):
        raise ValueError("an adaptive softmax has no single output matrix to factor")
    return "embedding.weight" if model.config.tie_weights else "output.weight"


def truncated(model: LSTMLanguageModel, rank: int, *, untie: bool = False) -> LSTMLanguageModel:
    """A copy of `model` whose output matrix is the nearest one of rank `rank`.

    The embedding changes with it if they are tied; `untie` leaves the embedding as it is, which
    shows what truncating the output alone does.
    """
    made = copy.deepcopy(model)
    weights = made.get_parameter(output_name(made))
    left, right = factors(weights, rank)
    if untie:
        cast(nn.Linear, made.output).weight = nn.Parameter(left @ right)
    else:
        with torch.no_grad():
            weights.copy_(left @ right)
    return made


def in_factors(model: LSTMLanguageModel, rank: int) -> LSTMLanguageModel:
    """As `truncated(untie=True)`, but computed by two thin products: for measuring the time."""
    made = copy.deepcopy(model)
    left, right = factors(made.get_parameter(output_name(made)), rank)
    output = cast(nn.Linear, made.output)
    first = nn.Linear(right.shape[1], rank, bias=False)
    second = nn.Linear(rank, left.shape[0])
    first.weight, second.weight, second.bias = (
        nn.Parameter(right), nn.Parameter(left), nn.Parameter(output.bias.detach().cpu().clone())
    )  # fmt: skip
    made.output = cast(nn.Linear, nn.Sequential(first, second).to(made.device))
    return made
