"""Settings of a training; the schedule itself is in `companion.training.optimization`."""

from __future__ import annotations

import math

from companion.core.runtime import Precision
from companion.core.settings import check_choice, settings_class
from companion.losses.training_loss import Loss


@settings_class
class TrainConfig:
    """Settings for training a language model by truncated back-propagation through time (BPTT).

    The text is cut into `num_streams` parallel streams, the batch; each window is `window_length`
    tokens of every stream, the BPTT length.
    """

    epochs: float | None = None
    """Passes over the training text; give this or `steps`."""
    steps: int | None = None
    """Optimizer steps; give this or `epochs`."""
    num_streams: int = 32
    """Batch size: the number of parallel streams, over all processes."""
    window_length: int = 64
    """BPTT length: tokens of each stream in a window; gradients flow back no further."""
    accumulation: int = 1
    """Windows whose gradients are summed for one optimizer step."""
    learning_rate: float = 4e-3
    """Peak learning rate of AdamW."""
    betas: tuple[float, float] = (0.9, 0.99)
    """AdamW's decay rates of the first and second moment."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, applied to matrices but not to biases."""
    l2: float = 0.0
    """Weight of half the squared weights, whose gradient is added before Adam divides by its size
    (not decoupled); give this or `weight_decay`."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises linearly to its peak."""
    flat: float = 0.0
    """Share of the steps, after the warm-up, in which the learning rate stays at its peak."""
    final_learning_rate: float = 0.01
    """Learning rate at the last step, as a share of the peak; it falls as a cosine."""
    clip_norm: float = 1.0
    """Maximum gradient norm; longer gradients are scaled down to it."""
    loss: Loss = "full"
    """full, chunked (the same without storing all logits) or sampled (an estimate, for large
    vocabularies). Validation always uses the full softmax."""
    num_samples: int = 1024
    """Tokens drawn for each window by the sampled loss."""
    unigram_bias: bool = False
    """Start the output bias at the logarithm of each token's share of the training text."""
    activation_penalty: float = 0.0
    """Weight of the mean square of the last layer's outputs (AR, Merity et al. 2018)."""
    temporal_penalty: float = 0.0
    """Weight of the mean square of the change of these outputs between neighbouring tokens (TAR,
    Merity et al. 2018)."""
    window_jitter: float = 0.0
    """Standard deviation, in tokens, of the ends of windows; above zero, windows differ in length,
    and differ between epochs."""
    carry_state: bool = True
    """Start each window from the final state of the one before; otherwise from zeros."""
    reset_state: float = 0.0
    """Probability that a stream starts a window from zeros even so, so that the model also learns
    to begin a text."""
    evaluate_every: int | None = None
    """Steps between validations; None means every `evaluate_epochs`. The last step is always
    validated."""
    evaluate_epochs: float = 1.0
    """Epochs between validations where `evaluate_every` is None."""
    patience: int | None = None
    """Stop after this many validations in a row without a new lowest loss; None means never."""
    checkpoint_every: int | None = None
    """Steps between checkpoints, in addition to one at every validation; None adds none."""
    log_every: int = 50
    """Steps between records of the training loss."""
    precision: Precision = "fp32"
    """fp32, bf16 or fp16 (automatic mixed precision on CUDA; weights stay fp32). For an LSTM take
    fp16: cuDNN's LSTM runs in fp16 under either, and only fp16 scales the loss so that its
    gradients survive."""

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"give either epochs or steps, got epochs={self.epochs}, steps={self.steps}"
            )
        for name in (
            "epochs", "steps", "num_streams", "window_length", "accumulation", "learning_rate",
            "clip_norm", "evaluate_every", "evaluate_epochs", "patience", "checkpoint_every",
            "log_every", "num_samples",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")
            if value is not None and math.isinf(value):
                raise ValueError(f"{name} must be finite, got {value}")
        for name in ("warmup", "flat", "final_learning_rate", "reset_state"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if self.warmup + self.flat > 1:
            raise ValueError(
                f"warmup and flat are shares of the same steps, together at most 1, got "
                f"{self.warmup} and {self.flat}"
            )
        if self.l2 and self.weight_decay:
            raise ValueError(
                f"give either l2 or weight_decay, got l2={self.l2}, "
                f"weight_decay={self.weight_decay}"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        for name in (
            "weight_decay", "l2", "activation_penalty", "temporal_penalty", "window_jitter",
        ):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        check_choice("loss", self.loss, Loss)
        check_choice("precision", self.precision, Precision)
