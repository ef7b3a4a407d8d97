"""How fast is a training step beside a textbook loop's, and what is the rest of its time?

Four models (`companion.training.benchmark`) train in turns with a loop as in tutorials, in one
process. For the sampled loss the textbook loop looks up its embedding for the inputs and its output
weights again for targets and samples, where ours reads the rows of the tied matrix once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tqdm import tqdm

from companion.core.settings import settings_class
from companion.training import benchmark


@settings_class
class Config:
    """How long is measured."""

    seconds: float = 5.0
    """Seconds of training for each model and loop."""

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"seconds must be > 0, got {self.seconds}")


@dataclass(kw_only=True)
class Result:
    """What `benchmark.Speed` says of each model, by the model's name."""

    ratio: dict[str, float] = field(default_factory=dict)
    """Speed divided by the textbook loop's in the same turn; median over turns."""
    ratio_low: dict[str, float] = field(default_factory=dict)
    """Lower end of the 95 % interval of `ratio`."""
    ratio_high: dict[str, float] = field(default_factory=dict)
    """Upper end of the 95 % interval of `ratio`."""
    matmul_share: dict[str, float] = field(default_factory=dict)
    """Operations per second as a share of those that a large matrix product reaches."""
    products_share: dict[str, float] = field(default_factory=dict)
    """Share of a step's time that its own matrix products need alone."""
    tokens_per_second: dict[str, float] = field(default_factory=dict)
    """Training targets per second."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Measure each model; the tokens are the same for each seed, which is a repetition here."""
    result = Result()
    for case in tqdm(benchmark.MODELS, disable=not progress, unit="model"):
        speed = benchmark.measure(case, device="cpu", seconds=config.seconds)
        for name, by_model in vars(result).items():
            by_model[case.name] = getattr(speed, name)
    return result
