"""How a language model is trained: every choice that a training takes, and the learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from companion.objectives import LOSSES
from companion.runtime import PRECISIONS


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a language model is trained."""

    epochs: float | None = None
    """Passes over the training text; give this or `steps`."""
    steps: int | None = None
    """Optimizer steps; give this or `epochs`."""
    num_streams: int = 32
    """Parallel streams over all processes: the batch size."""
    window_length: int = 64
    """Tokens a stream advances per step: gradients flow back this far (BPTT)."""
    accumulation: int = 1
    """Windows whose gradients are added up before one optimizer step."""
    learning_rate: float = 4e-3
    """Peak learning rate of AdamW."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay of the first and second moment."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, applied to matrices and not to biases."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises linearly to its peak."""
    final_learning_rate: float = 0.01
    """Learning rate at the last step, as a share of the peak; a cosine leads there."""
    clip_norm: float = 1.0
    """Gradients longer than this are scaled down to it."""
    loss: str = "full"
    """full, chunked (the same without holding all logits) or sampled (an estimate, for large
    vocabularies). Validation is by the full softmax whatever trains."""
    num_samples: int = 1024
    """Tokens that a sampled loss draws for each window."""
    unigram_bias: bool = False
    """Start the output bias at the logarithm of each token's share of the training text."""
    activation_penalty: float = 0.0
    """Weight of the mean square of the last layer's outputs (AR, Merity et al. 2018)."""
    temporal_penalty: float = 0.0
    """Weight of the mean square of their change from token to token (TAR, the same)."""
    window_jitter: float = 0.0
    """Standard deviation, in tokens, of where a window ends; above zero, windows differ in length
    and from epoch to epoch."""
    carry_state: bool = True
    """Start each window from the state the last one ended in; otherwise from zeros."""
    reset_state: float = 0.0
    """Probability that a stream starts a window from zeros all the same, so that the model also
    learns to begin a text."""
    evaluate_every: int | None = None
    """Steps between validations; None means once per epoch, and always at the end."""
    patience: int | None = None
    """Stop after this many validations without a lower loss; None means never."""
    checkpoint_every: int | None = None
    """Steps between checkpoints, besides one at every validation."""
    log_every: int = 50
    """Steps between records of the training loss."""
    precision: str = "fp32"
    """fp32, bf16 or fp16 (automatic mixed precision; weights stay fp32)."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"give either epochs or steps, got epochs={self.epochs}, steps={self.steps}"
            )
        for name in (
            "epochs", "steps", "num_streams", "window_length", "accumulation", "learning_rate",
            "clip_norm", "evaluate_every", "patience", "checkpoint_every", "log_every",
            "num_samples",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")
            if value is not None and math.isinf(value):
                raise ValueError(f"{name} must be finite, got {value}")
        for name in ("warmup", "final_learning_rate", "reset_state"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        for name in ("weight_decay", "activation_penalty", "temporal_penalty", "window_jitter"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then a cosine."""
    warmup_steps = round(config.warmup * total_steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    low = config.final_learning_rate
    return config.learning_rate * (
        low + (1 - low) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
    )
