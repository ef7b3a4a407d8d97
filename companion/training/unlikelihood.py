"""Tuning a language model against repetition, by adding an unlikelihood loss.

Greedy text loops, because the most probable text does. Welleck et al. 2020 penalise repetition:
token by token in true text, or in the model's own greedy text. Here greedy texts may not end before
their full length, so that there is something to repeat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from tqdm import tqdm

from companion.core.settings import check_choice, settings_class
from companion.generation.texts import greedy_text
from companion.losses.cross_entropy import summed_nats
from companion.losses.unlikelihood import sequence_unlikelihood, token_unlikelihood
from companion.models.base import LanguageModel
from companion.sources.streams import TextSource, beginnings
from companion.text.rows import END_ID, rows_by_length, text_batch, text_rows
from companion.training.config import TrainConfig
from companion.training.optimization import make_optimizer, take_step

if TYPE_CHECKING:
    from jaxtyping import Int

#: Losses: likelihood alone, with unlikelihood of the earlier tokens of a true text ("token"), or
#: with unlikelihood of repeated 4-grams in the model's own greedy text ("sequence").
Kind = Literal["likelihood", "token", "sequence"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@settings_class
class UnlikelihoodConfig:
    """Settings for tuning a model against repetition."""

    steps: int = 120
    """Optimizer steps, each on fresh texts."""
    learning_rate: float = 1e-3
    """Constant learning rate of AdamW."""
    weight: float = 1.0
    """Weight of the unlikelihood loss; it and the likelihood loss are in nats per token."""
    batch_size: int = 32
    """True texts per step."""
    greedy_rows: int = 16
    """Greedy texts per step, with kind "sequence"."""
    prompt_tokens: int = 8
    """True tokens at the start of each greedy text, as its prompt."""
    greedy_tokens: int = 100
    """Tokens generated for each greedy text."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "greedy_rows", "prompt_tokens", "greedy_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not self.learning_rate > 0 or not self.weight >= 0:
            raise ValueError(
                "learning_rate must be > 0 and weight >= 0, got "
                f"{self.learning_rate} and {self.weight}"
            )


def tune_against_repetition(
    model: LanguageModel,
    source: TextSource,
    kind: str,
    config: UnlikelihoodConfig,
    *,
    generator: torch.Generator,
    progress: bool = False,
) -> None:
    """Continue to train `model`, in place, on fresh texts of `source` with the loss `kind`.

    kind: one of `KINDS`. "likelihood" adds no unlikelihood: the control for the further steps.
    """
    check_choice("kind", kind, Kind)
    optimizer = make_optimizer(model, TrainConfig(steps=1, learning_rate=config.learning_rate))
    targets = config.batch_size * source.mean_length()
    model.eval()
    for _ in tqdm(range(config.steps), disable=not progress, unit="step"):
        texts = text_rows(source.sample(config.batch_size, generator=generator))
        loss = torch.zeros(())
        for rows in rows_by_length(texts, 8):
            batch = text_batch(texts[rows])
            logits, _ = model(batch.inputs)
            loss = loss + summed_nats(logits, batch.targets) / targets
            if kind == "token":
                pushed = token_unlikelihood(logits, batch.targets).sum()
                loss = loss + config.weight * pushed / targets
        if kind == "sequence":
            prompts = beginnings(
                source, config.greedy_rows, config.prompt_tokens, generator=generator
            )
            own = greedy_text(model, prompts, config.greedy_tokens)
            loss = loss + config.weight * own_unlikelihood(model, prompts, own)
        take_step(model, optimizer, loss, clip_norm=1.0)


def own_unlikelihood(
    model: LanguageModel,
    prompts: Int[torch.Tensor, "rows prompt"],
    own: Int[torch.Tensor, "rows time"],
) -> torch.Tensor:
    """Mean sequence unlikelihood of `own`, the model's texts after `prompts`, in nats per token."""
    start = torch.full_like(prompts[:, :1], END_ID)
    logits, _ = model(torch.cat([start, prompts, own[:, :-1]], dim=1))
    return sequence_unlikelihood(logits[:, prompts.shape[1] :], own).mean()
