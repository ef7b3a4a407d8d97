"""The study `sentiment`: its arithmetic against known truths, and a tiny run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter

import pytest
import torch
from annotation_checker import unchecked

from companion.core.seeds import make_generator
from companion.models.base import LanguageModel
from companion.models.classifier import ClassifierConfig, TextClassifier
from companion.models.lstm import LSTMConfig
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import OPINIONS, VOCABULARY
from companion.sources.labelled_reviews import Reviews, ReviewSizes, write_reviews
from companion.sources.reviews import GrammarSource
from companion.studies import sentiment
from companion.training.classification import FineTuningConfig
from companion.training.config import TrainConfig

CONFIG = sentiment.Config(
    doses=(4, 40), compared=20, agreement=0.7, stages=(1,),
    reviews=ReviewSizes(train=40, draws=2, test=40, valid=20, cue=40),
    model=LSTMConfig(vocabulary_size=len(VOCABULARY), embedding_size=4, hidden_size=8),
    pretraining=TrainConfig(steps=2, num_streams=4),
    training=FineTuningConfig(steps=2, unfreeze_every=1),
)  # fmt: skip


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


@pytest.fixture(scope="module")
def reviews(source) -> Reviews:
    return write_reviews(source, CONFIG.reviews, seed=3)


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


def test_the_oracle_agrees_with_the_first_opinion_and_a_leak_shows(source, reviews) -> None:
    assert sentiment.opinion_agreement(Oracle(source), reviews.test) == 1.0
    found = sentiment.opinion_agreement(Oracle(source, leak=0.2), reviews.test)
    # Of the leaked fifth, half goes to the words of the other opinion, which are as many.
    assert Counter(OPINIONS.values())["+"] == len(OPINIONS) / 2
    assert found == pytest.approx(0.9, abs=1e-6)


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

    unit = sentiment.best_unit(OneUnit(GrammarSource()), reviews)
    assert (unit.number, unit.side, unit.accuracy) == (1, -1, 1.0)  # positive is below here
    assert unit.threshold == pytest.approx(5, abs=1e-5)


def test_excess_nats_are_none_for_the_source_itself_and_as_many_as_a_leak_costs(
    source, reviews
) -> None:
    """A leak multiplies the probability of each opinion word by 1 - leak, and adds the mass of all
    opinion words there, spread evenly."""
    exact = sentiment.excess_nats(Oracle(source).eval(), source, reviews.test)
    assert exact == pytest.approx(0, abs=1e-6)
    found = sentiment.excess_nats(Oracle(source, leak=0.2).eval(), source, reviews.test)
    opinion = [token for token, word in enumerate(VOCABULARY) if word in OPINIONS]
    total, tokens = 0.0, 0
    for row in reviews.test.rows():
        tokens += len(row) + 1
        for place, token in enumerate(row.tolist()):
            if token in opinion:
                p = source.next_token_probs(row[:place].tolist())
                leaked = 0.8 * p[token] + 0.2 * p[opinion].sum() / len(opinion)
                total += math.log(p[token] / leaked)
    assert found == pytest.approx(total / tokens, abs=1e-6)
    assert found > 0.01


def test_pretraining_reads_no_labelled_review(source, reviews, monkeypatch) -> None:
    """The source writes the test reviews half of the time."""
    asked = []

    class Half(GrammarSource):
        def sample(self, n, *, generator):
            tests = [torch.cat([row, torch.tensor([0])]) for row in reviews.test.rows()]
            some = super().sample(n, generator=generator)
            return [tests[i % len(tests)] if i % 2 else text for i, text in enumerate(some)]

    def remember(texts, **settings):
        asked.extend(texts.sample(100, generator=make_generator(0)))

    monkeypatch.setattr(sentiment, "train_on_texts", remember)
    with unchecked():
        sentiment.pretrain(Half(), reviews, CONFIG, seed=0)
    known = {tuple(row.tolist()) for row in reviews.test.rows()}
    assert len(asked) == 100
    assert not known & {tuple(text[:-1].tolist()) for text in asked}


def test_a_list_of_words_is_right_where_it_has_one_and_guesses_elsewhere(reviews) -> None:
    some = reviews.train.first(4)
    words = sentiment.opinion_words(some)
    assert {VOCABULARY[t] for t in words} == {
        VOCABULARY[t] for row in some.rows() for t in row.tolist() if VOCABULARY[t] in OPINIONS
    }
    assert sentiment.word_list_accuracy(words, some) == 1.0
    assert sentiment.word_list_accuracy(set(), some) == 0.5
    first = sentiment.opinion_words(some.first(1))
    met = sum(bool(first & set(row.tolist())) for row in some.rows())
    assert 1 <= met < 4
    assert sentiment.word_list_accuracy(first, some) == (met + 0.5 * (4 - met)) / 4


def test_where_all_are_right_no_temperature_is_fitted(reviews) -> None:
    """A head that reads the opinion itself is right everywhere; one that is wrong somewhere is
    not."""

    class Opinion(Oracle):
        def features(self, inputs, state=None):
            signs = torch.tensor(
                [{"+": 1.0, "-": -1.0}.get(OPINIONS.get(word, ""), 0.0) for word in VOCABULARY]
            )
            return signs[inputs].cumsum(dim=1).sign().unsqueeze(-1), state

    made = TextClassifier(Opinion(GrammarSource()), ClassifierConfig(pooling=("last",))).eval()
    with torch.no_grad():
        made.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        made.head.bias.zero_()
    assert sentiment.fitted_temperature(made, reviews.valid) is None
    mistaken = reviews.valid.labels.clone()
    mistaken[:2] = 1 - mistaken[:2]  # 2 of 20 wrong, each with logits 1 and -1: p = .9 is best
    wrong = dataclasses.replace(reviews.valid, labels=mistaken)
    found = sentiment.fitted_temperature(made, wrong)
    assert found == pytest.approx(2 / math.log(9), rel=1e-4)


@pytest.mark.slow
def test_a_tiny_run_fills_every_figure_and_json_holds_it() -> None:
    result = sentiment.run(CONFIG, seed=0)
    models = {"pretrained", "1 steps", "independent opinions", "shuffled words"}
    full = {f"{body} {dose}" for body in ("scratch", "pretrained") for dose in (4, 40)}
    assert set(result.accuracy) == full | {f"{body} 4" for body in models}
    assert set(result.agreement) == set(result.excess_nats) == models | {"fresh"}
    assert set(result.best_unit) == {"pretrained", "independent opinions", "fresh"}
    assert set(result.recipes) == {"plain 4", "head 4", "fresh 4", "1 steps plain 4"}
    assert set(result.word_list) == {"4", "40"}
    assert result.opinion_words["4 fewest"] <= result.opinion_words["4 most"] <= 48
    assert result.opinion_words["40 fewest"] == result.opinion_words["40 most"]
    both = {"scratch", "pretrained"}
    assert set(result.ece) == set(result.temperature) == set(result.unfitted) == both
    controls = {f"{body} {way}" for body in ("fresh", "independent opinions")
                for way in ("plain", "balanced")}  # fmt: skip
    ways = {f"{body} {way}" for body in both for way in ("plain", "reweighted", "balanced")}
    assert set(result.cue_worst) == set(result.cue_same) == controls | ways
    for name in both:
        assert result.cost[f"{name} hindsight"] <= result.cost[f"{name} cost"] + 1e-12
        assert result.cost[f"{name} hindsight"] <= min(result.cost["none"], result.cost["all"])
        assert result.cue_worst[f"{name} plain"] == min(result.cue_groups[f"{name} plain"].values())
        assert result.unfitted[name] == 0 or result.temperature[name] == 1.0
    assert result.cost["none"] == pytest.approx(5.0)
    assert result.cost["all"] == pytest.approx(0.9)
    assert result.rare_accuracy["none flagged"] == pytest.approx(0.9)
    assert json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": ("roc",)}, "each of parts must be one of stages"),
        ({"doses": (3,)}, "doses must be even numbers >= 2"),
        ({"doses": ()}, "doses must be even numbers >= 2"),
        ({"doses": (42,)}, "doses must be at most reviews.train, 40, got 42"),
        ({"compared": 50}, "compared must be at most reviews.train, 40, got 50"),
        ({"stages": (0,)}, "stages must be numbers of steps >= 1"),
        ({"agreement": 0.0}, r"agreement must be in \(0, 1\)"),
        ({"miss": 0.0}, "miss must be > 0"),
        ({"model": LSTMConfig(vocabulary_size=5)}, "must be the grammar's"),
    ],
)
def test_wrong_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
