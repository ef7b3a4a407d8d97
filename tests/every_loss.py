"""Train a small model with each loss, in as many processes as there are: torchrun starts it.

    python every_loss.py FOLDER

FOLDER/found.json holds, for each, the losses and how often gradients were exchanged.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path

import torch
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

from companion.core.seeds import make_generator, seed_everything
from companion.losses.large_vocabulary import NoiseSampler
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer

VOCABULARY = 40
STEPS, ACCUMULATION = 12, 3
CUTOFFS = (10, 20)
KINDS = ("full", "chunked", "sampled", "adaptive")


def text() -> torch.Tensor:
    """Tokens of the last cluster stand in the first half alone, so whole windows have none."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(15, (1601,), generator=generator)
    ids[:100] = torch.randint(VOCABULARY, (100,), generator=generator)
    return ids


def trained(kind: str) -> tuple[list[float], int]:
    """Losses of each step, and the number of exchanges of gradients."""
    draws = make_generator(0, "the same samples in all processes")
    NoiseSampler.forward = lambda self, count: torch.randint(VOCABULARY, (count,), generator=draws)
    seed_everything(0)
    model = LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=VOCABULARY, embedding_size=8, hidden_size=16,
            adaptive_cutoffs=CUTOFFS if kind == "adaptive" else (),
        )
    )  # fmt: skip
    settings = TrainConfig(
        steps=STEPS, num_streams=4, window_length=10, accumulation=ACCUMULATION, log_every=1,
        loss="full" if kind == "adaptive" else kind, num_samples=16, learning_rate=1e-2,
    )  # fmt: skip
    made = Trainer(model, text(), settings, device="cpu")
    exchanges = 0

    def exchange(state, bucket):  # type: ignore[no-untyped-def]  # torch checks its annotations
        nonlocal exchanges
        exchanges += 1
        return default_hooks.allreduce_hook(state, bucket)

    if hasattr(made.loss, "register_comm_hook"):
        made.loss.register_comm_hook(None, exchange)
    return [record["train_nats_per_token"] for record in made.fit().history], exchanges


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    found = {kind: trained(kind) for kind in KINDS}
    Trainer._gradients_averaged = lambda self, *, only_if: contextlib.nullcontext()
    found["full, exchanged after each window"] = trained("full")
    if os.environ.get("RANK", "0") == "0":
        (folder / "found.json").write_text(json.dumps(found))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
