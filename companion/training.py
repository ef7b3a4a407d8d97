"""The training loop: truncated back-propagation through time over parallel streams.

The same loop runs on a laptop's CPU, on one GPU, and on many processes under
`accelerate launch`: Hugging Face Accelerate places the model, sets the precision and averages
gradients. Each process reads its own share of the streams.

Where a run stands is a function of the number of steps done, so a resumed run repeats exactly
the losses of one that never stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from companion import batching
from companion.checkpoints import Checkpoint, RunFolder, optimizer_tensors, restore_optimizer
from companion.evaluation import evaluate
from companion.lstm import LSTMLanguageModel, State, detach
from companion.objectives import summed_nats
from companion.runtime import PRECISIONS, make_accelerator, synchronize

if TYPE_CHECKING:
    from accelerate import Accelerator
    from jaxtyping import Int


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to do."""


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
    carry_state: bool = True
    """Start each window from the state the last one ended in; otherwise from zeros."""
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
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")
            if value is not None and math.isinf(value):
                raise ValueError(f"{name} must be finite, got {value}")
        for name in ("warmup", "final_learning_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be >= 0 and finite, got {self.weight_decay}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )


@dataclass(kw_only=True)
class Progress:
    """Where a run stands: plain numbers that a checkpoint carries."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Wall-clock seconds so far, over all resumptions."""
    best_nats_per_token: float | None = None
    """Lowest validation loss so far."""
    evaluations_since_best: int = 0
    """Validations since then."""
    unlogged_nats: float = 0.0
    """Training loss summed since the last record of it."""
    unlogged_targets: int = 0
    """Targets that sum is over."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came of a training run."""

    steps: int
    """Optimizer steps done."""
    total_steps: int
    """Optimizer steps planned."""
    seconds: float
    """Wall-clock seconds, over all resumptions."""
    tokens_per_second: float
    """Training targets a second in this call, validation left out."""
    best_nats_per_token: float | None
    """Lowest validation loss; None without a validation text."""
    stopped: str
    """Why it ended: "finished", "patience" or "interrupted"."""
    history: list[dict[str, Any]] = field(repr=False)
    """Records as in metrics.jsonl: step, learning rate, training and validation nats per token."""


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


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019), fused, with weight decay on matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)


def train(
    model: LSTMLanguageModel,
    ids: Int[Tensor, " total"],
    config: TrainConfig,
    *,
    valid_ids: Int[Tensor, " valid"] | None = None,
    run: RunFolder | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = False,
) -> TrainResult:
    """Train `model` in place on the text `ids`; the weights left in it are the last ones.

    With `run`, metrics and checkpoints are written there, and `resume` goes on from its newest
    checkpoint. Seeding and drawing the model's first weights is the caller's part.

    Ctrl-C ends training after the step in hand, with a checkpoint. Raises ValueError when the
    text is too short for the streams, and TrainingError when the loss stops being finite: then
    nothing is saved, and the checkpoint before it stands.
    """
    trainer = Trainer(model, ids, config, valid_ids=valid_ids, run=run, device=device)
    if resume:
        trainer.restore()
    return trainer.fit(progress=progress)


