"""What a tuned model is worth and costs: closed forms, and text that is judged by hand."""

from __future__ import annotations

import math

import pytest
import torch

from companion.core.seeds import make_generator, seed_everything
from companion.evaluation.texts import log_probs_and_kl
from companion.generation.texts import write_texts
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.preferences.tuning_costs import TuningCosts, whole_sentences
from companion.sources.reviews import GrammarSource


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


def untrained(source: GrammarSource, seed: int = 0) -> LSTMLanguageModel:
    seed_everything(seed)
    size = source.vocabulary_size
    return LSTMLanguageModel(LSTMConfig(vocabulary_size=size, hidden_size=8)).eval()


def test_the_model_before_is_at_no_distance_from_itself(source: GrammarSource) -> None:
    model = untrained(source)
    scales = TuningCosts(
        model=model, source=source, generator=make_generator(0), own_texts=40, true_texts=60
    )
    figures = scales.figures(model)
    assert figures["kl"] == pytest.approx(0, abs=1e-4)
    # Next to uniform: the KL from the source is log V less the entropy, here of 60 texts.
    expected = math.log(source.vocabulary_size) - source.entropy_rate()
    assert figures["source_kl"] == pytest.approx(expected, abs=0.3)
    assert figures["ungrammatical"] > 0.9


def test_the_source_repeats_itself_a_little(source: GrammarSource) -> None:
    scales = TuningCosts(
        model=untrained(source), source=source, generator=make_generator(0), greedy_tokens=40
    )
    assert 0 < scales.source_repetition(3000) < 0.01


def test_texts_are_cut_after_their_last_full_stop(source: GrammarSource) -> None:
    texts = torch.tensor(
        [source.encode("it is great . i love it"), source.encode("it is great . it is .")]
    )
    assert [source.decode(row) for row in whole_sentences(texts, source)] == [
        "it is great . <end> <end> <end>", "it is great . it is ."
    ]  # fmt: skip


def test_the_divergence_is_the_mean_log_ratio_along_its_own_reviews(source: GrammarSource) -> None:
    """Not token by token the same, but within the noise of the plain estimate."""
    model, policy = untrained(source), untrained(source, seed=1)
    with torch.no_grad():
        policy.output.bias += torch.randn(  # type: ignore[operator]
            source.vocabulary_size, generator=make_generator(2)
        )
    scales = TuningCosts(model=model, source=source, generator=make_generator(0), num_tokens=12)
    kl = scales.own_figures(policy, 500)["kl"]
    texts = write_texts(policy, 2000, 12, generator=make_generator(1))
    with torch.no_grad():
        scores = log_probs_and_kl(policy, model, texts)
    ratio = scores.log_p - scores.log_q
    error = float(ratio.std()) / math.sqrt(2000) + float(scores.kl.std()) / math.sqrt(500)
    assert kl == pytest.approx(float(ratio.mean()), abs=4 * error)
    assert kl > 1


def test_a_model_that_says_one_word_for_ever_repeats_it(source: GrammarSource) -> None:
    model = untrained(source)
    with torch.no_grad():
        model.output.bias[7] = 50.0  # type: ignore[operator]
    scales = TuningCosts(
        model=model, source=source, generator=make_generator(0), greedy_texts=4, greedy_tokens=23
    )
    figures = scales.greedy_figures(model)
    assert figures["repetition"] == pytest.approx(1 - 1 / 20)  # one 4-gram of twenty
