"""The studies `distribution_shift` and `strange_text`: small runs, and the stored ones."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from annotation_checker import unchecked

from companion.core.seeds import make_generator
from companion.generalization.shift import rarer_pairs
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.grammar import GrammarConfig
from companion.sources.reviews import GrammarSource
from companion.sources.streams import true_rows
from companion.studies import distribution_shift, strange_text
from companion.studies.runner import one_thread
from companion.text.corpora import Corpus, load_corpus
from companion.training.config import TrainConfig
from companion.training.from_source import train_on_source


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


@pytest.fixture(scope="module")
def shallow() -> GrammarSource:
    return GrammarSource(GrammarConfig(depth=1))


def uniform_model(size: int) -> LSTMLanguageModel:
    """All next tokens alike, whatever came before."""
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=size, hidden_size=8)).eval()
    torch.nn.init.zeros_(model.output.weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(model.output.bias)  # type: ignore[arg-type]
    return model


def quick() -> distribution_shift.Config:
    return distribution_shift.Config(
        depth=1, training=TrainConfig(steps=4, num_streams=16, learning_rate=1e-2),
        test_tokens=1600, pair_steps=(1, 2), new_tokens=400,
        adaptation=TrainConfig(steps=4, num_streams=16), old_streams=(0, 8),
    )  # fmt: skip


@pytest.mark.slow
def test_missing_pairs_leave_every_word_a_place(shallow: GrammarSource) -> None:
    pairs = distribution_shift.missing_pairs(shallow)
    assert len(set(pairs)) == len(pairs) == 64
    words = [[shallow.vocabulary[i] for i in pair] for pair in pairs]
    assert ["old", "film"] in words
    assert ["old", "films"] in words
    assert ["old", "story"] not in words
    firsts, seconds = map(set, zip(*pairs, strict=True))
    poor = rarer_pairs(shallow, pairs, distribution_shift.PAIR_FACTOR)
    text = torch.cat(poor.sample(4000, generator=make_generator(0))).tolist()
    seen = set(itertools.pairwise(text))
    # Without the factor of .001 about 1,500 of them would come.
    assert sum((a, b) in set(pairs) for a, b in itertools.pairwise(text)) < 15
    for first in firsts:
        assert any((first, other) in seen for other in seconds)
    for second in seconds:
        assert any((first, second) in seen for first in firsts)


@pytest.mark.slow
def test_a_uniform_model_pays_the_same_on_every_source(shallow: GrammarSource) -> None:
    size = shallow.vocabulary_size
    result = distribution_shift.Result()
    distribution_shift.measure_shifts(result, uniform_model(size), shallow, quick(), seed=0)
    assert set(result.own_error) == set(distribution_shift.SHIFTS)
    for name, own in result.own_error.items():
        # The parts sum to ln V; 1,600 prefixes are sampled, the two exact parts are not.
        parts = result.entropy[name] + result.unavoidable[name] + own
        assert parts == pytest.approx(math.log(size), abs=0.12), name
        assert sum(result.context_share[name]) == pytest.approx(1)
        assert sum(result.context_contribution[name]) == pytest.approx(own, abs=1e-9)
    assert result.unavoidable["old"] == pytest.approx(0, abs=1e-12)
    # A word that cannot come adds q = 1 / V, and most words cannot: by their mean number.
    rows = true_rows(shallow, 16, 100, make_generator(0, "test text"))
    cannot = (shallow.transition_probs[shallow.walk(rows[:, 1:])] == 0).double().mean()
    assert result.token_contribution[0] == pytest.approx(float(cannot), abs=1e-9)
    assert sum(result.token_contribution) == pytest.approx(result.own_error["old"], abs=1e-6)


@pytest.mark.slow
def test_a_small_run_repeats_with_its_seed_and_is_json() -> None:
    with one_thread(), unchecked():
        one = distribution_shift.run(quick(), seed=0)
        again = distribution_shift.run(quick(), seed=0)
    assert one == again
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert one.adaptation_steps == [0, 1, 2, 4]
    assert set(one.adaptation_old) == {"0% old", "50% old"}
    assert {len(values) for values in one.adaptation_new.values()} == {4}
    assert one.adaptation_old["0% old"][0] == one.adaptation_old["50% old"][0]
    assert one.pair_steps == [1, 2]
    assert len(one.pair_ratio) == len(one.pair_own_error) == len(one.pair_own_error_there) == 2


def test_settings_that_mean_nothing_are_refused() -> None:
    for setting, message in (
        ({"depth": 0}, "depth must be >= 1"),
        ({"test_tokens": 100}, "test_tokens must be >= 1600"),
        ({"pair_steps": (2, 1)}, "pair_steps must rise"),
        ({"old_streams": (16,)}, "old_streams must lie in"),
    ):
        with pytest.raises(ValueError, match=message):
            distribution_shift.Config(**setting)
    with pytest.raises(ValueError, match="piece_bytes must be >= 80"):
        strange_text.Config(piece_bytes=50)
    with pytest.raises(ValueError, match="real_bytes must be >= piece_bytes"):
        strange_text.Config(real_bytes=100)


@pytest.mark.slow
def test_a_short_training_shows_whose_fault_a_shift_is(source: GrammarSource) -> None:
    """600 steps, about 20 CPU seconds."""
    with one_thread(), unchecked():
        training = TrainConfig(steps=600, num_streams=16, window_length=64, learning_rate=1e-2)
        model = train_on_source(source, seed=102, training=training)
        config = distribution_shift.Config(training=training, test_tokens=12_000)
        found = distribution_shift.Result()
        distribution_shift.measure_shifts(found, model, source, config, seed=102)
    own = found.own_error
    # Each holds in eight seeds: what training makes is compared, with no bound set by hand.
    assert own["clauses"] > max(own[words] for words in ("old", "adjectives", "nouns", "verbs"))
    assert found.unavoidable["adjectives"] > found.unavoidable["clauses"] > 0.05
    pairs = zip(found.context_contribution["old"], found.context_share["old"], strict=True)
    means = [amount / share for amount, share in pairs]
    assert min(means[1:3]) > means[-2] > means[-1]  # the first bin has 20 positions
    rare = found.carried_by_rarest_tenth
    assert rare["context count"] > 0.1 + rare["token probability"]


def test_shakespeare_is_read_only_where_he_is_at_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "line.txt").write_text("To be or not to be é\n" * 300, encoding="utf-8")
    corpus, asked = load_corpus(tmp_path / "line.txt"), []

    def fake(name: str) -> Corpus:  # parsing the library takes seconds
        asked.append(name)
        return corpus

    monkeypatch.setattr(strange_text, "load_corpus", fake)
    monkeypatch.delenv("COMPANION_DATA", raising=False)
    kinds = ["reference", "docstrings", "code"]
    assert list(strange_text.held_out_texts(500)) == kinds
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    assert list(strange_text.held_out_texts(500)) == kinds
    assert "tiny-shakespeare" not in asked
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").touch()
    texts = strange_text.held_out_texts(501)
    assert list(texts) == [*kinds, "Shakespeare"]
    assert asked[-1] == "tiny-shakespeare"
    assert all(499 <= len(text.encode()) <= 501 for text in texts.values())


@pytest.mark.slow
def test_a_uniform_model_of_bytes_tells_nothing_and_costs_log_257(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COMPANION_DATA", raising=False)
    config = strange_text.Config(real_bytes=3000, num_pieces=8)
    # Not quite uniform: temperature scaling needs something to scale.
    model = uniform_model(257)
    with torch.no_grad():
        model.output.bias[32] = 3.0
    with one_thread(), unchecked():
        found = strange_text.measure(model, config, seed=0)
    assert found.shakespeare == 0
    json.dumps(dataclasses.asdict(found), allow_nan=False)
    total = math.log2(256 + math.exp(3))
    for name, bits in found.bits_per_byte.items():
        spaces = found.accuracy[name]  # the guess is always a space
        assert bits == pytest.approx(total - spaces * 3 / math.log(2), abs=1e-4)
        assert found.confidence[name] == pytest.approx(math.exp(3) / (256 + math.exp(3)))
    for scores in found.auroc.values():
        assert scores["entropy"] == pytest.approx(0.5, abs=0.01)
    assert found.auroc["spaces"]["surprisal"] == 0
