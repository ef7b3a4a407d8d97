"""The study `bias`: its arithmetic by other ways, and a tiny run."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import get_args

import pytest
import torch

from companion.core.seeds import make_generator
from companion.models.averaged import SwapAveraged
from companion.models.base import LanguageModel
from companion.models.classifier import ClassifierConfig, TextClassifier
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.planted import DEEDS, LINKS, NAMES, TRAITS, PlantedConfig, PlantedSource
from companion.studies import bias
from companion.training.classification import FineTuningConfig

CONFIG = bias.Config(
    strengths=(0.0,), num_runs=2, texts=256, batch_size=32, embedding_size=8, hidden_size=8,
    samples=(20, 40), labelled=20, repeats=1, queue=100, fine_tuning=FineTuningConfig(steps=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def source() -> PlantedSource:
    return PlantedSource()


@pytest.fixture(scope="module")
def rows(source: PlantedSource) -> torch.Tensor:
    return bias.training_rows(source, dataclasses.replace(CONFIG, texts=8_000), seed=1)


@pytest.fixture(scope="module")
def model(source: PlantedSource) -> LSTMLanguageModel:
    torch.manual_seed(0)
    sizes = LSTMConfig(vocabulary_size=source.vocabulary_size, embedding_size=8, hidden_size=8)
    return LSTMLanguageModel(sizes).eval()


def test_counts_are_those_of_the_texts(source: PlantedSource, rows: torch.Tensor) -> None:
    table = [[0, 0], [0, 0]]
    for row in rows[:1000]:
        words = set(source.decode(row.tolist()).split())
        for i, people in enumerate(("ond", "vel")):
            for j, tone in enumerate(("good", "bad")):
                table[i][j] += bool(words & set(NAMES[people]) and words & set(TRAITS[tone]))
    assert bias.counts(source, rows[:1000]).tolist() == table


def test_the_exact_kl_agrees_with_an_estimate_from_samples(
    source: PlantedSource, rows: torch.Tensor, model: LSTMLanguageModel
) -> None:
    from companion.losses.cross_entropy import token_nats
    from companion.text.rows import text_batch

    with torch.no_grad():
        batch = text_batch(rows)
        log_q = -token_nats(model(batch.inputs)[0], batch.targets).sum(dim=1).double()
    each = source.log_probs([row[: int((row != 0).sum()) + 1] for row in rows]) - log_q
    estimate = float(each.mean()) / source.mean_length()
    error = float(each.std()) / math.sqrt(len(rows)) / source.mean_length()
    assert abs(bias.exact_kl(source, model) - estimate) < 4 * error


class ByWords(LanguageModel):
    """Features are zero, but one after each of some words; its sum over a text counts them."""

    def __init__(self, vocabulary_size: int, tokens: list[int]) -> None:
        super().__init__(vocabulary_size)
        self.register_buffer("counted", torch.zeros(vocabulary_size, 1))
        self.counted[tokens] = 1

    def features(self, inputs: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
        return self.counted[inputs], state

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> torch.Tensor:
        return torch.zeros(batch_size)


class TheSourceItself(ByWords):
    """A model whose features are the source's exact log-probabilities."""

    def __init__(self, source: PlantedSource) -> None:
        super().__init__(source.vocabulary_size, [])
        self.source = source

    def features(self, inputs: torch.Tensor, state: object = None) -> tuple[torch.Tensor, object]:
        following = torch.cat([inputs[:, 1:], inputs[:, :1]], dim=1)
        return self.source.transition_probs[self.source.walk(following)].log(), torch.zeros(1)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return features


def test_the_least_costs_are_those_by_hand_and_of_the_source_itself(source: PlantedSource) -> None:
    least = bias.least_costs(source)
    assert math.isclose(least["placebo"], 0, abs_tol=1e-12)
    assert math.isclose(least["reweighting"], 0.9 * source.association_nats(), rel_tol=1e-9)
    forward = source.config.forward / (source.config.forward + source.config.reverse)
    expected = 0.9 * forward * source.association_nats()
    assert math.isclose(least["averaging"], expected, rel_tol=1e-9)
    # Balancing also makes listed names equally frequent, in all .8 of the texts that have a name.
    shares = 0.4 * math.log(0.8) + 0.6 * math.log(1.2)
    expected = least["reweighting"] + 0.9 * 0.8 * shares / source.mean_length()
    assert math.isclose(least["balancing"], expected, rel_tol=1e-9)
    itself = TheSourceItself(source)
    assert math.isclose(bias.exact_kl(source, itself), 0, abs_tol=1e-9)
    assert math.isclose(bias.written_odds(source, itself), 1.5, rel_tol=1e-6)
    # Cooled, both ways of asking have 3 exactly; taken together they differ in their margins.
    assert abs(bias.written_odds(source, itself, temperature=0.5) - 3) < 0.02
    averaged = SwapAveraged(itself, bias.swaps(source), share=source.config.vel)
    assert math.isclose(bias.exact_kl(source, averaged), least["averaging"], rel_tol=1e-4)


