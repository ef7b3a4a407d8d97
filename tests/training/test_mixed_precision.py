"""fp16 with scaled losses; cuDNN's LSTM, which computes in fp16 under any autocast, is emulated."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from at_step import after_step
from torch.overrides import TorchFunctionMode

from companion.core import runtime
from companion.core.seeds import seed_everything
from companion.losses.cross_entropy import summed_nats
from companion.losses.large_vocabulary import NoiseSampler, chunked_nats
from companion.losses.training_loss import TrainingLoss
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.transformer import TransformerModel
from companion.training import trainer
from companion.training.budget import measure_pace
from companion.training.checkpoints import RunFolder
from companion.training.config import TrainConfig
from companion.training.trainer import Trainer, TrainingError, train

#: Functions that CUDA's autocast computes in fp32, of those that training uses.
IN_FP32 = ("cross_entropy", "log_softmax", "pow", "square", "sum")


class CudnnInAutocast(TorchFunctionMode):
    """As CUDA's autocast, inside of the CPU's: an LSTM's inputs, state and weights are cast to fp16
    (torch's AutocastRNN.cpp), and its outputs stay so."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "lstm" and torch.is_autocast_enabled("cpu"):
            inputs, state, weights, *rest = args
            state, weights = ([part.half() for part in parts] for parts in (state, weights))
            with torch.autocast("cpu", enabled=False):
                return func(inputs.half(), state, weights, *rest)
        if name in IN_FP32 and args[0].dtype == torch.float16:
            args = args[0].float(), *args[1:]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def cudnn_in_autocast() -> Iterator[None]:
    """fp16 as on CUDA inside the `with` block."""
    with torch.autocast("cpu", torch.float16), CudnnInAutocast():
        yield


def awd(vocabulary: int = 3000) -> LSTMLanguageModel:
    """AWD-LSTM's kinds of layers, in small."""
    seed_everything(0)
    return LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=vocabulary, embedding_size=64, hidden_size=128, num_layers=2,
            last_size=64, tie_weights=True, variational=True, weight_drop=0.5, dropout=0.2,
        )
    )  # fmt: skip


def test_without_scaling_half_of_an_lstms_gradients_are_lost_and_with_it_none() -> None:
    """The loss is a mean over some thousand targets, so the gradient of a single one is tiny."""
    model, targets = awd(), 40 * 35
    ids = torch.randint(3000, (40, 36), generator=torch.Generator().manual_seed(1))
    loss = TrainingLoss(model)

    def gradient(scale: float) -> torch.Tensor:
        model.zero_grad()
        torch.manual_seed(2)  # the same dropout
        nats, _, _ = loss(ids[:, :-1], ids[:, 1:], None)
        (nats / targets * scale).backward()
        weights = model.lstm.parameters()
        return torch.cat([weight.grad.flatten() / scale for weight in weights])

    exact = gradient(1.0)
    with cudnn_in_autocast():
        plain, scaled = gradient(1.0), gradient(2.0**16)
    lost, still_lost = (float((each[exact != 0] == 0).float().mean()) for each in (plain, scaled))
    assert 0.35 < lost < 0.65
    assert still_lost < 0.002
    off = [float((each - exact).norm() / exact.norm()) for each in (plain, scaled)]
    assert off[1] < off[0] / 2


