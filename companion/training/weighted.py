"""Training on given texts, each with a weight, and with an additional term in the loss.

What remedies of bias change: the texts (balancing), what each counts (reweighting), or the
objective (a term). Without any of them it is ordinary training on whole texts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor

from companion.core.seeds import seed_everything
from companion.core.settings import check_sizes
from companion.losses.cross_entropy import token_nats
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.text.rows import text_batch
from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at, make_optimizer, take_step

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def train_on_rows(
    rows: Int[Tensor, "texts time"],
    config: LSTMConfig,
    *,
    batch_size: int,
    learning_rate: float,
    seed: int,
    weights: Float[Tensor, " texts"] | None = None,
    term: Callable[[LanguageModel], Tensor] | None = None,
) -> LSTMLanguageModel:
    """A model, in evaluation mode, trained once through `rows`, in their order.

    rows: texts filled up with the end token, read from an empty state each. The last incomplete
        batch is left out.
    weights: what each text's loss is multiplied by; None means 1.
    term: called with the model at each step; its value is added to the mean nats per token.

    The loss is divided by a constant, the mean number of tokens of a batch. Sets the seed of all
    generators to `seed`. Raises ValueError for fewer texts than a batch, and for weights that are
    negative or of another number.
    """
    check_sizes(batch_size=batch_size)
    steps = len(rows) // batch_size
    if not steps:
        raise ValueError(f"a batch of {batch_size} texts needs as many, got {len(rows)}")
    if weights is not None and (weights.shape != rows.shape[:1] or bool((weights < 0).any())):
        raise ValueError(
            f"weights must be {len(rows)} numbers >= 0, one a text, got shape "
            f"{tuple(weights.shape)}"
        )
    tokens = text_batch(rows).num_targets / len(rows) * batch_size
    settings = TrainConfig(steps=steps, learning_rate=learning_rate)
    seed_everything(seed)
    model = LSTMLanguageModel(config).train()
    optimizer = make_optimizer(model, settings)
    for step in range(steps):
        some = slice(step * batch_size, (step + 1) * batch_size)
        batch = text_batch(rows[some])
        logits, _ = model(batch.inputs)
        nats = token_nats(logits, batch.targets).sum(dim=1)
        loss = (nats if weights is None else nats * weights[some].to(nats)).sum() / tokens
        if term is not None:
            loss = loss + term(model)
        take_step(
            model, optimizer, loss, clip_norm=settings.clip_norm,
            learning_rate=learning_rate_at(step, steps, settings),
        )  # fmt: skip
    return model.eval()
