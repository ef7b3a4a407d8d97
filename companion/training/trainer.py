"""The training loop: truncated back-propagation through time over parallel streams.

The same loop runs on a laptop's CPU, on one GPU, and on many processes under
`accelerate launch`: Hugging Face Accelerate places the model, sets the precision and averages
gradients. Each process reads its own share of the streams.

The position in the text and the learning rate depend only on the number of steps done: on a CPU a
resumed run repeats exactly the losses of a run that never stopped. On a GPU the same is saved, but
kernels may add in another order, and cuDNN keeps random numbers of its own for dropout between the
layers of `nn.LSTM`; a test for it is written and has not been run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from companion.core.files import FileError
from companion.core.runtime import (
    Precision,
    interruptible,
    lstm_dtype,
    make_accelerator,
    out_of_memory,
    sum_over_processes,
    synchronize,
)
from companion.core.seeds import make_generator
from companion.core.settings import check_type
from companion.evaluation.scoring import summed_nats_of_rows
from companion.losses.cross_entropy import DIVERGED
from companion.losses.large_vocabulary import NoiseSampler
from companion.losses.training_loss import TrainingLoss
from companion.models.base import LanguageModel, State, detach, state_parts
from companion.models.lstm import LSTMLanguageModel
from companion.text import batching
from companion.training.checkpoints import (
    Checkpoint,
    RunFolder,
    optimizer_tensors,
    restore_optimizer,
)
from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at, make_optimizer
from companion.training.running_metrics import RunningMetrics

if TYPE_CHECKING:
    from accelerate import Accelerator
    from jaxtyping import Int


#: Parallel streams in which the validation text is scored, for any number of processes.
VALIDATION_STREAMS = 32
#: Explanation of divergence for error messages.
DIVERGENCE = (
    f"its loss rose above {DIVERGED} times that of a uniform guess and of its own start, or it or "
    "its gradient is not finite"
)
#: Steps in a row whose gradient may overflow in fp16. Each halves the scale of the loss, 65,536 at
#: first; if it still overflows then, loss scaling cannot help.
MOST_OVERFLOWS = 49
#: All steps of so short a training may overflow; of a longer one, one at least has to be finite.
SHORT_TRAINING = 19


class TrainingError(RuntimeError):
    """Training cannot continue; the message gives the reason and what to change."""


@dataclass(kw_only=True)
class Progress:
    """Progress of a run, as plain numbers that are stored in checkpoints."""

    step: int = 0
    """Optimizer steps done."""
    seconds: float = 0.0
    """Wall-clock seconds of training so far, before and after resuming."""
    best_nats_per_token: float | None = None
    """Lowest validation loss so far, in nats per token; None before the first validation."""
    evaluations_since_best: int = 0
    """Validations since the one with the lowest loss."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The result of a training run."""

    steps: int
    """Optimizer steps done."""
    total_steps: int
    """Optimizer steps planned."""
    new_steps: int
    """Optimizer steps done in this call; 0 if a finished run was resumed."""
    seconds: float
    """Wall-clock seconds of training, before and after resuming."""
    tokens_per_second: float
    """Training targets per second in this call, without the time for validation."""
    best_nats_per_token: float | None
    """Lowest validation loss, in nats per token; None without a validation text."""
    stopped: str
    """Why it ended: "finished", "patience" or "interrupted"."""
    history: list[dict[str, Any]] = field(repr=False)
    """Records as in metrics.jsonl: step, learning rate, training and validation nats per token."""


def share_of_streams(num_streams: int, accelerator: Accelerator) -> slice:
    """The streams that this process reads; ValueError when they cannot be divided evenly."""
    processes = accelerator.num_processes
    if num_streams % processes:
        raise ValueError(
            f"num_streams must be a multiple of the {processes} processes, got {num_streams}"
        )
    share = num_streams // processes
    first = accelerator.process_index * share
    return slice(first, first + share)


