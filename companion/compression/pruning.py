"""Setting small weights to zero (Han et al. 2015), and a short training that repairs what is left.

Zeros here and there save nothing by themselves: the matrices stay as large and are multiplied as
before. Stored sparse, one bit for each weight says whether it is kept, and only the kept ones
follow.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from companion.core.settings import check_choice
from companion.models.base import LanguageModel
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer

if TYPE_CHECKING:
    from typing import TypeVar

    from jaxtyping import Bool, Float, Int, UInt8

    Model = TypeVar("Model", bound=LanguageModel)

#: Which weights compete: those of all matrices, or those of each.
Scope = Literal["global", "matrix"]
#: Which of the weights are kept, by the name of their matrix.
Masks = Mapping[str, Tensor]


def check_share(share: float) -> None:
    """Raise ValueError unless `share` of the weights can be removed and some be left."""
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), got {share}")


def magnitude_masks(model: nn.Module, share: float, scope: Scope = "global") -> Masks:
    """True for the weights to keep: all but the `share` with the smallest absolute value.

    "global" compares the weights of all matrices, so that a matrix of small weights loses more;
    "matrix" removes the same share of each. A tied matrix counts once; biases are never removed.
    Raises ValueError where the share, rounded to whole weights, leaves none.
    """
    check_share(share)
    check_choice("scope", scope, Scope)
    sizes = {name: weights.detach().abs() for name, weights in matrices(model).items()}
    if scope == "matrix":
        return _some_kept({name: _largest(each, share) for name, each in sizes.items()}, share)
    together = _largest(torch.cat([each.flatten() for each in sizes.values()]), share)
    parts = torch.split(together, [each.numel() for each in sizes.values()])
    masks = {name: part.view_as(sizes[name]) for name, part in zip(sizes, parts, strict=True)}
    return _some_kept(masks, share)


def random_masks(model: nn.Module, share: float, *, generator: torch.Generator) -> Masks:
    """The control: `share` of the weights of each matrix removed, chosen at random.

    `magnitude_masks` with the scope "global" removes as many in all, and other shares of each.
    """
    check_share(share)
    return {
        name: _largest(torch.rand(weights.shape, generator=generator), share)
        for name, weights in matrices(model).items()
    }


def pruned(model: Model, masks: Masks) -> Model:
    """A copy of `model` with the weights outside `masks` at zero."""
    made = copy.deepcopy(model)
    apply_masks(made, masks)
    return made


@torch.no_grad()
def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set the weights outside `masks` to zero, in place."""
    for name, weights in matrices(model).items():
        weights.mul_(masks[name].to(weights.device))


def repair(
    model: LanguageModel,
    masks: Masks,
    ids: Int[Tensor, " total"],
    training: TrainConfig,
    *,
    device: str = "cpu",
    progress: bool = False,
) -> None:
    """Train a pruned `model` on the text `ids`, in place; what was removed stays at zero."""
    trainer = Trainer(model, ids, training, device=device)
    steps = tqdm(trainer.steps(), total=trainer.total_steps, disable=not progress, unit="step")
    for _ in steps:
        apply_masks(model, masks)
    model.eval()


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are compressed: matrices by name, a tied one under its first name."""
    return {name: each for name, each in model.named_parameters() if each.ndim == 2}


def to_sparse(
    matrix: Float[Tensor, "rows columns"],
) -> tuple[UInt8[Tensor, " bytes"], Float[Tensor, " kept"]]:
    """A bit for each weight, 1 where it is not zero, and the weights that are not."""
    kept = matrix != 0
    return torch.from_numpy(np.packbits(kept.cpu().numpy())), matrix[kept].cpu()


def from_sparse(
    bits: UInt8[Tensor, " bytes"], values: Float[Tensor, " kept"], shape: tuple[int, int]
) -> Float[Tensor, "rows columns"]:
    """The matrix that `to_sparse` took apart; ValueError where bits and values disagree."""
    count = shape[0] * shape[1]
    flags = torch.from_numpy(np.unpackbits(bits.numpy())).bool()
    if bits.numel() != -(-count // 8) or int(flags.sum()) != values.numel():
        raise ValueError(
            f"{bits.numel()} bytes and {values.numel()} weights do not make a {shape} matrix"
        )
    flat = torch.zeros(count)
    flat[flags[:count]] = values
    return flat.view(shape)


def _some_kept(masks: Masks, share: float) -> Masks:
    """`masks`; ValueError if they keep nothing."""
    if not any(bool(mask.any()) for mask in masks.values()):
        raise ValueError(f"share {share} leaves no weight of this model; take a smaller one")
    return masks


def _largest(scores: Float[Tensor, "*shape"], share: float) -> Bool[Tensor, "*shape"]:
    """True for all but round(share * count) of the smallest scores."""
    kept = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
    order = scores.flatten().argsort(stable=True)
    kept[order[: round(share * scores.numel())]] = False
    return kept.view(scores.shape)
