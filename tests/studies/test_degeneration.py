"""The study `degeneration`: its judge on texts that are judged by hand, and a small run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from companion.core.seeds import make_generator
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.grammar import VOCABULARY
from companion.sources.reviews import GrammarSource
from companion.sources.streams import endless_text, split_texts, surprisals, true_rows
from companion.studies import degeneration
from companion.studies.runner import one_thread
from companion.training.config import TrainConfig
from companion.training.from_source import train_on_source


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


def row_of(source: GrammarSource, text: str) -> torch.Tensor:
    return torch.tensor(source.encode(text))


GOOD = "it is great . <end>"
BAD = "it are great . <end>"


def test_endless_text_is_whole_texts_one_after_the_other(source: GrammarSource) -> None:
    text = endless_text(source, 300, generator=make_generator(0))
    assert text.shape == (300,)
    assert int(text[0]) == 0
    assert source.is_legal(text[1:])
    rows = true_rows(source, 3, 100, make_generator(0))
    assert rows.shape == (3, 101)
    assert rows[:, 0].tolist() == [0, 0, 0]
    assert all(source.is_legal(row[1:]) for row in rows)
    with pytest.raises(ValueError, match="num_tokens must be >= 1, got 0"):
        endless_text(source, 0, generator=make_generator(0))


def test_a_wrong_word_is_infinite_and_the_next_review_starts_afresh(source: GrammarSource) -> None:
    row = row_of(source, f"<end> {BAD} {GOOD}")
    nats = surprisals(source, row[None])[0]
    right = source.nats(source.encode(GOOD))
    assert math.isfinite(float(nats[0]))
    assert math.isinf(float(nats[1]))
    assert bool(nats[2:5].isnan().all())
    torch.testing.assert_close(nats[5:], right)


def test_the_surprisals_of_true_text_are_the_sources(source: GrammarSource) -> None:
    rows = true_rows(source, 3, 80, make_generator(1))
    expected = torch.stack([source.nats(row[1:]) for row in rows])
    torch.testing.assert_close(surprisals(source, rows), expected)


def test_reviews_are_those_begun_after_the_prompt(source: GrammarSource) -> None:
    row = row_of(source, f"<end> {GOOD} {BAD} it is")
    nats = surprisals(source, row[None])[0]

    def words(skip: int, most: int) -> list[str]:
        return [source.decode(review) for review, _ in split_texts(row, nats, skip, most)]

    assert words(0, 9) == [GOOD, BAD, "it is"]  # the last one is unfinished
    assert words(2, 9) == [BAD, "it is"]  # the prompt ends inside the first
    assert words(2, 1) == [BAD]
    assert [bool(n.isfinite().all()) for _, n in split_texts(row, nats, 0, 9)] == [
        True,
        False,
        True,
    ]
    assert words(10, 9) == ["it is"]


def test_a_row_that_never_begins_a_review_is_judged_as_it_goes_on(source: GrammarSource) -> None:
    row = row_of(source, "<end> it is great . it is great . it is")
    nats = surprisals(source, row[None])[0]
    ((review, review_nats),) = split_texts(row, nats, 3, 8)
    assert torch.equal(review, row[1:])
    assert len(review_nats) == len(review)


def test_a_uniform_model_is_judged_as_arithmetic_says(source: GrammarSource) -> None:
    """Untrained with zero output weights: all next words alike, whatever came before."""
    size = source.vocabulary_size
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=size, hidden_size=8)).eval()
    torch.nn.init.zeros_(model.output.weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(model.output.bias)  # type: ignore[arg-type]
    result = degeneration.measure(model, source, quick(), seed=0)
    assert result.kl_nats_per_token == pytest.approx(
        math.log(size) - result.entropy_nats_per_token,
        abs=0.1,  # 1,600 prefixes are sampled
    )
    assert result.model_surprisal_mean["T=1"] == pytest.approx(math.log(size), abs=1e-5)
    # Top-k keeps ids 0 to 9 of equals: what they have of the truth is left.
    rows = true_rows(source, 16, 2000, make_generator(7))
    truth = source.transition_probs[source.walk(rows[:, 1:])]
    assert result.cut_mass["top-k 10"] == pytest.approx(
        float(1 - truth[..., :10].sum(-1).mean()), abs=0.04
    )
    assert result.cut_mass["T=1"] == 0
    assert result.moved_mass["T=1"] == pytest.approx(
        float((truth - 1 / size).abs().sum(-1).mean() / 2), abs=0.02
    )
    assert result.ungrammatical["T=1"] > 0.9
    assert result.ungrammatical["source"] == result.ungrammatical["source best"] == 0
    assert result.repetition["greedy"] > 0.95  # it writes token 0 for ever


def quick() -> degeneration.Config:
    return degeneration.Config(
        model=LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=8, hidden_size=16),
        training=TrainConfig(steps=40, num_streams=16, learning_rate=1e-2),
        num_streams=12, num_tokens=60, repetition_tokens=50, num_searches=2, search_width=2,
        beam_widths=(1, 2), test_tokens=1600,
    )  # fmt: skip


def test_decoders_are_named_by_their_settings() -> None:
    names = list(degeneration.Config().decoders())
    assert names == [
        "T=0.4", "T=0.7", "T=1", "T=1.25", "top-k 3", "top-k 10", "top-k 30",
        "top-p 0.7", "top-p 0.9", "top-p 0.95", "greedy",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="repetition_tokens must be between 1 and"):
        degeneration.Config(num_tokens=100, repetition_tokens=101)
    with pytest.raises(ValueError, match="num_searches must be between 1 and"):
        degeneration.Config(num_searches=0)


@pytest.mark.slow
def test_a_small_run_repeats_with_its_seed_and_is_json() -> None:
    with one_thread():
        one = degeneration.run(quick(), seed=0)
        again = degeneration.run(quick(), seed=0)
        other = degeneration.run(quick(), seed=1)
    assert one == again
    assert one != other
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    by_who = {*quick().decoders(), "beam 2", "source", "source best"}
    for name in ("ungrammatical", "repetition", "repeated_sentences", "mean_length",
                 "model_surprisal_mean"):  # fmt: skip
        assert set(getattr(one, name)) == by_who, name
    assert {"source", "source best", "T=1"} <= set(one.surprisal_mean) <= by_who
    assert set(one.surprisal_mean) == set(one.surprisal_spread)
    assert set(one.cut_mass) == set(one.moved_mass) == set(quick().decoders())
    assert set(one.beam_tokens) == {"1", "2"}


@pytest.mark.slow
def test_a_short_training_shows_every_effect_of_the_study(source: GrammarSource) -> None:
    """500 steps, about 25 CPU seconds; a longer training only makes the differences clearer."""
    training = dataclasses.replace(degeneration.Config().training, steps=500)
    with one_thread():
        model = train_on_source(source, seed=5, training=training)
        config = degeneration.Config(
            num_streams=60, num_searches=4, beam_widths=(1, 8, 32), test_tokens=8000
        )
        found = degeneration.measure(model, source, config, seed=5)
    bad = found.ungrammatical
    assert 0.02 < found.kl_nats_per_token < 0.4
    # Halving needs a longer training; the order shows early.
    assert bad["T=0.7"] < bad["T=1"] - 0.1
    assert bad["T=1.25"] > bad["T=1"] + 0.1
    assert bad["top-p 0.7"] < bad["T=1"] - 0.1
    assert found.cut_mass["top-p 0.7"] > found.cut_mass["top-p 0.95"] > 0
    for looping in ("greedy", "beam 8", "source best"):
        assert found.repetition[looping] > 0.7
        assert found.surprisal_mean[looping] < found.surprisal_mean["source"] - 0.3
    assert found.repetition["source"] < 0.05
    lengths = found.beam_tokens
    assert lengths["32"] <= lengths["8"] <= lengths["1"] < found.mean_length["source"]