def train(
    model: LanguageModel,
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
    """Train `model` in place on the text `ids`; it ends with its last weights, not its best ones.

    Any `LanguageModel` with weights can be trained. A Transformer's state grows with the text, so
    it needs `carry_state=False` and windows within its `max_length`, and reads the validation text
    in such windows too, each from an empty state.

    With `run`, metrics and checkpoints are written to its folder, and `resume` continues from its
    newest checkpoint. The caller sets the seed and initialises the model. `on_record` is called
    with each record of metrics; an exception in it ends the training.

    Ctrl-C ends training after the current step: with `run` it saves a checkpoint and returns,
    without it raises KeyboardInterrupt. Raises ValueError when the text is too short for the
    streams or holds other tokens than the model's, when `patience` has no validation text to
    watch, and when the model cannot be trained so; and TrainingError when memory runs out or the
    loss diverges (`cross_entropy.divergence_limit`). After divergence nothing more is saved,
    earlier checkpoints remain, and failed-step.json in the run's folder holds the batch of the
    failed step.
    """
    trainer = Trainer(
        model, ids, config, valid_ids=valid_ids, run=run, device=device, on_record=on_record
    )
    if resume:
        trainer.restore()
    return trainer.fit(progress=progress)


class Trainer:
    """The state of one training, and its loop. Most callers need only `train`."""

    def __init__(
        self,
        model: LanguageModel,
        ids: Int[Tensor, " total"],
        config: TrainConfig,
        *,
        valid_ids: Int[Tensor, " valid"] | None = None,
        run: RunFolder | None = None,
        device: str = "auto",
        on_record: Callable[[dict[str, Any]], None] | None = None,
        loss: nn.Module | None = None,
    ) -> None:
        """`loss` takes the place of `TrainingLoss(model, ...)`, and has the same `forward`."""
        _check_trainable(model, config)
        if loss is not None and (
            config.loss != "full" or config.activation_penalty or config.temporal_penalty
        ):
            raise ValueError(
                "a loss of your own takes the place of config's; leave loss, activation_penalty "
                "and temporal_penalty of the config at their defaults"
            )
        if run is not None:
            check_type("run", run, RunFolder, "RunFolder.create(path, record) makes one")
        model.require_tokens(ids, "ids", ndim=1)
        if valid_ids is None:
            if config.patience is not None:
                raise ValueError(
                    f"patience ({config.patience}) counts validations, and there is no validation "
                    "text; give valid_ids, or leave patience at None"
                )
        else:
            model.require_tokens(valid_ids, "valid_ids", ndim=1)
            if valid_ids.numel() < 2:
                raise ValueError("valid_ids needs two tokens or more, got 1; None skips validation")
        self.config, self.valid_ids, self.run, self.on_record = config, valid_ids, run, on_record
        self.accelerator = make_accelerator(
            device, config.precision, unused_weights=_may_leave_weights_unused(model)
        )
        self.seed = torch.initial_seed()
        _check_precision_of(model, config.precision, self.accelerator.device)
        if self.accelerator.process_index:  # otherwise dropout masks are the same in all processes
            torch.manual_seed(self.seed + self.accelerator.process_index)
        self.own_streams = share_of_streams(config.num_streams, self.accelerator)
        data = batching.streams(ids, config.num_streams)[self.own_streams]
        self.data = data.to(self.accelerator.device)  # token ids are small: they live on the device
        self.num_windows = batching.num_windows(data, config.window_length)
        self.steps_per_epoch = math.ceil(self.num_windows / config.accumulation)
        self.total_steps = config.steps or math.ceil((config.epochs or 0) * self.steps_per_epoch)

        with self._memory_watched():
            self.model = model.to(self.accelerator.device)
            loss = self._training_loss(ids) if loss is None else loss.to(self.accelerator.device)
        self.optimizer = make_optimizer(model, config)
        self.loss, self.stepper = self.accelerator.prepare(loss, self.optimizer)
        self.state: State | None = None
        self.progress = Progress()
        self.history: list[dict[str, Any]] = []
        self.watch = RunningMetrics(self.accelerator, model.vocabulary_size)
        self._cuts: tuple[int, list[int]] = -1, []
        self._seconds_before = self._validation_seconds = 0.0
        self._own_targets = 0

    def fit(self, *, progress: bool = False) -> TrainResult:
        """Train until all steps are done, patience runs out, or Ctrl-C."""
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
        with interruptible() as interrupted, self._memory_watched(), bar:
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
        if interrupted.is_set() and self.run is None:
            raise KeyboardInterrupt  # nothing is saved to go on from, and the model is half trained
        seconds = time.perf_counter() - clock
        training_seconds = seconds - self._seconds_before - self._validation_seconds
        return TrainResult(
            steps=at.step,
            total_steps=self.total_steps,
            new_steps=at.step - first_step,
            seconds=seconds,
            tokens_per_second=self.targets_done / training_seconds,
            best_nats_per_token=at.best_nats_per_token,
            stopped=stopped,
            history=self.history,
        )

    def steps(self, count: int | None = None) -> Iterator[int]:
        """Take `count` optimizer steps (by default all that remain), and after each yield how many
        are done: for loops that do something between steps.

        Raises TrainingError when memory runs out or a step failed; failures are looked for every
        `log_every` steps and after the last of these steps.
        """
        left = self.total_steps - self.progress.step
        for _ in range(left if count is None else min(count, left)):
            self.model.train()
            with self._memory_watched():
                self.train_step()
            yield self.progress.step
        self.check()

    def train_step(self) -> None:
        """One optimizer step: forward and backward over its windows, clip, update.

        Every `log_every` steps, and after the last step of the training, it calls `check`. To write
        your own loop, iterate over `steps` instead.
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
                # Divide by a constant, not the window's length, so that all tokens weigh the same.
                self.accelerator.backward(loss / self.constant)
            self.state = self._state_to_carry(state)
            self.watch.add(nats, batch.targets.numel())
            self._own_targets += batch.targets.numel()
        norm = self.accelerator.clip_grad_norm_(self.loss.parameters(), config.clip_norm)
        self.stepper.step()
        self.stepper.zero_grad()
        at.step += 1
        self.watch.step_done(norm)
        if self._due(config.log_every):
            self.check()

    def windows_of(self, step: int) -> list[tuple[int, int]]:
        """Start and end, in the streams, of each window of optimizer step `step` (from 0)."""
        epoch, epoch_step = divmod(step, self.steps_per_epoch)
        if self._cuts[0] != epoch:
            self._cuts = epoch, self._cuts_of(epoch)
        first = epoch_step * self.config.accumulation
        edges = self._cuts[1][first : first + self.config.accumulation + 1]
        return list(itertools.pairwise(edges))

    def training_record(self) -> dict[str, Any]:
        """Mean loss and gradient norm since the last record; reading them waits for the device.

        The norm is None where in fp16 no step's was finite.
        """
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
        """Raise TrainingError, and save the batch, if a step since the last record failed.

        With fp16, gradients that overflow are part of loss scaling, and a failure only at each of
        `MOST_OVERFLOWS` steps and one more, or at all steps of a training of more than
        `SHORT_TRAINING`.
        """
        ago = self.watch.first_failure(overflows=self.overflows_allowed)
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
            + (", or train in fp32" if self.overflows_allowed else "")
        )

    def validate(self) -> dict[str, Any]:
        """Loss on the whole validation text, of which each process scores a share; updates the best
        loss and `evaluations_since_best`."""
        assert self.valid_ids is not None
        started = time.perf_counter()
        summed = torch.zeros((), dtype=torch.float64)
        for share in self._validation_rows(self.valid_ids):
            summed += summed_nats_of_rows(self.model, share)
        (total,) = sum_over_processes(self.accelerator, summed.unsqueeze(0))
        nats = total / (self.valid_ids.numel() - 1)
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
        """Add a record to the history and to the run's metrics.jsonl, and call `on_record`."""
        self.history.append(record)
        if self.run is not None and self.accelerator.is_main_process:
            self.run.append_metrics(record)
        if self.on_record is not None:
            self.on_record(record)

    def save(self, *, best: bool) -> None:
        """Write a checkpoint for `restore`; TrainingError if a step failed."""
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
            parts = map(self._gather_streams, state_parts(self.state))
            tensors |= {f"state.{number}": part for number, part in enumerate(parts)}
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
        """Load the run's newest undamaged checkpoint; stay at the start if there is none.

        Raises FileError when the checkpoint is from another version, with other contents.
        """
        if self.run is None:
            raise ValueError("resume needs the run to resume, got run=None")
        checkpoint = self.run.latest()
        if checkpoint is None:
            if self.accelerator.is_main_process:
                self.run.rewind_metrics(0)  # training starts over, and writes all records again
            return
        tensors = checkpoint.training
        counters = {field.name for field in dataclasses.fields(Progress)}
        if not counters.issuperset(checkpoint.counters) or "state.hidden" in tensors:
            raise FileError(
                f"the checkpoints of {self.run.path} are of another version of companion, and this "
                "one cannot go on with them; evaluate and generate can read them, or train the run "
                "anew with overwrite=True (on the command line: --overwrite)"
            )
        self.progress = Progress(**checkpoint.counters)
        try:
            self.model.load_state_dict(dict(checkpoint.model))
        except RuntimeError as error:
            raise FileError(
                f"the weights in {self.run.path} do not fit the model in its run.json: {error}"
            ) from error
        restore_optimizer(self.model, self.optimizer, tensors)
        rank = self.accelerator.process_index
        # Clones: torch 2.13 ignores the storage offset of a row, so without them every process but
        # the first would crash.
        if rank < len(tensors["rng.cpu"]):
            torch.set_rng_state(tensors["rng.cpu"][rank].clone())
        if self.accelerator.device.type == "cuda" and rank < len(tensors.get("rng.cuda", ())):
            torch.cuda.set_rng_state(tensors["rng.cuda"][rank].clone())
        if self.accelerator.scaler is not None and "scaler.scale" in tensors:
            names = self.accelerator.scaler.state_dict()
            self.accelerator.scaler.load_state_dict(
                {name: tensors[f"scaler.{name}"].item() for name in names}
            )
        if "state.0" in tensors:
            self.state = self._own_state(tensors)
        self.watch.put(tensors)
        self._seconds_before = self.progress.seconds
        if self.accelerator.is_main_process:
            self.history = self.run.rewind_metrics(self.progress.step)

    @property
    def overflows_allowed(self) -> int:
        """Steps in a row whose gradient need not be finite."""
        if self.accelerator.scaler is None:
            return 0
        return min(MOST_OVERFLOWS, max(SHORT_TRAINING, self.total_steps - 1))

    @property
    def evaluate_every(self) -> int:
        """Steps between validations."""
        by_epochs = round(self.config.evaluate_epochs * self.steps_per_epoch)
        return self.config.evaluate_every or max(1, by_epochs)

    @property
    def out_of_patience(self) -> bool:
        """Whether the last `patience` validations brought no new lowest loss."""
        patience = self.config.patience
        return patience is not None and self.progress.evaluations_since_best >= patience

    @property
    def targets_done(self) -> int:
        """Number of targets that this `Trainer` has trained on, over all processes."""
        processes: int = self.accelerator.num_processes
        return self._own_targets * processes

    @property
    def targets_per_step(self) -> int:
        """Number of targets of a full optimizer step, over all processes."""
        return self.config.num_streams * self.config.window_length * self.config.accumulation

    @property
    def constant(self) -> int:
        """This process's targets in a full optimizer step, by which it divides its summed loss."""
        processes: int = self.accelerator.num_processes
        return self.targets_per_step // processes

    def _due(self, every: int | None) -> bool:
        step = self.progress.step
        return step == self.total_steps or (every is not None and step % every == 0)

    def _gather_streams(self, part: Tensor) -> Tensor:
        axis = self.model.batch_axis
        gathered: Tensor = self.accelerator.gather(part.transpose(0, axis).contiguous())
        return gathered.transpose(0, axis).contiguous()

    def _own_state(self, tensors: Mapping[str, Tensor]) -> State:
        """This process's streams of the state in a checkpoint."""
        count = sum(name.startswith("state.") for name in tensors)
        parts = tuple(
            tensors[f"state.{number}"].to(self.accelerator.device) for number in range(count)
        )
        whole = parts if isinstance(self.model.initial_state(1), tuple) else parts[0]
        return self.model.select_rows(
            whole, torch.arange(self.config.num_streams)[self.own_streams]
        )

    def _validation_rows(self, ids: Tensor) -> Iterator[batching.Batch]:
        """This process's share of the validation text: streams; or, if the model's state grows with
        the text, windows of it, as many at a time."""
        rows = VALIDATION_STREAMS
        if self.model.state_grows:
            rows = -(-(ids.numel() - 1) // self.config.window_length)
        whole = batching.scoring_streams(ids, rows)
        own = slice(self.accelerator.process_index, None, self.accelerator.num_processes)
        inputs, targets = whole.inputs[own], whole.targets[own]
        for first in range(0, len(inputs), VALIDATION_STREAMS):
            some = slice(first, first + VALIDATION_STREAMS)
            yield batching.Batch(inputs=inputs[some], targets=targets[some])

    def _from_all(self, part: Tensor) -> Tensor:
        """`part` of every process, one row each."""
        gathered: Tensor = self.accelerator.gather(part.to(self.accelerator.device).unsqueeze(0))
        return gathered.cpu()

    def _state_to_carry(self, state: State) -> State | None:
        """The state from which the next window starts."""
        if not self.config.carry_state:
            return None
        state = detach(state)
        if self.config.reset_state:
            streams = len(self.data)
            restarted = torch.rand(streams, device=self.data.device) < self.config.reset_state
            state = self.model.restart_rows(state, restarted)
        return state

    def _cuts_of(self, epoch: int) -> list[int]:
        """Edges of this epoch's windows: every `window_length` tokens, or jittered around that."""
        total, length = self.data.shape[1] - 1, self.config.window_length
        if not self.config.window_jitter:
            return [*range(0, total, length), total]
        generator = make_generator(self.seed, f"windows of epoch {epoch}")
        return batching.jittered_cuts(total, length, self.config.window_jitter, generator)

    def _training_loss(self, ids: Tensor) -> TrainingLoss:
        config, noise = self.config, None
        if config.loss == "sampled" or config.unigram_bias:
            counts = torch.bincount(ids.cpu(), minlength=self.model.vocabulary_size)
            noise = NoiseSampler(counts).to(self.accelerator.device)
            if config.unigram_bias:
                output = self.model.output
                assert isinstance(output, nn.Linear)  # or it would not be trainable so
                shares = counts.clamp(min=1).double() / ids.numel()
                output.bias.data.copy_(shares.log().float())
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
        """Turn an out-of-memory error into a TrainingError that names the settings to lower."""
        try:
            yield
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            config, model = self.config, self.model
            size, other_loss = "the model's size", ""
            if isinstance(model, LSTMLanguageModel):
                size = f"hidden_size ({model.config.hidden_size})"
                other_loss = ", or try loss='chunked'" if config.loss == "full" else ""
            raise TrainingError(
                f"device {self.accelerator.device.type} has not enough memory for this model and "
                f"batch; lower num_streams (now {config.num_streams}), window_length "
                f"({config.window_length}) or {size}{other_loss}"
            ) from error

    def _gradients_averaged(self, *, only_if: bool) -> contextlib.AbstractContextManager[Any]:
        """Average gradients over processes only in the last window of a step."""
        if only_if:
            return contextlib.nullcontext()
        context: contextlib.AbstractContextManager[Any] = self.accelerator.no_sync(self.loss)
        return context


def _check_trainable(model: LanguageModel, config: TrainConfig) -> None:
    """Raise TypeError or ValueError unless `model` can be trained by `config`."""
    check_type("config", config, TrainConfig, "TrainConfig(steps=100) trains for 100 steps")
    kind = type(model).__name__
    if not isinstance(model, LanguageModel):
        raise TypeError(
            f"train takes a LanguageModel, got {kind}; companion.models has an LSTM, other "
            "recurrent models and a Transformer, and says what one of your own must define"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"{kind} has no weights that require gradients, so there is nothing to train; an "
            "n-gram model is made by NGramModel.fit"
        )
    if model.state_grows and config.carry_state:
        raise ValueError(
            f"the state of {kind} grows with the text and cannot be carried from window to window; "
            "train with carry_state=False"
        )
    if config.unigram_bias and not isinstance(model, LSTMLanguageModel):
        raise ValueError(f"unigram_bias is for an LSTMLanguageModel only; {kind} trains without")
    if config.unigram_bias and not isinstance(model.output, nn.Linear):
        raise ValueError(
            "unigram_bias sets the bias of a linear output layer, and with adaptive_cutoffs the "
            "model has none; train without one of the two"
        )


def _check_precision_of(model: LanguageModel, precision: Precision, device: torch.device) -> None:
    """Raise ValueError where gradients would be lost: in fp16 that are not scaled."""
    recurrent = any(isinstance(layer, nn.RNNBase) for layer in model.modules())
    if precision == "bf16" and recurrent and lstm_dtype(device, precision) == torch.float16:
        raise ValueError(
            f"precision 'bf16' loses gradients of {type(model).__name__} on this device: its "
            "recurrent layers compute in fp16 all the same, and only precision 'fp16' scales the "
            "loss so that small gradients do not become 0; use fp16 or fp32"
        )


def _may_leave_weights_unused(model: LanguageModel) -> bool:
    """Whether a step may need no gradient of some weights: those of an adaptive softmax's cluster
    of which the window holds no token."""
    return isinstance(getattr(model, "output", None), nn.AdaptiveLogSoftmaxWithLoss)


def _losses_in_words(record: dict[str, Any]) -> str:
    words = f"train {record['train_nats_per_token']:.3f}"
    if "valid_nats_per_token" in record:
        words += f", valid {record['valid_nats_per_token']:.3f}"
    return words + " nats/token"
