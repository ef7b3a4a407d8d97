"""The study `exposure_bias`: its kinds of text, figures computed by hand, and a small run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor

from companion.core.seeds import make_generator
from companion.models.base import LanguageModel, State
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import VOCABULARY, GrammarConfig
from companion.sources.noise import InsertionSource
from companion.sources.reviews import GrammarSource
from companion.sources.streams import true_rows
from companion.studies import exposure_bias
from companion.studies.exposure_bias import KINDS, NEVER, go_on, read
from companion.studies.runner import one_thread
from companion.training.config import TrainConfig


def small(noise: float) -> InsertionSource:
    """Texts "a b b ... b" with insertions."""
    probs = torch.tensor([[0.0, 1.0, 0.0], [0.25, 0.0, 0.75]])
    targets = torch.tensor([[-1, 1, -1], [0, -1, 1]])
    return InsertionSource(AutomatonSource(["<end>", "a", "b"], probs, targets), noise)


class Uniform(LanguageModel):
    """A model that knows nothing."""

    def features(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        return torch.zeros(*inputs.shape, 1), torch.zeros(len(inputs), 1)

    def logits(self, features: Tensor) -> Tensor:
        return torch.zeros(*features.shape[:-1], self.vocabulary_size)

    def initial_state(self, batch_size: int) -> State:
        return torch.zeros(batch_size, 1)


def test_kl_error_mass_and_distance_by_hand() -> None:
    source, model = small(0.1), Uniform(3).eval()
    first = math.log(3) + 0.9 * math.log(0.9) + 0.1 * math.log(0.05)
    inside = math.log(3) + 0.225 * math.log(0.225) + 0.1 * math.log(0.1)
    inside += 0.675 * math.log(0.675)
    #      a, b, a second a, b, the end, and an end where a text must begin
    row = [0, 1, 2, 1, 2, 0, 0]
    expected = [
        (first, 2 / 3, NEVER), (inside, 1 / 3, NEVER + 1), (inside, 1 / 3, NEVER + 2),
        (inside, 1 / 3, 1), (inside, 1 / 3, 2), (first, 2 / 3, 3), (first, 2 / 3, 1),
    ]  # fmt: skip
    for t, (nats, mass, distance) in enumerate(expected):
        place = read(source, model, torch.tensor([row[: t + 1]]))
        found = go_on(source, model, place, "true", 1, generator=make_generator(0))
        assert float(found.kl) == pytest.approx(nats)
        assert float(found.error_mass) == pytest.approx(mass)
        assert int(found.distance) == distance


def test_each_kind_of_text_has_the_errors_that_it_should() -> None:
    source, model = small(0.05), Uniform(3).eval()
    place = read(source, model, true_rows(source, 200, 14, make_generator(0)))
    found = {
        kind: go_on(source, model, place, kind, 50, rate=0.3, generator=make_generator(1))
        for kind in KINDS
    }
    # 10,000 tokens each: a standard error of at most .005.
    assert float(found["true"].errors.double().mean()) == pytest.approx(0.05, abs=0.02)
    assert float(found["injected"].errors.double().mean()) == pytest.approx(0.3, abs=0.02)
    for kind in ("own errors", "own"):  # as often as the model holds an error likely, each time
        for mass in (1 / 3, 2 / 3):
            places = found[kind].error_mass.isclose(torch.tensor(mass).double())
            share = float(found[kind].errors[places].double().mean())
            assert share == pytest.approx(mass, abs=0.03)
    with pytest.raises(ValueError, match="kind must be one of"):
        go_on(source, model, place, "injected", 1, generator=make_generator(0))


def test_text_goes_on_from_its_place_as_if_read_again() -> None:
    torch.manual_seed(0)
    source = InsertionSource(GrammarSource(GrammarConfig(depth=0)), 0.1)
    model = LSTMLanguageModel(
        LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=8, hidden_size=8)
    ).eval()
    prompts = true_rows(source, 5, 12, make_generator(1))
    place = read(source, model, prompts)
    found = go_on(source, model, place, "own errors", 9, generator=make_generator(2))
    for t in range(9):
        here = read(source, model, torch.cat([prompts, found.tokens[:, :t]], dim=1))
        again = go_on(source, model, here, "true", 1, generator=make_generator(3))
        torch.testing.assert_close(again.kl[:, 0], found.kl[:, t], atol=1e-5, rtol=1e-4)
        assert torch.equal(again.distance[:, 0], found.distance[:, t])


@pytest.mark.slow
def test_a_small_run_repeats_with_its_seed_and_is_json() -> None:
    config = exposure_bias.Config(
        model=LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=8, hidden_size=16),
        training=TrainConfig(steps=10), num_streams=6, prompt_tokens=10, num_tokens=20,
    )  # fmt: skip
    with one_thread():
        one, again = (exposure_bias.run(config, seed=0) for _ in range(2))
    assert one == again
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert set(one.gap) == {"insertions", "substitutions"}
    for name in one.gap:
        assert set(one.gap[name]) == set(KINDS)
        assert one.gap[name]["true"] == 0
        assert sum(one.gap_by_half[name]) / 2 == pytest.approx(one.gap[name]["own"])