@pytest.mark.parametrize("kind", ["full", "chunked", "sampled", "adaptive"])
def test_each_loss_of_an_lstm_in_fp16_is_that_in_fp32(kind: Any) -> None:
    vocabulary = 40
    seed_everything(0)
    model = LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=vocabulary, embedding_size=16, hidden_size=24, num_layers=2,
            adaptive_cutoffs=(10, 20) if kind == "adaptive" else (),
        )
    )  # fmt: skip
    ids = torch.randint(vocabulary, (6, 13), generator=torch.Generator().manual_seed(1))
    loss = TrainingLoss(
        model, "full" if kind == "adaptive" else kind, activation_penalty=3.0, temporal_penalty=1.5,
        noise=NoiseSampler(torch.ones(vocabulary, dtype=torch.long)), num_samples=16,
    )  # fmt: skip
    found = {}
    for name, context in {
        "fp32": contextlib.nullcontext(), "fp16": cudnn_in_autocast(),
    }.items():  # fmt: skip
        model.zero_grad()
        torch.manual_seed(2)  # the same samples
        with context:
            summed, nats, state = loss(ids[:, :-1], ids[:, 1:], None)
            loss(ids[:, :-1], ids[:, 1:], state)  # a state in fp16 is carried
        summed.backward()
        gradient = torch.cat([weight.grad.flatten() for weight in model.parameters()])
        found[name] = summed.detach(), nats, gradient
    assert found["fp16"][0].dtype == torch.float32
    for half, whole in zip(found["fp16"], found["fp32"], strict=True):
        # 11 binary digits instead of 24, in sums of some dozens.
        assert float((half - whole).norm() / whole.norm()) < 0.01


VOCABULARY = 8


def text(length: int = 401) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(VOCABULARY, (length,), generator=generator)
    return torch.where(
        torch.rand(length, generator=generator) < 0.3, noise, torch.arange(length) % 5
    )