class Trainer:
    """The state of one training, and the loop over it. Use it through `train`."""

    def __init__(
        self,
        model: LSTMLanguageModel,
        ids: Int[Tensor, " total"],
        config: TrainConfig,
        *,
        valid_ids: Int[Tensor, " valid"] | None = None,
        run: RunFolder | None = None,
        device: str = "auto",
    ) -> None:
        self.config, self.valid_ids, self.run = config, valid_ids, run
        self.accelerator = make_accelerator(device, config.precision)
        self.own_streams = self._share_of_streams()
        data = batching.streams(ids, config.num_streams)[self.own_streams]
        self.data = data.to(self.accelerator.device)  # token ids are small: they live on the device
        self.num_windows = batching.num_windows(data, config.window_length)
        self.steps_per_epoch = math.ceil(self.num_windows / config.accumulation)
        self.total_steps = config.steps or math.ceil((config.epochs or 0) * self.steps_per_epoch)

        self.model = model.to(self.accelerator.device)
        self.optimizer = make_optimizer(model, config)
        self.wrapped, self.stepper = self.accelerator.prepare(self.model, self.optimizer)
        self.state: State | None = None
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        self.losses = _LossSum(self.accelerator.device)
        self._seconds_before = self._validation_seconds = 0.0

    def fit(self, *, progress: bool = False) -> TrainResult:
        """Train from where the run stands to its end, its patience, or Ctrl-C."""
        at, config = self.progress, self.config
        first_step, clock, stopped = at.step, time.perf_counter() - at.seconds, "finished"
        bar = tqdm(
            total=self.total_steps,
            initial=at.step,
            disable=not progress,
            unit="step",
            mininterval=1.0,
        )
        self.model.train()
        with _interruptible() as interrupted, bar:
            while at.step < self.total_steps:
                self.train_step()
                at.seconds = time.perf_counter() - clock
                bar.update()

                validated = self.valid_ids is not None and self._due(self.evaluate_every)
                if validated or self._due(config.log_every):
                    record = self.training_record()
                    if validated:
                        record |= self.validate()
                    self.write(record)
                    bar.set_postfix_str(_losses_in_words(record))

                if interrupted.is_set() and at.step < self.total_steps:
                    stopped = "interrupted"
                elif config.patience and at.evaluations_since_best >= config.patience:
                    stopped = "patience"
                if validated or stopped != "finished" or self._due(config.checkpoint_every):
                    self.save(best=validated and at.evaluations_since_best == 0)
                if stopped != "finished":
                    break
        synchronize(self.accelerator.device)
        self.model.eval()
        seconds = time.perf_counter() - clock
        training_seconds = seconds - self._seconds_before - self._validation_seconds
        return TrainResult(
            steps=at.step,
            total_steps=self.total_steps,
            seconds=seconds,
            tokens_per_second=(at.step - first_step) * self.targets_per_step / training_seconds,
            best_nats_per_token=at.best_nats_per_token,
            stopped=stopped,
            history=self.history,
        )

    def train_step(self) -> None:
        """One optimizer step: forward and backward over its windows, clip, update."""
        config, at = self.config, self.progress
        epoch_step = at.step % self.steps_per_epoch
        if epoch_step == 0:
            self.state = None  # the streams start over
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(at.step, self.total_steps, config)

        first = epoch_step * config.accumulation
        indices = range(first, min(first + config.accumulation, self.num_windows))
        for index in indices:
            batch = batching.window(self.data, index, config.window_length)
            with self._gradients_averaged(only_if=index == indices[-1]):
                logits, state = self.wrapped(batch.inputs, self.state)
                nats = summed_nats(logits, batch.targets)
                # Divided by a constant and not by the window's own length, each token weighs alike.
                self.accelerator.backward(nats / self.constant)
            self.state = detach(state) if config.carry_state else None
            self.losses.add(nats.detach(), batch.targets.numel())
        norm = self.accelerator.clip_grad_norm_(self.wrapped.parameters(), config.clip_norm)
        self.stepper.step()
        self.stepper.zero_grad()
        at.step += 1
        self.losses.watch(norm, at.step)

    def training_record(self) -> dict[str, Any]:
        """Mean training loss since the last record; the only place that waits for the device."""
        at = self.progress
        return {
            "step": at.step,
            "epoch": round(at.step / self.steps_per_epoch, 4),
            "seconds": round(at.seconds, 3),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_nats_per_token": self.losses.take(self.accelerator),
        }

    def validate(self) -> dict[str, Any]:
        """Loss on the whole validation text; remembers the lowest."""
        assert self.valid_ids is not None
        started = time.perf_counter()
        nats = evaluate(self.model, self.valid_ids).nats_per_token
        at = self.progress
        if at.best_nats_per_token is None or nats < at.best_nats_per_token:
            at.best_nats_per_token, at.evaluations_since_best = nats, 0
        else:
            at.evaluations_since_best += 1
        self._validation_seconds += time.perf_counter() - started
        return {"valid_nats_per_token": nats}

    def write(self, record: dict[str, Any]) -> None:
        """Keep a record, and add it to the run's metrics.jsonl."""
        self.history.append(record)
        if self.run is not None and self.accelerator.is_main_process:
            self.run.append_metrics(record)

    def save(self, *, best: bool) -> None:
        """Write a checkpoint of everything that `restore` needs, unless the loss went wrong."""
        if self.run is None:
            return
        at = self.progress
        self.losses.check()
        at.unlogged_nats, at.unlogged_targets = self.losses.sums()
        tensors = optimizer_tensors(self.model, self.optimizer)
        tensors["rng.cpu"] = torch.get_rng_state()
        if self.accelerator.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        if self.state is not None:
            hidden, cell = (self._gather_streams(part) for part in self.state)
            tensors |= {"state.hidden": hidden, "state.cell": cell}
        if self.accelerator.is_main_process:
            checkpoint = Checkpoint(
                step=at.step,
                model=self.model.state_dict(),
                training=tensors,
                counters=dataclasses.asdict(at),
            )
            self.run.save(checkpoint, best=best)
        self.accelerator.wait_for_everyone()

    def restore(self) -> None:
        """Go back to the run's newest whole checkpoint; stay at the start when there is none."""
        if self.run is None:
            raise ValueError("resume needs the run to resume, got run=None")
        checkpoint = self.run.latest()
        if checkpoint is None:
            return
        tensors = checkpoint.training
        self.progress = Progress(**checkpoint.counters)
        self.model.load_state_dict(dict(checkpoint.model))
        restore_optimizer(self.model, self.optimizer, tensors)
        torch.set_rng_state(tensors["rng.cpu"])
        if "rng.cuda" in tensors and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        if "state.hidden" in tensors:
            hidden, cell = (
                tensors[name][:, self.own_streams].to(self.accelerator.device).contiguous()
                for name in ("state.hidden", "state.cell")
            )
            self.state = hidden, cell
        self.losses.put(self.progress.unlogged_nats, self.progress.unlogged_targets)
        self._seconds_before = self.progress.seconds
        if self.accelerator.is_main_process:
            self.history = self.run.rewind_metrics(self.progress.step)

    @property
    def evaluate_every(self) -> int:
        """Steps between validations."""
        return self.config.evaluate_every or self.steps_per_epoch

    @property
    def targets_per_step(self) -> int:
        """Targets of a full optimizer step, over all processes."""
        return self.config.num_streams * self.config.window_length * self.config.accumulation

    @property
    def constant(self) -> int:
        """What this process divides its summed loss by: its own share of a full step's targets."""
        processes: int = self.accelerator.num_processes
        return self.targets_per_step // processes

    def _due(self, every: int | None) -> bool:
        step = self.progress.step
        return step == self.total_steps or (every is not None and step % every == 0)

    def _share_of_streams(self) -> slice:
        processes, streams = self.accelerator.num_processes, self.config.num_streams
        if streams % processes:
            raise ValueError(
                f"num_streams must be a multiple of the {processes} processes, got {streams}"
            )
        share = streams // processes
        first = self.accelerator.process_index * share
        return slice(first, first + share)

    def _gather_streams(self, part: Tensor) -> Tensor:
        gathered: Tensor = self.accelerator.gather(part.transpose(0, 1).contiguous())
        return gathered.transpose(0, 1).contiguous()

    def _gradients_averaged(self, *, only_if: bool) -> contextlib.AbstractContextManager[Any]:
        """Between the windows of one step, processes need not exchange gradients."""
        if only_if:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self.accelerator.no_sync(self.wrapped)
        return context


