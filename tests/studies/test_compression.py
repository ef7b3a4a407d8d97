"""The study `compression`: its arithmetic, its controls, and a tiny run."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from companion.compression.pruning import magnitude_masks, matrices, pruned
from companion.compression.quantization import int8_kernels, quantized
from companion.core.seeds import make_generator
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.grammar import VOCABULARY
from companion.sources.reviews import GrammarSource
from companion.sources.streams import true_rows
from companion.studies import compression
from companion.studies.runner import one_thread
from companion.training.config import TrainConfig
from companion.world.stages import SmallStagesConfig

SIZE = LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=12, hidden_size=12)
CONFIG = compression.Config(
    model=SIZE, training=TrainConfig(steps=3, num_streams=4, window_length=16), test_tokens=320,
    bits=(8, 2), shares=(0.5,), repair_steps=2, ranks=(4,), student_size=6, student_steps=2,
    world=SmallStagesConfig(
        hidden_size=12, batch_size=4, num_texts=40, pretrain_steps=2, instruct_steps=2,
        safety_steps=2,
    ),
    safety_bits=(8,), safety_shares=(0.5,), draws=2, repair_steps_safety=2,
    timed=LSTMConfig(vocabulary_size=90, embedding_size=80, hidden_size=80), seconds=0.02,
)  # fmt: skip


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


def test_the_source_as_a_model_costs_nothing(source: GrammarSource) -> None:
    """Its probabilities are the truth, so each group of tokens has no nats above the floor."""
    rows = true_rows(source, 4, 60, make_generator(0))
    found = compression.cost(compression.SourceTeacher(source), source, rows)
    for value in dataclasses.asdict(found).values():
        assert value == pytest.approx(0, abs=1e-5)  # float32 logits


def test_the_groups_of_tokens_make_the_whole_cost(source: GrammarSource) -> None:
    """Weighted by their share of the expected text, the three groups add up to the KL; and that is
    the cross-entropy of the true distribution less its entropy."""
    torch.manual_seed(0)
    model = LSTMLanguageModel(SIZE).eval()
    rows = true_rows(source, 4, 60, make_generator(0))
    found = compression.cost(model, source, rows)
    p = source.transition_probs[source.walk(rows[:, 1:])].flatten(0, 1)
    with torch.no_grad():
        log_q = torch.log_softmax(model(rows[:, :-1])[0].double(), dim=-1).flatten(0, 1)
    cross, entropy = -(p * log_q).sum(dim=1).mean(), -torch.xlogy(p, p).sum(dim=1).mean()
    assert found.kl == pytest.approx(float(cross - entropy))
    order = compression.frequencies(source).argsort(descending=True)
    shares = p.mean(dim=0)[order]
    weights = shares[:20].sum(), shares[20:-40].sum(), shares[-40:].sum()
    parts = found.frequent, found.middle, found.rare
    assert sum(float(w) * c for w, c in zip(weights, parts, strict=True)) == pytest.approx(found.kl)
    assert float(compression.frequencies(source).sum()) == pytest.approx(1)


def models() -> tuple[LSTMLanguageModel, LSTMLanguageModel]:
    torch.manual_seed(0)
    before, after = LSTMLanguageModel(SIZE).eval(), LSTMLanguageModel(SIZE).eval()
    return before, after


def test_taking_both_parts_is_pruning_and_taking_neither_changes_nothing() -> None:
    before, after = models()
    masks = magnitude_masks(after, 0.5)

    def equal(one: LSTMLanguageModel, other: LSTMLanguageModel) -> None:
        for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs)

    made = compression.partly_pruned(before, after, masks, of_change=True, of_before=True)
    equal(made, pruned(after, masks))
    equal(compression.partly_pruned(before, after, masks, of_change=False, of_before=False), after)
    made = compression.partly_pruned(before, after, masks, of_change=True, of_before=False)
    name = "lstm.weight_hh_l0"
    kept = torch.where(masks[name], after.get_parameter(name), before.get_parameter(name))
    torch.testing.assert_close(made.get_parameter(name), kept)


def test_the_control_of_the_change_removes_as_much_of_each_matrix_elsewhere() -> None:
    before, after = models()
    masks = magnitude_masks(after, 0.3)
    found = compression.random_subset(masks, make_generator(0))
    for name, mask in masks.items():
        assert int(found[name].sum()) == int(mask.sum())
        assert not torch.equal(found[name], mask)
    old, new = before.output.weight, after.output.weight
    made = compression.moved(after, {
        name: old - each for (name, each), old in
        zip(matrices(after).items(), matrices(before).values(), strict=True)
    }, 0.25)  # fmt: skip
    torch.testing.assert_close(made.output.weight, old + 0.75 * (new - old))


def test_a_change_below_half_a_step_changes_few_codes_and_none_changes_none() -> None:
    before, after = models()
    assert compression.codes_changed(before, before, 4) == (0, 0)
    share, steps = compression.codes_changed(before, after, 4)
    assert 0.5 < share <= 1  # two independent draws
    assert steps > 1
    again = compression.codes_changed(quantized(before, 4), before, 4)
    assert again[0] == 0  # the same codes, and rounding moves a weight by a quarter of a step
    assert 0.2 < again[1] < 0.3


def test_bisection_finds_the_damage_that_costs_what_was_asked_for() -> None:
    _, model = models()
    noise = {name: torch.ones_like(each) for name, each in model.named_parameters()}

    def weight(made: LSTMLanguageModel) -> float:
        return float((made.output.weight - model.output.weight).detach().mean())

    found = compression.matched(
        lambda scale: compression.moved(model, noise, scale), weight, 0.25, most=2.0
    )
    assert weight(found) == pytest.approx(0.25, abs=1e-3)


@pytest.mark.slow
def test_a_tiny_run_fills_every_figure_and_repeats() -> None:
    parts = ("floor", "distillation", "safety")
    config = dataclasses.replace(CONFIG, parts=parts)
    with one_thread():
        result = compression.run(config, seed=0)
        assert compression.run(config, seed=0) == result
    pruned_ones = {f"{kind} 0.5{end}" for kind in ("prune", "random") for end in ("", " repaired")}
    done = {"float32", "8 bits", "2 bits", "rank 4", *pruned_ones}
    for figures in (result.kl, result.bytes, result.ece, result.frequent, result.rare):
        assert set(figures) == done
    assert result.bytes["2 bits"] < result.bytes["8 bits"] < result.bytes["float32"] / 2
    assert sum(result.spectrum) == pytest.approx(1)
    assert set(result.student) == {"alone", "teacher", "source"}
    asked = {"instructed", "safe", "8 bits", "prune 0.5", "noise", "random", "change", "before",
             "random change", "change x 0.5", "change x 0.75", "change x 0.9", "documents",
             "examples", "before, documents", "before, examples"}  # fmt: skip
    for figures in (result.nats, result.refusal, result.leak, result.benign):
        assert set(figures) == asked
    for name in ("noise", "random", "random change"):
        assert len(result.drawn[name]) == 2
        mean = sum(result.drawn[name]) / 2
        assert mean == pytest.approx(result.benign[name] - result.refusal[name])
    assert 0 < result.removed["weights"] < result.removed["change"] < 1
    assert result.time == {}
    assert json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [True, False])
def test_speeds_are_ratios_with_intervals(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        int8_kernels(LSTMLanguageModel(SIZE))
    except ValueError as error:
        if kernels:
            pytest.skip(str(error))

    def none(model: LSTMLanguageModel) -> LSTMLanguageModel:
        raise ValueError("torch has no int8 kernels for this processor")

    if not kernels:
        monkeypatch.setattr(compression, "int8_kernels", none)
    result = compression.run(dataclasses.replace(CONFIG, parts=("speed",)), seed=0)
    assert len(result.time) == (12 if kernels else 10)
    for name, ratio in result.time.items():
        assert 0 < result.time_low[name] <= ratio <= result.time_high[name]
    assert result.memory["copy"] == 1
    if kernels:
        assert result.memory["int8 kernels"] < 0.7
    assert result.kl == result.refusal == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": ("size",)}, "each of parts must be one of floor"),
        ({"bits": (1,)}, r"bits must be in \[2, 8\]"),
        ({"shares": (1.0,)}, r"each share must be in \(0, 1\)"),
        ({"matched_share": 0.7}, "matched_share must be one of safety_shares"),
        ({"ranks": (12,)}, r"each of ranks must be in \[1, 10\]"),
        ({"student_size": 12}, "student_size must be below the model's 12"),
        ({"seconds": 0.0}, "seconds must be > 0"),
        ({"test_tokens": 15}, "test_tokens must be >= 1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
