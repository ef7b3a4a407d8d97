"""Every preset at full size on a GPU that is not there: nothing mixes devices, no step waits."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from absent_gpu import DEVICE, AbsentGPU, MixedDevices, absent_gpu
from accelerate.state import PartialState

from companion.core import runtime
from companion.evaluation import scoring
from companion.models.lstm import LSTMLanguageModel
from companion.runs.presets import PRESETS
from companion.training import checkpoints, optimization, trainer
from companion.training.checkpoints import RunFolder
from companion.training.running_metrics import RunningMetrics
from companion.training.trainer import Trainer

#: Kinds of tokens that a tokenizer without a size of its own finds: Tiny Shakespeare, WikiText-2.
VOCABULARIES = {"character": 65, "word": 33_278}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[AbsentGPU]:
    """The device, which a trainer gets that asks for "cuda", with loss scaling in fp16.

    torch has no autocast for it: tensors stay float32, and what is scaled is scaled.
    """
    real = runtime.make_accelerator

    def make_accelerator(name: str, precision: str, **more: Any) -> Any:
        accelerator = real("cpu", "fp32", **more)
        PartialState().device = accelerator.state.device = DEVICE
        if precision == "fp16":
            accelerator.scaler = torch.amp.GradScaler("cpu")
        return accelerator

    monkeypatch.setattr(trainer, "make_accelerator", make_accelerator)
    # CUDA has the fused kernel, so this device has it too.
    monkeypatch.setattr(optimization, "FUSED_ON", (DEVICE.type,))
    for module in ("optimizer", "adam", "adamw"):
        monkeypatch.setattr(
            sys.modules[f"torch.optim.{module}"],
            "_get_fused_kernels_supported_devices",
            lambda: [DEVICE.type],
            raising=False,
        )
    with absent_gpu() as there:
        yield there


def full_size(name: str, run: RunFolder | None = None, **changes: Any) -> Trainer:
    """A trainer of the preset `name` on random tokens, for two steps."""
    preset = PRESETS[name]
    size = preset.tokenizer_options.get("vocabulary_size") or VOCABULARIES[preset.tokenizer]
    settings = dataclasses.replace(preset.train, epochs=None, steps=2, **changes)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(size, (20_000,), generator=generator)
    model = LSTMLanguageModel(preset.model_config(size))
    made = Trainer(model, ids, settings, valid_ids=ids[:10_001], run=run, device="cuda")
    if made.accelerator.scaler is not None:  # as Accelerate does on CUDA
        made.accelerator.native_amp = True
        made.accelerator.state._mixed_precision = "fp16"
    made.model.train()
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_validates_and_saves_there_and_only_records_wait(
    name: str, gpu: AbsentGPU, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
        """Without the writing of hundreds of megabytes."""
        for each in tensors.values():
            each.detach().cpu()
        path.touch()

    monkeypatch.setattr(checkpoints, "save_tensors", save_tensors)
    made = full_size(name, RunFolder.create(tmp_path / "run", {}), reset_state=0.02)
    assert all(weight.is_meta for weight in made.model.parameters())
    counts = {}
    for what, work in {
        "first step": made.train_step,
        "step": lambda: Trainer.train_step(made),
        "record": made.training_record,
        "validation": made.validate,
        "save": lambda: made.save(best=True),
    }.items():
        gpu.waits.clear()
        if what == "step":
            monkeypatch.setattr(
                made, "_due", lambda every: False
            )  # records are counted by themselves
        work()
        counts[what] = sum(gpu.waits.values())
        where = dict(gpu.waits)
        assert what != "step" or not where, where
    print(name, counts)
    assert counts["first step"] == 0
    assert counts["record"] <= 3
    assert counts["validation"] <= 5
    # Weights, a gradient's two means and the number of steps of each; the state, the losses.
    assert counts["save"] <= 4 * len(list(made.model.parameters())) + 12


def _reads_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    add = RunningMetrics.add
    monkeypatch.setattr(
        RunningMetrics, "add", lambda self, nats, n: (nats.item(), add(self, nats, n))[1]
    )


def _makes_a_tensor_of_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    add = RunningMetrics.add
    monkeypatch.setattr(
        RunningMetrics,
        "add",
        lambda self, nats, n: add(self, nats + 0 * torch.tensor([1.0], device=DEVICE)[0], n),
    )


def _masks_by_what_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    carry = Trainer._state_to_carry
    monkeypatch.setattr(
        Trainer,
        "_state_to_carry",
        lambda self, state: (state[0][state[0] > 0], carry(self, state))[1],
    )


def _counts_what_is_true(monkeypatch: pytest.MonkeyPatch) -> None:
    carry = Trainer._state_to_carry
    monkeypatch.setattr(
        Trainer,
        "_state_to_carry",
        lambda self, state: (state[0].nonzero(), carry(self, state))[1],
    )


def _indexes_from_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    carry = Trainer._state_to_carry
    monkeypatch.setattr(
        Trainer,
        "_state_to_carry",
        lambda self, state: carry(self, tuple(p[:, torch.arange(p.shape[1])] for p in state)),
    )


def _has_no_fused_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimization, "FUSED_ON", ("cuda",))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (_reads_the_loss, "item"),
        (_makes_a_tensor_of_numbers, "tensor"),
        (_masks_by_what_is_true, "mask"),
        (_counts_what_is_true, "nonzero"),
        (_indexes_from_the_cpu, "index on the CPU"),
        (_has_no_fused_optimizer, "item"),
    ],
)
def test_a_step_that_waits_is_noticed(
    fault: Callable[[pytest.MonkeyPatch], None], words: str, gpu: AbsentGPU,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    fault(monkeypatch)
    made = full_size("small", precision="fp16")
    gpu.waits.clear()
    made.train_step()
    (where,) = gpu.waits
    assert where.startswith(words), where


def test_tensors_of_two_devices_are_noticed(
    gpu: AbsentGPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = full_size("small")
    made.data = made.data.new_zeros(made.data.shape, device="cpu")
    with pytest.raises(MixedDevices, match=r"cpu.*in lstm\.py: outputs"):
        made.train_step()
    made = full_size("small", reset_state=0.5)
    monkeypatch.setattr(torch, "rand", lambda *size, device: torch.zeros(*size))
    with pytest.raises(MixedDevices, match=r"in base\.py"):
        made.train_step()


def test_a_validation_that_reads_each_piece_is_noticed(
    gpu: AbsentGPU, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats = scoring.token_nats
    monkeypatch.setattr(scoring, "MOST_LOGITS_ON_DEVICES", 2**20)
    monkeypatch.setattr(scoring, "token_nats", lambda *piece: nats(*piece).cpu())
    made = full_size("small")
    gpu.waits.clear()
    made.validate()
    assert sum(gpu.waits.values()) > 5  # more than a validation may
