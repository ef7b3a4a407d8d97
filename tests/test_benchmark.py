"""The benchmark counts the operations it claims to count, and measures something."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from companion import benchmark
from companion.benchmark import (
    MODELS,
    BenchmarkModel,
    matmul_flops_per_second,
    measure,
    textbook_step,
    training_flops_per_token,
)
from companion.lstm import LSTMConfig, LSTMLanguageModel, reference_lstm

CPU = torch.device("cpu")
TINY = BenchmarkModel(
    name="tiny",
    model=LSTMConfig(vocabulary_size=11, embedding_size=4, hidden_size=5),
    num_streams=2,
    window_length=3,
)


def test_operations_of_one_layer_equal_the_count_by_hand():
    config = LSTMConfig(vocabulary_size=100, embedding_size=3, hidden_size=5)
    # 4 gates, each 5 x 3 and 5 x 5 weights; the output 5 x 100; multiply and add, thrice.
    assert training_flops_per_token(config) == 6 * (4 * (15 + 25) + 500)


@pytest.mark.parametrize(
    ("num_layers", "tie_weights"), [(1, False), (2, False), (3, False), (2, True)]
)
@pytest.mark.slow
def test_operations_equal_those_torch_counts_in_forward_and_backward(num_layers, tie_weights):
    # nn.LSTM is one opaque kernel to the counter, so the cell written out is what is counted.
    batch, time = 3, 4
    config = LSTMConfig(
        vocabulary_size=13, embedding_size=6, hidden_size=6 if tie_weights else 8,
        num_layers=num_layers, tie_weights=tie_weights,
    )  # fmt: skip
    model = LSTMLanguageModel(config)
    ids = torch.randint(13, (time, batch))
    # A state that needs a gradient makes the first step cost what every later one does.
    state = tuple(part.requires_grad_() for part in model.initial_state(batch))
    with FlopCounterMode(display=False) as counter:
        outputs, _ = reference_lstm(model.lstm, model.embedding(ids), state)
        loss = F.cross_entropy(model.output(outputs).flatten(0, 1), ids.flatten())
        loss.backward()
    assert counter.get_total_flops() == batch * time * training_flops_per_token(config)


def test_tying_changes_memory_and_not_the_number_of_operations():
    sizes = {"vocabulary_size": 50, "embedding_size": 8, "hidden_size": 8}
    untied, tied = (LSTMConfig(**sizes, tie_weights=tie) for tie in (False, True))
    assert training_flops_per_token(untied) == training_flops_per_token(tied)


def test_matmul_speed_is_a_positive_number():
    assert 0 < matmul_flops_per_second(CPU, size=32, seconds=0.0) < math.inf


def test_matmul_speed_counts_two_operations_for_each_multiplication(monkeypatch):
    ticks = iter(range(100))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: float(next(ticks)))
    # Every reading of this clock is one second after the last, so a product takes one second.
    assert matmul_flops_per_second(CPU, size=16, seconds=3.0) == 2 * 16**3


def test_measuring_a_tiny_model_gives_positive_numbers_that_fit_together():
    speed = measure(TINY, device="cpu", seconds=0.02, turns=1)
    report = json.loads(json.dumps(speed.to_dict()))
    assert report.pop("name") == "tiny"
    assert all(0 < value < math.inf for value in report.values()), report
    # One turn: the median ratio is the ratio of the medians.
    assert speed.ratio == pytest.approx(
        speed.tokens_per_second / speed.reference_tokens_per_second, rel=1e-12
    )
    assert speed.matmul_share < 1  # no training beats the matrix products it is made of


@pytest.mark.parametrize("tie_weights", [False, True])
def test_the_textbook_loop_really_learns(tie_weights, monkeypatch):
    config = LSTMConfig(
        vocabulary_size=11, embedding_size=8, hidden_size=8, tie_weights=tie_weights
    )
    case = BenchmarkModel(name="tiny", model=config, num_streams=2, window_length=6)
    losses = []
    cross_entropy = torch.nn.CrossEntropyLoss.forward

    def recorded(self, logits, targets):
        loss = cross_entropy(self, logits, targets)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(torch.nn.CrossEntropyLoss, "forward", recorded)
    step = textbook_step(case, torch.randint(11, (100,)), CPU)
    for _ in range(200):
        step()
    assert losses[-1] < losses[0] - 0.5


def test_the_models_measured_have_names_of_their_own_and_can_be_built():
    assert len({case.name for case in MODELS}) == len(MODELS)
    for case in MODELS:
        with torch.device("meta"):
            model = LSTMLanguageModel(case.model)
        assert model.num_parameters > 0