def small() -> LSTMLanguageModel:
    seed_everything(0)
    return LSTMLanguageModel(
        LSTMConfig(vocabulary_size=VOCABULARY, embedding_size=8, hidden_size=16, dropout=0.1)
    )


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Accelerate makes for fp16 on CUDA, around a CPU on which LSTMs compute in fp16."""
    real, init = runtime.make_accelerator, Trainer.__init__

    def make_accelerator(name: str, precision: str, **more: bool) -> Any:
        accelerator = real("cpu", "fp32", **more)
        if precision == "fp16":
            accelerator.scaler = torch.amp.GradScaler("cpu", growth_interval=20)
        return accelerator

    def initialised(self: Trainer, *args: Any, **named: Any) -> None:
        init(self, *args, **named)
        if self.accelerator.scaler is not None:  # so that gradients are divided before clipping
            self.accelerator.native_amp = True
            self.accelerator.state._mixed_precision = "fp16"
            self.loss.forward = convert_outputs_to_fp32(
                torch.autocast("cpu", torch.float16)(self.loss.forward)
            )

    monkeypatch.setattr(trainer, "make_accelerator", make_accelerator)
    monkeypatch.setattr(Trainer, "__init__", initialised)
    with CudnnInAutocast():
        yield


def losses(history: list[dict[str, Any]]) -> list[float]:
    return [record["train_nats_per_token"] for record in history]


def config(**fields: Any) -> TrainConfig:
    return TrainConfig(
        **{"steps": 60, "num_streams": 8, "window_length": 10, "log_every": 5, "warmup": 0.0}
        | fields
    )


def test_a_training_in_fp16_scales_and_follows_one_in_fp32(cuda: None) -> None:
    curves = {}
    for precision in ("fp32", "fp16"):
        model = small()
        curves[precision] = losses(
            train(model, text(), config(precision=precision), device="cpu").history
        )
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert curves["fp32"][-1] < curves["fp32"][0] - 0.3
    # LSTMs of 11 binary digits instead of 24, for 60 steps; some first steps may be left out.
    assert curves["fp16"] == pytest.approx(curves["fp32"], rel=0.1)
    assert curves["fp16"] != curves["fp32"]


def test_a_step_that_overflows_is_left_out_and_lowers_the_scale(cuda: None) -> None:
    made = Trainer(small(), text(), config(precision="fp16"), device="cpu")
    made.model.train()
    made.train_step()
    scaler = made.accelerator.scaler
    before = [weight.detach().clone() for weight in made.model.parameters()]
    state = scaler.state_dict()
    scaler.load_state_dict({**state, "scale": 2.0**40})  # far too large for fp16
    made.train_step()
    for weight, old in zip(made.model.parameters(), before, strict=True):
        assert torch.equal(weight, old)
    assert scaler.state_dict()["scale"] == 2.0**39
    made.check()  # an overflow is part of scaling, and no failure
    scaler.load_state_dict(state)
    made.train_step()
    assert not torch.equal(next(made.model.parameters()), before[0])


def test_a_resumed_training_in_fp16_goes_on_with_its_scale(cuda: None, tmp_path: Path) -> None:
    settings = config(precision="fp16", checkpoint_every=10)
    whole = train(small(), text(), settings, device="cpu")

    def killed(at: Trainer) -> None:
        raise SystemExit

    run = RunFolder.create(tmp_path / "run", {})
    with after_step(34, killed), pytest.raises(SystemExit):
        train(small(), text(), settings, run=run, device="cpu")
    saved = run.latest()
    assert saved is not None
    # The scale has grown since the start, at 20 steps without an overflow.
    assert saved.training["scaler.scale"].item() > torch.amp.GradScaler("cpu").get_scale()
    resumed = train(small(), text(), settings, run=run, resume=True, device="cpu")
    assert losses(resumed.history) == losses(whole.history)


def spoilt(steps: int) -> LSTMLanguageModel:
    """A model that for so many steps has no gradient that is a number."""
    made, seen = small(), itertools.count()

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.nan if next(seen) < steps else gradient

    made.output.bias.register_hook(hook)
    return made


@pytest.mark.parametrize("log_every", [5, 30, 200])
def test_gradients_that_are_never_finite_end_a_training_in_fp16(cuda: None, log_every: int) -> None:
    settings = config(precision="fp16", steps=200, log_every=log_every)
    # Looked for at each record, and said of the step that was one too many.
    with pytest.raises(TrainingError, match=r"diverged at step 50: .*or train in fp32"):
        train(spoilt(200), text(), settings, device="cpu")


def test_steps_left_out_are_counted_on_after_a_resumption(cuda: None, tmp_path: Path) -> None:
    settings = config(precision="fp16", steps=200, checkpoint_every=7)
    run = RunFolder.create(tmp_path / "run", {})

    def killed(at: Trainer) -> None:
        raise SystemExit

    with after_step(34, killed), pytest.raises(SystemExit):
        train(spoilt(200), text(), settings, run=run, device="cpu")
    with pytest.raises(TrainingError, match="diverged at step 50"):
        train(spoilt(200), text(), settings, run=run, resume=True, device="cpu")


def test_a_record_without_a_finite_gradient_is_strict_json(cuda: None, tmp_path: Path) -> None:
    """Each of 49 steps may be left out, if the next one is not."""
    run = RunFolder.create(tmp_path / "run", {})
    result = train(spoilt(49), text(), config(precision="fp16"), run=run, device="cpu")
    assert result.stopped == "finished"
    norms = [record["gradient_norm"] for record in result.history]
    assert norms[:9] == [None] * 9
    # Of a record's five steps, the finite ones. At a scale halved 49 times fp16 leaves most at 0.
    assert all(math.isfinite(norm) for norm in norms[9:])
    assert len(norms) == 12
    for line in (run.path / "metrics.jsonl").read_text().splitlines():
        json.dumps(json.loads(line), allow_nan=False)


@pytest.mark.parametrize("steps", [20, 49])
def test_a_training_of_which_no_step_was_finite_is_no_finished_one(cuda: None, steps: int) -> None:
    settings = config(precision="fp16", steps=steps)
    with pytest.raises(TrainingError, match=rf"diverged at step {steps}: .*or train in fp32"):
        train(spoilt(steps), text(), settings, device="cpu")
    # One that is finite is enough, and the first few of a short training may overflow.
    assert train(spoilt(steps - 1), text(), settings, device="cpu").stopped == "finished"
    short = config(precision="fp16", steps=19)
    assert train(spoilt(19), text(), short, device="cpu").stopped == "finished"


@pytest.mark.parametrize(("steps", "finite"), [(2, True), (10**6, False)])
def test_a_probe_in_fp16_needs_a_gradient_that_is_finite(
    steps: int, finite: bool, cuda: None
) -> None:
    made = spoilt(steps)
    before = [weight.detach().clone() for weight in made.parameters()]
    pace = measure_pace(made, text(), config(precision="fp16"), device="cpu", seconds=1.0)
    assert pace.finite == finite
    same = [torch.equal(*pair) for pair in zip(made.parameters(), before, strict=True)]
    assert all(same) != finite


def test_bf16_is_refused_where_an_lstm_would_compute_in_fp16_without_scaling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = runtime.make_accelerator
    monkeypatch.setattr(
        trainer, "make_accelerator", lambda name, precision, **m: real("cpu", "fp32")
    )
    monkeypatch.setattr(trainer, "lstm_dtype", lambda device, precision: torch.float16)
    with pytest.raises(ValueError, match=r"'bf16' loses gradients of LSTMLanguageModel.*use fp16"):
        Trainer(small(), text(), config(precision="bf16"), device="cpu")
    Trainer(small(), text(), config(precision="fp16"), device="cpu")
    other = TransformerModel(
        vocabulary_size=VOCABULARY, width=8, num_layers=1, num_heads=2, max_length=16
    )
    Trainer(other, text(), config(precision="bf16", carry_state=False), device="cpu")
    # Where it computes in what was asked for, bf16 is as good as anywhere.
    monkeypatch.setattr(trainer, "lstm_dtype", lambda device, precision: torch.bfloat16)
    Trainer(small(), text(), config(precision="bf16"), device="cpu")


def test_the_dtype_of_an_lstm_is_read_off_its_output() -> None:
    cpu = torch.device("cpu")
    assert runtime.lstm_dtype(cpu, "fp32") == torch.float32
    with CudnnInAutocast():
        assert runtime.lstm_dtype(cpu, "bf16") == torch.float16


# --- the chunked loss in fp16 ---------------------------------------------------------------------


def layer(vocabulary: int = 30_003) -> tuple[list[torch.Tensor], torch.Tensor]:
    """An output layer of a large vocabulary that is no multiple of 8, sure of its tokens."""
    generator = torch.Generator().manual_seed(0)
    parts = [
        torch.randn(*shape, generator=generator) * size
        for shape, size in (((64, 16), 1.0), ((vocabulary, 16), 0.7), ((vocabulary,), 1.0))
    ]
    wanted = torch.randint(vocabulary, (64,), generator=generator)
    return [part.requires_grad_() for part in parts], wanted


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_vocabulary_filled_up_to_a_multiple_of_8_is_the_same_loss(dtype: torch.dtype) -> None:
    parts, targets = layer(vocabulary=21)
    padded, exact = {}, {}
    with torch.autocast("cpu", dtype):
        loss = chunked_nats(*parts, targets, chunk=16)
    plain = summed_nats((parts[0] @ parts[1].T + parts[2]).unsqueeze(0), targets.unsqueeze(0))
    # Logits of 8 binary digits are off by a hundredth.
    assert loss.item() == pytest.approx(plain.item(), rel=1e-2)
    padded, exact = (torch.autograd.grad(each, parts) for each in (loss, plain))
    for ours, theirs in zip(padded, exact, strict=True):
        assert ours.shape == theirs.shape
        assert float((ours - theirs).norm() / theirs.norm()) < 0.03


def test_rare_tokens_keep_their_gradient_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    parts, targets = layer()
    exact = torch.autograd.grad(chunked_nats(*parts, targets), parts)[1]
    with torch.autocast("cpu", torch.float16):
        ours = torch.autograd.grad(chunked_nats(*parts, targets, chunk=64), parts)[1]
    lost = float(((ours == 0) & (exact != 0)).float().mean())
    assert lost < 0.12
    # Held as they are, as in a chunk too long to be scaled, more than twice as many are lost.
    with torch.autocast("cpu", torch.float16):
        unscaled = torch.autograd.grad(chunked_nats(*parts, targets, chunk=2**15), parts)[1]
    assert float(((unscaled == 0) & (exact != 0)).float().mean()) > 2 * lost