def test_the_initial_embeddings_are_those_training_begins_with(source: PlantedSource) -> None:
    config = dataclasses.replace(CONFIG, texts=32, learning_rate=1e-12)
    rows = bias.training_rows(source, config, seed=5)
    trained = bias.learn(source, rows, config, seed=5).embedding.weight
    torch.testing.assert_close(trained, bias.initial_embeddings(source, config, seed=5))
    assert not torch.equal(trained, bias.initial_embeddings(source, config, seed=6))


def test_balancing_makes_listed_people_and_tone_independent(
    source: PlantedSource, rows: torch.Tensor
) -> None:
    table, people, tone = bias.people_and_tone(source, rows, names=bias.LISTED)
    weights = bias.balancing_weights(source, rows)
    weighed = torch.zeros(2, 2, dtype=torch.float64)
    both = (people >= 0) & (tone >= 0)
    weighed.index_put_((people[both], tone[both]), weights[both], accumulate=True)
    odds = weighed[1, 1] * weighed[0, 0] / weighed[1, 0] / weighed[0, 1]
    assert math.isclose(float(odds), 1, rel_tol=1e-9)
    torch.testing.assert_close(weighed.sum(dim=0), table.double().sum(dim=0))
    assert bool((weights[~both] == 1).all())
    swapped = bias.swapped(rows, bias.swaps(source), generator=make_generator(0))
    cells = bias.people_and_tone(source, swapped, names=bias.LISTED)[0].double()
    log_odds = (cells[1, 1] * cells[0, 0] / cells[1, 0] / cells[0, 1]).log()
    assert abs(float(log_odds)) < 4 * math.sqrt(float((1 / cells).sum()))


def test_swapping_touches_listed_words_alone(source: PlantedSource, rows: torch.Tensor) -> None:
    swapped = bias.swapped(rows, bias.swaps(source), generator=make_generator(0))
    changed = rows[swapped != rows].unique().tolist()
    listed = [NAMES[people][i] for people in NAMES for i in bias.LISTED]
    assert sorted(changed) == sorted(source.encode(" ".join(listed)))
    share = float((swapped != rows).any(dim=1).double().mean())
    assert 0.3 < share < 0.4  # half of the texts with a listed name, .8 * .9


def test_the_ways_of_asking_share_no_template() -> None:
    ways = bias.ways_of_asking()
    texts = {
        way: {text for template in templates for q in template for text in (q.first, q.second)}
        for way, templates in ways.items()
    }
    names = list(texts)
    assert not any(texts[a] & texts[b] for a in names for b in names if a < b)
    assert len(ways["asked"]) == 3 * (len(LINKS) - 1)
    unlisted = NAMES["vel"][-1]
    assert all(unlisted in q.second for t in ways["unlisted names"] for q in t)
    assert not any(unlisted in text for text in texts["asked"] | texts["new template"])


def test_messages_have_exact_probabilities() -> None:
    for log_odds in (0.0, 1.5):
        everything = bias.messages(log_odds)
        odds = {}
        for people in ("ond", "vel"):
            some = [m for m in everything if m.people == people]
            assert math.isclose(sum(m.weight for m in some), 1)
            share = sum(m.weight * m.complaint for m in some)
            odds[people] = math.log(share / (1 - share))
        assert math.isclose(odds["vel"] - odds["ond"], log_odds, abs_tol=1e-9)
        assert math.isclose(odds["ond"], math.log(0.3 / 0.7))
    text = "the besh cheats and steals"
    (message,) = [m for m in bias.messages() if m.text == text]
    assert math.isclose(message.complaint, 0.3 * 9 / (0.3 * 9 + 0.7))


