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
import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from companion import batching
from companion.checkpoints import (
    Checkpoint,
    CheckpointError,
    RunFolder,
    optimizer_tensors,
    restore_optimizer,
)
from companion.evaluation import summed_nats_of_rows
from companion.lstm import LSTMLanguageModel, State, detach
from companion.objectives import DIVERGED, NoiseSampler, TrainingLoss
from companion.recipe import TrainConfig as TrainConfig
from companion.recipe import learning_rate_at as learning_rate_at
from companion.runtime import make_accelerator, out_of_memory, synchronize
from companion.watch import Watch

if TYPE_CHECKING:
    from accelerate import Accelerator
    from jaxtyping import Int


#: Parallel pieces in which the validation text is scored, whatever the number of processes.
VALIDATION_STREAMS = 32
#: What it means to diverge, in words.
DIVERGENCE = (
    f"its loss rose above {DIVERGED} times that of a uniform guess and of its own start, or it or "
    "its gradient is no finite number"
)


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to do."""


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


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What came of a training run."""

    steps: int
    """Optimizer steps done."""
    total_steps: int
    """Optimizer steps planned."""
    new_steps: int
    """Optimizer steps done in this call: none where a run that has ended is resumed."""
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


def share_of_streams(num_streams: int, accelerator: Accelerator) -> slice:
    """The streams that this process reads; ValueError when they cannot be shared out evenly."""
    processes = accelerator.num_processes
    if num_streams % processes:
        raise ValueError(
            f"num_streams must be a multiple of the {processes} processes, got {num_streams}"
        )
    share = num_streams // processes
    first = accelerator.process_index * share
    return slice(first, first + share)


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
    on_record: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train `model` in place on the text `ids`; the weights left in it are the last ones.

    With `run`, metrics and checkpoints are written there, and `resume` goes on from its newest
    checkpoint. Seeding and drawing the model's first weights is the caller's part. `on_record` is
    called with each record of metrics; what it raises ends the training.

    Ctrl-C ends training after the step in hand, with a checkpoint. Raises ValueError when the
    text is too short for the streams, and TrainingError when memory runs out or the loss diverges
    (`objectives.divergence_limit`): then nothing is saved, the checkpoint before it stands, and
    failed-step.json in the run's folder holds the batch that did it.
    """
    trainer = Trainer(
        model, ids, config, valid_ids=valid_ids, run=run, device=device, on_record=on_record
    )
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
        on_record: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.config, self.valid_ids, self.run, self.on_record = config, valid_ids, run, on_record
        self.accelerator = make_accelerator(device, config.precision)
        self.seed = torch.initial_seed()
        if self.accelerator.process_index:  # or all processes would drop the same activations
            torch.manual_seed(self.seed + self.accelerator.process_index)
        self.own_streams = share_of_streams(config.num_streams, self.accelerator)
        data = batching.streams(ids, config.num_streams)[self.own_streams]
        self.data = data.to(self.accelerator.device)  # token ids are small: they live on the device
        self.num_windows = batching.num_windows(data, config.window_length)
        self.steps_per_epoch = math.ceil(self.num_windows / config.accumulation)
        self.total_steps = config.steps or math.ceil((config.epochs or 0) * self.steps_per_epoch)

        with self._memory_watched():
            self.model = model.to(self.accelerator.device)
            loss = self._training_loss(ids)
        self.optimizer = make_optimizer(model, config)
        self.loss, self.stepper = self.accelerator.prepare(loss, self.optimizer)
        self.state: State | None = None
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        self.watch = Watch(self.accelerator, model.config.vocabulary_size)
        self._cuts: tuple[int, list[int]] = -1, []
        self._seconds_before = self._validation_seconds = 0.0

    def fit(self, *, progress: bool = False) -> TrainResult:
        """Train from where the run stands to its end, its patience, or Ctrl-C."""
        at, config = self.progress, self.config
        first_step, clock = at.step, time.perf_counter() - at.seconds
        stopped = "patience" if self.out_of_patience else "finished"
        bar = tqdm(
            total=self.total_steps,
            initial=at.step,
            disable=not (progress and self.accelerator.is_main_process)
            or stopped != "finished"
            or at.step >= self.total_steps,
            unit="step",
            mininterval=1.0,
        )
        self.model.train()
        with _interruptible() as interrupted, self._memory_watched(), bar:
            while at.step < self.total_steps and stopped == "finished":
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
                elif self.out_of_patience:
                    stopped = "patience"
                if validated or stopped != "finished" or self._due(config.checkpoint_every):
                    self.save(best=validated and at.evaluations_since_best == 0)
        synchronize(self.accelerator.device)
        self.model.eval()
        seconds = time.perf_counter() - clock
        training_seconds = seconds - self._seconds_before - self._validation_seconds
        return TrainResult(
            steps=at.step,
            total_steps=self.total_steps,
            new_steps=at.step - first_step,
            seconds=seconds,
            tokens_per_second=(at.step - first_step) * self.targets_per_step / training_seconds,
            best_nats_per_token=at.best_nats_per_token,
            stopped=stopped,
            history=self.history,
        )

    def train_step(self) -> None:
        """One optimizer step: forward and backward over its windows, clip, update.

        Every `log_every` steps, and after the last, it looks whether one went wrong: see `check`.
        """
        config, at = self.config, self.progress
        windows = self.windows_of(at.step)
        if windows[0][0] == 0:
            self.state = None  # the streams start over
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(at.step, self.total_steps, config)

        for start, stop in windows:
            batch = batching.span(self.data, start, stop)
            with self._gradients_averaged(only_if=stop == windows[-1][1]):
                loss, nats, state = self.loss(batch.inputs, batch.targets, self.state)
                # Divided by a constant and not by the window's own length, each token weighs alike.
                self.accelerator.backward(loss / self.constant)
            self.state = self._state_to_carry(state)
            self.watch.add(nats, batch.targets.numel())
        norm = self.accelerator.clip_grad_norm_(self.loss.parameters(), config.clip_norm)
        self.stepper.step()
        self.stepper.zero_grad()
        at.step += 1
        self.watch.step_done(norm)
        if self._due(config.log_every):
            self.check()

    def windows_of(self, step: int) -> list[tuple[int, int]]:
        """Where the windows of optimizer step `step` (from 0) begin and end in the streams."""
        epoch, epoch_step = divmod(step, self.steps_per_epoch)
        if self._cuts[0] != epoch:
            self._cuts = epoch, self._cuts_of(epoch)
        first = epoch_step * self.config.accumulation
        edges = self._cuts[1][first : first + self.config.accumulation + 1]
        return list(itertools.pairwise(edges))

    def training_record(self) -> dict[str, Any]:
        """Means since the last record; the only place that waits for the device."""
        at = self.progress
        self.check()
        nats, norm = self.watch.take()
        return {
            "step": at.step,
            "epoch": round(at.step / self.steps_per_epoch, 4),
            "seconds": round(at.seconds, 3),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "train_nats_per_token": nats,
            "gradient_norm": norm,
        }

    def check(self) -> None:
        """Raise TrainingError, and write down the batch, when a step since the last record failed.

        Under fp16 a gradient too large for its scale is part of the method, and not a failure.
        """
        ago = self.watch.first_failure(gradients=self.accelerator.scaler is None)
        if ago is None:
            return
        step = self.progress.step - ago
        where = "give it a run folder to have its batch written down"
        if self.run is not None:
            where = f"its batch is in {self.run.path / 'failed-step.json'}"
            if self.accelerator.is_main_process:
                self.run.write_failure(
                    {
                        "step": step,
                        "windows": [
                            {
                                "start": start,
                                "stop": stop,
                                "ids": self.data[:, start : stop + 1].tolist(),
                            }
                            for start, stop in self.windows_of(step - 1)
                        ],
                    }
                )
        raise TrainingError(
            f"training diverged at step {step}: {DIVERGENCE}; nothing was saved since, and "
            f"{where}: lower learning_rate or clip_norm and train again"
        )

    def validate(self) -> dict[str, Any]:
        """Loss on the whole validation text, each process scoring its share; remembers the best."""
        assert self.valid_ids is not None
        started = time.perf_counter()
        rows = batching.scoring_streams(self.valid_ids, VALIDATION_STREAMS)
        own = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        share = batching.Batch(inputs=rows.inputs[own], targets=rows.targets[own])
        summed = summed_nats_of_rows(self.model, share)
        total = self.accelerator.reduce(summed.to(self.accelerator.device), reduction="sum")
        nats = float(total) / (self.valid_ids.numel() - 1)
        at = self.progress
        if self.watch.beyond(torch.tensor(nats, dtype=torch.float64)):
            raise TrainingError(
                f"training diverged at step {at.step}, as its validation shows: {DIVERGENCE}; "
                "lower learning_rate or clip_norm and train again"
            )
        if at.best_nats_per_token is None or nats < at.best_nats_per_token:
            at.best_nats_per_token, at.evaluations_since_best = nats, 0
        else:
            at.evaluations_since_best += 1
        self._validation_seconds += time.perf_counter() - started
        return {"valid_nats_per_token": nats}

    def write(self, record: dict[str, Any]) -> None:
        """Keep a record, add it to the run's metrics.jsonl, and tell who listens."""
        self.history.append(record)
        if self.run is not None and self.accelerator.is_main_process:
            self.run.append_metrics(record)
        if self.on_record is not None:
            self.on_record(record)

    def save(self, *, best: bool) -> None:
        """Write a checkpoint of everything that `restore` needs, unless the loss went wrong."""
        if self.run is None:
            return
        at = self.progress
        self.check()
        tensors = optimizer_tensors(self.model, self.optimizer)
        tensors |= {f"watch.{name}": value for name, value in self.watch.tensors().items()}
        tensors["rng.cpu"] = self._from_all(torch.get_rng_state())
        if self.accelerator.device.type == "cuda":
            tensors["rng.cuda"] = self._from_all(torch.cuda.get_rng_state())
        if self.accelerator.scaler is not None:
            scale = self.accelerator.scaler.state_dict()
            tensors |= {f"scaler.{name}": torch.as_tensor(value) for name, value in scale.items()}
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
        """Go back to the run's newest whole checkpoint; stay at the start when there is none.

        CheckpointError when another version saved it, which counts other things.
        """
        if self.run is None:
            raise ValueError("resume needs the run to resume, got run=None")
        checkpoint = self.run.latest()
        if checkpoint is None:
            if self.accelerator.is_main_process:
                self.run.rewind_metrics(0)  # the steps before the first checkpoint are done again
            return
        tensors = checkpoint.training
        try:
            self.progress = Progress(**checkpoint.counters)
        except TypeError:
            raise CheckpointError(
                f"the checkpoints of {self.run.path} are of another version of companion, and this "
                "one cannot go on with them; evaluate and generate can read them, or train the run "
                "anew with --overwrite"
            ) from None
        self.model.load_state_dict(dict(checkpoint.model))
        restore_optimizer(self.model, self.optimizer, tensors)
        rank = self.accelerator.process_index
        # Clones: torch 2.13 reads a row of a larger tensor as if it began where that one does, and
        # every process but the first dies of it.
        if rank < len(tensors["rng.cpu"]):
            torch.set_rng_state(tensors["rng.cpu"][rank].clone())
        if self.accelerator.device.type == "cuda" and rank < len(tensors.get("rng.cuda", ())):
            torch.cuda.set_rng_state(tensors["rng.cuda"][rank].clone())
        if self.accelerator.scaler is not None and "scaler.scale" in tensors:
            names = self.accelerator.scaler.state_dict()
            self.accelerator.scaler.load_state_dict(
                {name: tensors[f"scaler.{name}"].item() for name in names}
            )
        if "state.hidden" in tensors:
            hidden, cell = (
                tensors[name][:, self.own_streams].to(self.accelerator.device).contiguous()
                for name in ("state.hidden", "state.cell")
            )
            self.state = hidden, cell
        self.watch.put(tensors)
        self._seconds_before = self.progress.seconds
        if self.accelerator.is_main_process:
            self.history = self.run.rewind_metrics(self.progress.step)

    @property
    def evaluate_every(self) -> int:
        """Steps between validations."""
        return self.config.evaluate_every or self.steps_per_epoch

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation loss has not fallen for as long as `patience` allows."""
        patience = self.config.patience
        return patience is not None and self.progress.evaluations_since_best >= patience

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

    def _gather_streams(self, part: Tensor) -> Tensor:
        gathered: Tensor = self.accelerator.gather(part.transpose(0, 1).contiguous())
        return gathered.transpose(0, 1).contiguous()

    def _from_all(self, part: Tensor) -> Tensor:
        """`part` of every process, one row each."""
        gathered: Tensor = self.accelerator.gather(part.to(self.accelerator.device).unsqueeze(0))
        return gathered.cpu()

    def _state_to_carry(self, state: State) -> State | None:
        """What the next window starts from."""
        if not self.config.carry_state:
            return None
        hidden, cell = detach(state)
        if self.config.reset_state:
            kept = torch.rand(hidden.shape[1], 1, device=hidden.device) >= self.config.reset_state
            hidden, cell = hidden * kept, cell * kept
        return hidden, cell

    def _cuts_of(self, epoch: int) -> list[int]:
        """Where this epoch's windows end: every `window_length` tokens, or jittered about that."""
        total, length = self.data.shape[1] - 1, self.config.window_length
        if not self.config.window_jitter:
            return [*range(0, total, length), total]
        generator = torch.Generator().manual_seed((self.seed + 1_000_003 * epoch) % 2**63)
        return batching.jittered_cuts(total, length, self.config.window_jitter, generator)

    def _training_loss(self, ids: Tensor) -> TrainingLoss:
        config, output = self.config, self.model.output
        noise = None
        if config.loss == "sampled" or config.unigram_bias:
            counts = torch.bincount(ids, minlength=self.model.config.vocabulary_size)
            noise = NoiseSampler(counts).to(self.accelerator.device)
            if config.unigram_bias and isinstance(output, nn.Linear):
                shares = counts.clamp(min=1).double() / ids.numel()
                output.bias.data.copy_(shares.log())
        return TrainingLoss(
            self.model,
            config.loss,
            noise=noise,
            num_samples=config.num_samples,
            activation_penalty=config.activation_penalty,
            temporal_penalty=config.temporal_penalty,
        )

    @contextlib.contextmanager
    def _memory_watched(self) -> Iterator[None]:
        """Say what to lower when memory runs out."""
        try:
            yield
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            config, size = self.config, self.model.config.hidden_size
            raise TrainingError(
                f"device {self.accelerator.device.type} has not enough memory for this model and "
                f"batch; lower train.num_streams (now {config.num_streams}), train.window_length "
                f"({config.window_length}) or model.hidden_size ({size})"
                + (", or try train.loss=chunked" if config.loss == "full" else "")
            ) from error

    def _gradients_averaged(self, *, only_if: bool) -> contextlib.AbstractContextManager[Any]:
        """Between the windows of one step, processes need not exchange gradients."""
        if only_if:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self.accelerator.no_sync(self.loss)
        return context


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
