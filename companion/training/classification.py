"""Training a text classifier: from scratch, or by fine-tuning a language model.

Fine-tuning as in ULMFiT (Howard & Ruder 2018): lower layers have smaller learning rates
(discriminative fine-tuning), and are trained later than the ones above (gradual unfreezing).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_sizes, check_whole, settings_class
from companion.models.base import LanguageModel
from companion.models.classifier import ClassifierConfig, Pooling, TextClassifier, layer_groups
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.text.labelled import LabelledTexts
from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at, take_step

if TYPE_CHECKING:
    from jaxtyping import Float, Int


@settings_class
class FineTuningConfig:
    """Settings of a classifier's training."""

    pooling: tuple[Pooling, ...] = ("last", "max", "mean")
    """What the linear layer reads of a text; see `companion.models.classifier`."""
    steps: int = 200
    """Optimizer steps."""
    batch_size: int = 32
    """Texts per optimizer step; all of them where there are fewer."""
    learning_rate: float = 1e-2
    """Peak learning rate of AdamW, for the linear layer."""
    rate_decay: float = 2.6
    """Each layer's learning rate is the one above it divided by this; 1 means equal rates. From
    scratch all rates are equal."""
    unfreeze_every: int = 20
    """Steps after which the next lower layer is trained too; 0 trains all from the first step, as
    from scratch."""
    dropout: float = 0.0
    """Probability of dropping a pooled feature."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    clip_norm: float = 1.0
    """Maximum gradient norm."""

    def __post_init__(self) -> None:
        check_sizes(steps=self.steps, batch_size=self.batch_size)
        if self.unfreeze_every < 0:
            raise ValueError(f"unfreeze_every must be >= 0, got {self.unfreeze_every}")
        if not self.rate_decay >= 1:
            raise ValueError(f"rate_decay must be >= 1, got {self.rate_decay}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay}")
        # The classes of what these settings make check the others.
        ClassifierConfig(pooling=self.pooling, dropout=self.dropout)
        TrainConfig(steps=self.steps, learning_rate=self.learning_rate, clip_norm=self.clip_norm)


def train_classifier(
    body: LSTMConfig | LanguageModel,
    texts: LabelledTexts,
    config: FineTuningConfig,
    *,
    seed: int,
    num_classes: int | None = None,
    weights: Float[Tensor, " texts"] | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> TextClassifier:
    """A classifier, in evaluation mode, trained on these texts.

    body: the sizes of an LSTM that is trained from scratch, all layers at once and at one rate; or
        a trained language model, of which a copy is fine-tuned.
    num_classes: None means one more than the highest label.
    weights: what each text's loss is multiplied by; None means 1.
    device: where it is trained; None means the CPU from scratch, and else where `body` is.

    Sets the seed of all generators to `seed`. Raises ValueError for a label outside the classes,
    weights that are negative or of another number, and token ids outside the model's vocabulary.
    """
    check_whole(seed=seed)
    highest = int(texts.labels.max())
    classes = highest + 1 if num_classes is None else num_classes
    if int(texts.labels.min()) < 0 or highest >= classes:
        raise ValueError(
            f"labels must be in [0, {classes}), got {int(texts.labels.min())} to {highest}"
        )
    if weights is not None and (len(weights) != len(texts) or bool((weights < 0).any())):
        raise ValueError(
            f"weights must be {len(texts)} numbers >= 0, one a text, got {len(weights)} from "
            f"{float(weights.min()):g}"
        )
    order = make_generator(seed, "order of texts")
    seed_everything(seed)
    from_scratch = isinstance(body, LSTMConfig)
    model = LSTMLanguageModel(body) if isinstance(body, LSTMConfig) else copy.deepcopy(body)
    model.require_tokens(texts.inputs, "texts.inputs", ndim=2)
    if device is not None:
        model = model.to(device)
    sizes = ClassifierConfig(num_classes=classes, pooling=config.pooling, dropout=config.dropout)
    classifier = TextClassifier(model, sizes).train()
    groups = layer_groups(classifier)
    decay, every = (1.0, 0) if from_scratch else (config.rate_decay, config.unfreeze_every)
    optimizer = torch.optim.AdamW(
        [{"params": group} for group in groups], weight_decay=config.weight_decay
    )
    schedule = TrainConfig(steps=config.steps, learning_rate=config.learning_rate)
    batches = _batches(len(texts), config, order)
    for step, rows in enumerate(
        tqdm(batches, total=config.steps, disable=not progress, unit="step")
    ):
        rate = learning_rate_at(step, config.steps, schedule)
        for depth, (group, settings) in enumerate(zip(groups, optimizer.param_groups, strict=True)):
            settings["lr"] = rate / decay**depth
            for parameter in group:
                parameter.requires_grad_(step >= depth * every)
        some = texts.select(rows).to(model.device)
        losses = F.cross_entropy(
            classifier(some.inputs, some.lengths), some.labels, reduction="none"
        )
        if weights is not None:
            losses = losses * weights[rows].to(losses)
        take_step(classifier, optimizer, losses.mean(), clip_norm=config.clip_norm)
    for parameter in classifier.parameters():
        parameter.requires_grad_(True)
    return classifier.eval()


def _batches(
    n: int, config: FineTuningConfig, generator: torch.Generator
) -> Iterator[Int[Tensor, " rows"]]:
    """Rows of each step, pass after pass over all texts, each in a fresh order."""
    size = min(config.batch_size, n)
    queue = torch.empty(0, dtype=torch.long)
    for _ in range(config.steps):
        while len(queue) < size:
            queue = torch.cat([queue, torch.randperm(n, generator=generator)])
        yield queue[:size]
        queue = queue[size:]
