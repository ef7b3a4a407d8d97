"""On a device without float64, as Apple's MPS is: training, evaluation and what stands on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate.state import PartialState
from pretended_device import DEVICE, OnDevice, pretended_device

from companion.core import runtime
from companion.core.seeds import seed_everything
from companion.evaluation.calibration import fit_temperature
from companion.evaluation.scoring import score
from companion.generation.beam import beam_search
from companion.losses.large_vocabulary import NoiseSampler
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.training import trainer
from companion.training.checkpoints import RunFolder
from companion.training.config import TrainConfig
from companion.training.trainer import train

VOCABULARY = 8


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device; the accelerator of a training has it when asked for "mps"."""
    real = runtime.make_accelerator

    def make_accelerator(name: str, precision: str, **more: bool) -> object:
        accelerator = real("cpu", precision, **more)
        if name == "mps":
            PartialState().device = accelerator.state.device = DEVICE
        return accelerator

    monkeypatch.setattr(trainer, "make_accelerator", make_accelerator)
    with pretended_device() as there:
        yield there


def text(length: int = 201) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randint(VOCABULARY, (length,), generator=generator)
    return torch.where(
        torch.rand(length, generator=generator) < 0.3, noise, torch.arange(length) % 5
    )


def model() -> LSTMLanguageModel:
    seed_everything(0)
    return LSTMLanguageModel(
        LSTMConfig(vocabulary_size=VOCABULARY, embedding_size=4, hidden_size=8)
    )


def test_the_pretended_device_refuses_float64_and_the_cpu_does_not(device: torch.device) -> None:
    there = torch.ones(3).to(device)
    assert isinstance(there, OnDevice)
    assert there.cpu().double().sum() == 3
    for planted in (
        lambda: there.double(),
        lambda: torch.ones(3).double().to(device),
        lambda: torch.zeros(2, dtype=torch.float64, device=device),
        lambda: torch.tensor(1.0, dtype=torch.float64, device=device),
        lambda: there.sum(dtype=torch.float64),
    ):
        with pytest.raises(TypeError, match=r"has no torch\.float64"):
            planted()


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")  # so torch believes
@pytest.mark.parametrize("loss", ["full", "sampled"])
def test_a_run_trains_validates_saves_and_resumes_there_as_on_the_cpu(
    loss: str, device: torch.device, tmp_path: Path
) -> None:
    curves = {}
    for name in ("cpu", "mps"):
        run = RunFolder.create(tmp_path / name, {})
        for steps in (4, 6):
            settings = TrainConfig(
                steps=steps, num_streams=4, window_length=10, log_every=2, warmup=0.0, loss=loss,
                num_samples=16, unigram_bias=loss == "sampled", final_learning_rate=1.0,
            )  # fmt: skip
            result = train(
                model(), text(), settings, valid_ids=text(61), run=run, resume=steps == 6,
                device=name,
            )  # fmt: skip
        curves[name] = [record["train_nats_per_token"] for record in result.history]
        curves[name].append(result.best_nats_per_token)
        assert len(curves[name]) == 5
    # The same arithmetic in another order (the optimizer is not the fused one): float32 rounding.
    assert curves["mps"] == pytest.approx(curves["cpu"], rel=1e-4)


def test_evaluation_there_gives_what_it_gives_on_the_cpu(device: torch.device) -> None:
    here, there = model().eval(), model().eval()
    for each in (here, there):  # so that a temperature is best: sure of what is frequent
        each.output.bias.data = 2 * text().bincount(minlength=VOCABULARY).float().log()
    there.to(device)
    assert isinstance(there.output.weight, OnDevice)
    assert torch.allclose(score(there, text()).nats, score(here, text()).nats, rtol=1e-5)
    assert fit_temperature(there, text()) == pytest.approx(fit_temperature(here, text()), rel=1e-4)
    found = beam_search(there, text(3).to(device), num_tokens=4, width=2)
    assert [each.tokens for each in found] == [
        each.tokens for each in beam_search(here, text(3), num_tokens=4, width=2)
    ]


def test_noise_is_prepared_there_from_counts_that_lie_there(device: torch.device) -> None:
    counts = torch.tensor([1, 2, 5])
    noise = NoiseSampler(counts.to(device))
    assert isinstance(noise.log_probs, OnDevice)
    assert torch.equal(noise.log_probs.cpu(), NoiseSampler(counts).log_probs)