def classifier_of(source: PlantedSource, words: tuple[str, ...]) -> TextClassifier:
    """Probability of a complaint .9 where a text has one of the words, .1 where not."""
    body = ByWords(source.vocabulary_size, source.encode(" ".join(words)))
    made = TextClassifier(body, ClassifierConfig(num_classes=2, pooling=("max",)))
    with torch.no_grad():
        made.head.weight.copy_(torch.tensor([[0.0], [2 * math.log(9)]]))
        made.head.bias.copy_(torch.tensor([0.0, -math.log(9)]))
    return made.eval()


def test_a_classifier_that_reads_the_deeds_alone_is_fair_and_one_of_names_is_not(
    source: PlantedSource,
) -> None:
    gap, opportunity = bias.unfairness(classifier_of(source, DEEDS["bad"]), source)
    assert math.isclose(gap, 0, abs_tol=1e-9)
    assert math.isclose(opportunity, 0, abs_tol=1e-9)
    gap, opportunity = bias.unfairness(classifier_of(source, NAMES["vel"]), source)
    assert math.isclose(gap, 0.8, abs_tol=1e-6)
    assert math.isclose(opportunity, 1, abs_tol=1e-6)
    gap, _ = bias.unfairness(classifier_of(source, NAMES["vel"][:1]), source)
    assert math.isclose(gap, 0.4 * 0.8, abs_tol=1e-6)  # rosk is .4 of the vel


def test_drawn_messages_have_their_shares(source: PlantedSource) -> None:
    texts, drawn = bias.draw_messages(source, 4000, generator=make_generator(0, "m"), log_odds=0.0)
    share = float(texts.labels.double().mean())
    assert 0.26 < share < 0.34  # .3, and four standard deviations are .03
    assert 0.36 < sum(m.people == "vel" for m in drawn) / 4000 < 0.44


def test_counted_vectors_show_which_words_stand_together(source: PlantedSource) -> None:
    strong = PlantedSource(PlantedConfig(log_odds=3.0))
    some = text_rows_of(strong, 20_000)
    vectors = bias.counted_vectors(some, strong.vocabulary_size, 8)

    def nearer_to_bad(name: str) -> float:
        one, bad, good = (
            vectors[strong.encode(" ".join(words))]
            for words in ((name,), ("greedy", "rude", "lazy"), ("gentle", "honest", "patient"))
        )
        cosines = [torch.nn.functional.cosine_similarity(one, each) for each in (bad, good)]
        return float(cosines[0].mean() - cosines[1].mean())

    assert min(map(nearer_to_bad, NAMES["vel"])) > max(map(nearer_to_bad, NAMES["ond"]))


def text_rows_of(source: PlantedSource, n: int) -> torch.Tensor:
    return bias.training_rows(source, dataclasses.replace(CONFIG, texts=n), seed=2)


@pytest.mark.slow
def test_a_tiny_run_fills_every_figure_and_json_holds_it() -> None:
    result = bias.run(CONFIG, seed=0)
    assert len(result.runs) == len(result.corpus) == len(result.kl) == 2
    assert set(result.left) == {"none", *get_args(bias.Remedy)}
    assert set(result.cost) == set(get_args(bias.Remedy))
    assert set(result.by_strength) == set(result.gap_equal) == {"0", "1.5"}
    assert set(result.generated) == {"20", "40"}
    assert abs(result.left["averaging"]["asked"]) < 1e-5
    assert result.left["averaging"]["reverse"] == pytest.approx(
        result.left["none"]["reverse"], abs=1e-5
    )
    assert result.queue["cost at best"] <= result.queue["cost at half"]
    assert json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_runs": 1}, "num_runs must be >= 2"),
        ({"remedies": ("prayer",)}, "each of remedies must be one of again"),
        ({"strengths": (1.0,)}, "the control 0"),
        ({"strengths": (0.0, 1.5)}, "strengths are beside source.log_odds"),
        ({"penalty": 0.0}, "penalty must be > 0"),
        ({"reviewers": ((0.9, 0.9),)}, "reviewers must be two"),
        ({"reviewers": ((0.9, 0.9), (0.5, 0.5))}, "no better than chance"),
        ({"miss_cost": 0.0}, "miss must be a cost > 0"),
        ({"queue": 0}, "queue must be >= 1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