class _LossSum:
    """Sums of the training loss, kept on the device so that a step never waits for a number."""

    def __init__(self, device: torch.device) -> None:
        self.nats = torch.zeros((), dtype=torch.float32, device=device)
        self.targets = 0
        self.first_bad_step = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, nats: Tensor, targets: int) -> None:
        self.nats += nats
        self.targets += targets

    def watch(self, norm: Tensor | None, step: int) -> None:
        """Note `step` if the loss, or the gradient's length, is not a finite number."""
        finite = torch.isfinite(self.nats)
        if norm is not None:
            finite &= torch.isfinite(norm)
        bad = ~finite & (self.first_bad_step == 0)
        self.first_bad_step += bad * step

    def check(self) -> None:
        """Raise TrainingError when a step went wrong."""
        step = int(self.first_bad_step)
        if step:
            raise TrainingError(
                f"the loss or its gradient stopped being a finite number at step {step}; nothing "
                "was saved since: lower learning_rate or clip_norm and train again"
            )

    def take(self, accelerator: Accelerator) -> float:
        """Nats per token over all processes since the last call; starts again from zero."""
        self.check()
        sums = torch.stack([self.nats.double(), torch.full_like(self.nats, self.targets).double()])
        nats, targets = accelerator.reduce(sums, reduction="sum").tolist()
        self.nats.zero_()
        self.targets = 0
        return float(nats / targets)

    def sums(self) -> tuple[float, int]:
        return float(self.nats), self.targets

    def put(self, nats: float, targets: int) -> None:
        self.nats.fill_(nats)
        self.targets = targets


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Let the first Ctrl-C set the event, so that the step in hand can end; a second one raises."""
    interrupted = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread may handle signals
        return
    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def _losses_in_words(record: dict[str, Any]) -> str:
    words = f"train {record['train_nats_per_token']:.3f}"
    if "valid_nats_per_token" in record:
        words += f", valid {record['valid_nats_per_token']:.3f}"
    return words + " nats/token"
