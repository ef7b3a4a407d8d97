"""Seeds: one number for a run, and from it independent streams of random numbers.

Weights are drawn from torch's global generator, which `seed_everything` seeds. Text, orders and
samples are drawn from generators of their own. Two generators with the same seed draw the very same
numbers, so data and weights would be correlated: each purpose names a stream of its own.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def check_seed(seed: int) -> None:
    """ValueError for a seed that `seed_everything` does not take."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be between 0 and 2**32 - 1, got {seed}")


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators. Only entry points call this."""
    check_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third parties draw from the global one
    torch.manual_seed(seed)


def make_generator(
    seed: int, purpose: str = "", *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A new torch generator; drawing from it does not change the global one.

    With a `purpose`, say "training text", its numbers are independent of those of every other
    purpose, and of the weights that follow `seed_everything(seed)`. Without one it is torch's
    generator of that seed: right where nothing else is drawn with the same seed.
    """
    if purpose:
        digest = hashlib.sha256(f"{seed} {purpose}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big") >> 1  # torch takes 63 bits and a sign
    return torch.Generator(device=device).manual_seed(seed)


def draw_below(count: int, generator: torch.Generator) -> int:
    """A whole number from 0 to count - 1, all of them alike."""
    return int(torch.randint(count, (), generator=generator))
