"""A classifier of texts: a language model reads, its features are pooled, a linear layer decides.

The body is any `LanguageModel` with features of real numbers, trained on text or fresh; its output
layer is not used. Features are pooled as in ULMFiT (Howard & Ruder 2018): those after the last
token, and their maximum and mean over the text, side by side.

Shape legend: B batch, T time, F features, C classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from companion.core.settings import check_choice, check_sizes, settings_class
from companion.models.base import LanguageModel, evaluation_mode
from companion.text.labelled import LabelledTexts

if TYPE_CHECKING:
    from jaxtyping import Float, Int

#: How the features of a text become one vector.
Pooling = Literal["last", "max", "mean"]


@settings_class
class ClassifierConfig:
    """Size of a `TextClassifier` above its language model."""

    num_classes: int = 2
    """Number of classes C."""
    pooling: tuple[Pooling, ...] = ("last", "max", "mean")
    """What the linear layer reads: the features after the last token, their maximum, their mean
    over the text, or several of them side by side."""
    dropout: float = 0.0
    """Probability of dropping a pooled feature."""

    def __post_init__(self) -> None:
        check_sizes(num_classes=self.num_classes)
        if self.num_classes < 2:
            raise ValueError(f"num_classes must be >= 2, got {self.num_classes}")
        for each in self.pooling:
            check_choice("each of pooling", each, Pooling)
        if not self.pooling or len(set(self.pooling)) < len(self.pooling):
            raise ValueError(f"pooling must name one way or several, got {self.pooling}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


class TextClassifier(nn.Module):
    """Class logits of whole texts, from the features of a language model."""

    def __init__(self, body: LanguageModel, config: ClassifierConfig | None = None) -> None:
        super().__init__()
        self.config = config or ClassifierConfig()
        self.body = body
        self.dropout = nn.Dropout(self.config.dropout)
        with torch.no_grad(), evaluation_mode(body):
            probe, _ = body.features(torch.zeros(1, 1, dtype=torch.long, device=body.device))
        if not probe.is_floating_point():
            raise ValueError(
                f"a classifier needs features of real numbers, and {type(body).__name__} has "
                f"{probe.dtype}; use a neural language model"
            )
        width = probe.shape[-1] * len(self.config.pooling)
        self.head = nn.Linear(width, self.config.num_classes, device=body.device)

    def forward(
        self, inputs: Int[Tensor, "batch time"], lengths: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits of the classes.

        inputs: token ids, as `LabelledTexts` holds them; those of each row from `lengths` on are
            padding, and may be any. They change nothing, as no feature depends on what follows.

        Raises ValueError for a row without a token or a length beyond the batch's.
        """
        features, _ = self.body.features(inputs)
        logits: Tensor = self.head(self.dropout(pooled(features, lengths, self.config.pooling)))
        return logits


def pooled(
    features: Float[Tensor, "batch time features"],
    lengths: Int[Tensor, " batch"],
    ways: tuple[Pooling, ...],
) -> Float[Tensor, "batch pooled"]:
    """Features of whole texts from those at each position, the ways side by side, in that order.

    Positions from each row's length on are left out. Raises ValueError for a length below 1 or
    beyond the batch's.
    """
    longest = features.shape[1]
    if lengths.shape != features.shape[:1]:
        raise ValueError(f"lengths must hold one length a row, {len(features)}, got {len(lengths)}")
    wrong = lengths[(lengths < 1) | (lengths > longest)]
    if len(wrong):
        raise ValueError(f"lengths must be between 1 and {longest}, got {int(wrong[0])}")
    places = torch.arange(longest, device=features.device)
    inside = (places < lengths.unsqueeze(1)).unsqueeze(-1)  # (B, T, 1)
    parts = []
    for way in ways:
        if way == "last":
            parts.append(features[torch.arange(len(features), device=features.device), lengths - 1])
        elif way == "max":
            parts.append(features.masked_fill(~inside, -torch.inf).amax(dim=1))
        else:
            parts.append((features * inside).sum(dim=1) / lengths.unsqueeze(1))
    return torch.cat(parts, dim=-1)


@torch.no_grad()
def class_logits(
    classifier: TextClassifier, texts: LabelledTexts, *, batch_size: int = 128
) -> Float[Tensor, "texts classes"]:
    """Logits of the classes of each text, in evaluation mode, on the CPU, in the texts' order."""
    check_sizes(batch_size=batch_size)
    out = torch.empty(len(texts), classifier.config.num_classes)
    with evaluation_mode(classifier):
        for rows in torch.split(texts.lengths.argsort(stable=True), batch_size):
            some = texts.select(rows).to(classifier.body.device)
            out[rows] = classifier(some.inputs, some.lengths).float().cpu()
    return out


def layer_groups(classifier: TextClassifier) -> list[list[nn.Parameter]]:
    """The classifier's parameters from the top down: the head, then the body's layers.

    The layers of the body are in reverse order of their definition: of an LSTM language model its
    LSTM layers, the last one first, then the embedding. Parameters that the class does not depend
    on, such as the output layer of the language model, are left out.
    """
    body = classifier.body
    named = list(body.named_parameters())
    # On a GPU cuDNN computes no gradients of a recurrent network in evaluation mode.
    cudnn_off = torch.backends.cudnn.flags(enabled=False)
    with torch.enable_grad(), evaluation_mode(body), cudnn_off:
        before = [parameter.requires_grad for _, parameter in named]
        for _, parameter in named:
            parameter.requires_grad_(True)
        try:
            probe, _ = body.features(torch.zeros(1, 1, dtype=torch.long, device=body.device))
            read = torch.autograd.grad(probe.sum(), [p for _, p in named], allow_unused=True)
        finally:
            for (_, parameter), needed in zip(named, before, strict=True):
                parameter.requires_grad_(needed)
    layers: dict[str, list[nn.Parameter]] = {}
    for (name, parameter), gradient in zip(named, read, strict=True):
        if gradient is not None:
            layers.setdefault(_layer(name), []).append(parameter)
    return [list(classifier.head.parameters()), *reversed(layers.values())]


def _layer(name: str) -> str:
    """What a parameter belongs to: "lstm.layers.1.weight_ih_l0", "lstm.weight_ih_l1" and
    "blocks.1.norm.weight" are of layer 1 of lstm and of blocks."""
    module, _, rest = name.partition(".")
    number = re.search(r"(?:^|\.|_l)(\d+)(?=\.|$|_)", rest)
    return f"{module} {number[1]}" if number else module
