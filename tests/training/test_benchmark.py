"""The benchmark counts the operations it claims to count, and measures something."""

from __future__ import annotations

import json
import math
import random
import statistics

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from companion.models.lstm import LSTMConfig, LSTMLanguageModel, reference_lstm
from companion.training import benchmark
from companion.training.benchmark import (
    MODELS,
    BenchmarkModel,
    matmul_flops_per_second,
    measure,
    median_interval,
    take_turns,
    textbook_step,
    training_flops_per_token,
)

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


def test_operations_of_a_narrow_last_layer_are_counted_by_its_own_size():
    config = LSTMConfig(
        vocabulary_size=100, embedding_size=3, hidden_size=5, num_layers=2, last_size=2
    )
    assert training_flops_per_token(config) == 6 * (4 * 5 * (3 + 5) + 4 * 2 * (5 + 2) + 2 * 100)


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
    speed = measure(TINY, device="cpu", seconds=0.2)
    report = json.loads(json.dumps(speed.to_dict()))
    assert report.pop("name") == "tiny"
    assert all(0 < value < math.inf for value in report.values()), report
    assert speed.ratio_low <= speed.ratio <= speed.ratio_high
    assert speed.matmul_share < 1  # no training beats the matrix products it is made of


def test_a_machine_that_slows_down_and_stumbles_does_not_move_the_ratio(monkeypatch):
    """A clock of our own: a step of one loop is twice as long as the other's, whenever it runs."""
    now = 0.0
    chance = random.Random(0)
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)

    def step_of(length):
        def step():
            nonlocal now
            slowness = 3 if now > 5 else 1  # from the fifth second on, all is three times slower
            now += length * slowness + chance.choice([0.0] * 9 + [1.0])  # and one step in ten hangs

        return step

    turns = take_turns(step_of(0.04), step_of(0.08), CPU, seconds=100)
    assert len(turns) >= 30
    ratios = [other / one for one, other in turns]
    assert statistics.median(ratios) == pytest.approx(2, rel=1e-6)
    low, high = median_interval(ratios)
    assert low <= 2 + 1e-6
    assert high >= 2 - 1e-6


def test_who_begins_a_turn_alternates(monkeypatch):
    now, calls = 0.0, []
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: now)

    def step_called(name):
        def step():
            nonlocal now
            now += 0.05
            calls.append(name)

        return step

    assert benchmark.TURN_SECONDS == 0.2  # so a turn is two steps of each
    assert len(take_turns(step_called("a"), step_called("b"), CPU, seconds=0.75)) == 4
    assert "".join(calls[10:]) == "aabbbbaaaabbbbaa"  # after the warm-up


@pytest.mark.parametrize(("n", "left_out"), [(1, 0), (5, 0), (6, 0), (9, 1), (20, 5), (50, 17)])
def test_the_interval_of_a_median_has_the_tabled_ranks(n, left_out):
    # The largest number with 2 * P(Binomial(n, 1/2) <= it) <= .05 (Conover 1999, table A3).
    assert median_interval(range(n)) == (left_out, n - 1 - left_out)


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    chance = random.Random(1)
    held = 0
    for _ in range(2000):
        low, high = median_interval([chance.expovariate(1) for _ in range(21)])
        held += low <= math.log(2) <= high
    # The ranks 6 and 16 of 21 hold it with probability .973; four standard deviations are .015.
    assert held / 2000 == pytest.approx(0.973, abs=0.015)


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


@pytest.mark.parametrize("case", MODELS, ids=lambda case: case.name)
def test_the_products_of_a_step_are_its_operations(case):
    products = benchmark.products_of(case)
    operations = sum(2 * rows * inner * columns * count for rows, inner, columns, count in products)
    per_token = operations / case.num_streams / case.window_length
    if case.loss == "sampled":  # of the output layer's columns only those that are drawn
        size, saved = case.model.hidden_size, case.model.vocabulary_size - case.num_samples
        per_token += 6 * size * saved
    assert per_token == training_flops_per_token(case.model)


def test_the_seconds_of_products_are_those_of_each_times_its_number(monkeypatch):
    ticks = iter(range(1000))
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: float(next(ticks)))
    # Every reading is one second after the last: as many products as are timed at once take one.
    products = [(2, 3, 4, 1), (2, 3, 4, 5)]
    assert benchmark.seconds_of_products(products, CPU, seconds=0.0) == 1 / 1 + 5 / 5


@pytest.mark.parametrize("loss", ["chunked", "sampled"])
def test_the_textbook_loop_computes_the_loss_that_ours_does(loss):
    config = LSTMConfig(vocabulary_size=11, embedding_size=8, hidden_size=8, tie_weights=True)
    case = BenchmarkModel(
        name="tiny", model=config, num_streams=2, window_length=6, loss=loss, num_samples=4
    )
    step = textbook_step(case, torch.randint(11, (100,)), CPU)
    for _ in range(3):
        step()
    assert 0 < measure(case, device="cpu", seconds=0.1).products_share < math.inf
