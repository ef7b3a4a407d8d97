"""Tuning a language model against repetition, by unlikelihood beside the likelihood.

Greedy text loops, since the most probable text does. Welleck et al. 2020 push down what repeats:
token by token in true text, or in text that the model itself writes greedily. So that there is
something to repeat, greedy text may not end here before it has its length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from tqdm import tqdm

from companion.automata import END_ID
from companion.constraints import TokenAutomaton, allow_only
from companion.decoding import Decoder, generate
from companion.dpo import rows_by_length, text_batch
from companion.lstm import LSTMLanguageModel
from companion.objectives import summed_nats
from companion.quality import text_rows
from companion.recipe import TrainConfig
from companion.sequence_losses import sequence_unlikelihood, token_unlikelihood
from companion.source_models import TextSource
from companion.training import make_optimizer

if TYPE_CHECKING:
    from jaxtyping import Int

#: What may be added to the likelihood: nothing, unlikelihood of earlier tokens of a true text, or
#: of repeated 4-grams in greedy text of the model's own.
KINDS = ("likelihood", "token", "sequence")


@dataclass(frozen=True, kw_only=True)
class UnlikelihoodConfig:
    """How a model is tuned against repetition."""

    steps: int = 120
    """Optimizer steps, each on fresh texts."""
    learning_rate: float = 1e-3
    """Of AdamW, constant."""
    weight: float = 1.0
    """Weight of the unlikelihood; both losses are in nats a token."""
    batch_size: int = 32
    """True texts a step."""
    greedy_rows: int = 16
    """Greedy texts a step, for "sequence"."""
    prompt_tokens: int = 8
    """True tokens that a greedy text goes on from."""
    greedy_tokens: int = 100
    """Tokens of a greedy text."""

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
    model: LSTMLanguageModel,
    source: TextSource,
    kind: str,
    config: UnlikelihoodConfig,
    *,
    generator: torch.Generator,
    progress: bool = False,
) -> None:
    """Go on training `model`, in place, on fresh texts of `source` and by what `kind` adds.

    kind: one of `KINDS`. With "likelihood", which adds nothing, one sees what the steps alone do.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
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
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def own_unlikelihood(
    model: LSTMLanguageModel,
    prompts: Int[torch.Tensor, "rows prompt"],
    own: Int[torch.Tensor, "rows time"],
) -> torch.Tensor:
    """Sequence unlikelihood of what the model wrote after its prompts, nats a token, a scalar."""
    start = torch.full_like(prompts[:, :1], END_ID)
    logits, _ = model(torch.cat([start, prompts, own[:, :-1]], dim=1))
    return sequence_unlikelihood(logits[:, prompts.shape[1] :], own).mean()


def greedy_text(
    model: LSTMLanguageModel, prompts: Int[torch.Tensor, "rows prompt"], num_tokens: int
) -> Int[torch.Tensor, "rows time"]:
    """The most probable next token again and again, from a text's first tokens; never the end."""
    start = torch.full_like(prompts[:, :1], END_ID)
    return generate(
        model, torch.cat([start, prompts], dim=1), num_tokens, Decoder(temperature=0),
        constraint=endless(model.config.vocabulary_size),
    )  # fmt: skip


def endless(vocabulary_size: int) -> TokenAutomaton:
    """The constraint that a text may not end."""
    return allow_only(
        [token for token in range(vocabulary_size) if token != END_ID], vocabulary_size
    )


def beginnings(
    source: TextSource, rows: int, length: int, *, generator: torch.Generator
) -> Int[torch.Tensor, "rows prompt"]:
    """The first tokens of `rows` texts of the source that go on after them."""
    found: list[torch.Tensor] = []
    while len(found) < rows:
        texts = source.sample(2 * rows, generator=generator)
        found += [text[:length] for text in texts if len(text) > length]
    return torch.stack(found[:rows])
