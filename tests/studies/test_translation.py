"""The study `translation`: what is trained on and tested never meet, and a tiny run."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from typing import get_args

import pytest

from companion.sources.spelled_out import CURRENCIES
from companion.studies import translation
from companion.text.parallel import Pair
from companion.training.translation import TranslationConfig

for library in ("num2words", "babel", "django", "sacrebleu"):
    pytest.importorskip(library)

TINY = TranslationConfig(steps=2, embedding_size=4, hidden_size=8)
CONFIG = translation.Config(
    num_pairs=120, doses=(40,), num_test=16, noisy_pairs=40, num_searches=2, widths=(1, 2),
    parts=get_args(translation.Part), rare_counts=(1, 2), translator=TINY,
    catalogue_translator=TINY, catalogue_tokens=300,
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> translation.Sentences:
    return translation.sentences(dataclasses.replace(CONFIG, num_pairs=600), seed=3)


def test_no_tested_sentence_is_trained_on(data: translation.Sentences) -> None:
    tested = [data.test, *data.by_digits.values()]
    for trained in (data.train, data.short):
        sources = {pair.source for pair in trained}
        assert len(sources) == len(trained) == 600
        for pairs in (*tested, *data.rare.values()):
            assert pairs
            assert not any(pair.source in sources for pair in pairs)


def test_each_rare_currency_stands_in_training_as_often_as_it_says(
    data: translation.Sentences,
) -> None:
    for count in CONFIG.rare_counts:
        name = data.currency[str(count)]
        assert sum(pair.target.endswith(name) for pair in data.train) == count
        assert all(pair.target.endswith(name) for pair in data.rare[str(count)])
    assert not any(
        pair.target.endswith(data.currency[str(count)])
        for pair in data.test
        for count in CONFIG.rare_counts
    )


def test_the_short_sentences_hold_no_long_number(data: translation.Sentences) -> None:
    """Chinese writes ten thousands with 万, which numbers of four digits never need."""
    assert any("万" in pair.target for pair in data.train)
    assert not any("万" in pair.target for pair in data.short)
    assert all("万" in pair.target for digits in "56" for pair in data.by_digits[digits])


def test_cut_targets_keep_their_first_token_in_about_the_share_asked_for() -> None:
    pairs = [Pair("s", "一二三")] * 400 + [Pair("s", "un deux")] * 400
    cut = translation.cut_targets(pairs, 0.25, seed=0)
    assert {pair.target for pair in cut} == {"一二三", "一", "un deux", "un"}
    share = sum(a != b for a, b in zip(cut, pairs, strict=True)) / 800
    assert 0.19 < share < 0.31  # 4 standard deviations
    assert translation.cut_targets(pairs, 0.0, seed=0) == pairs
    assert translation.cut_targets(pairs, 0.25, seed=0) == cut


@pytest.mark.slow
def test_a_tiny_run_fills_every_figure_and_json_holds_it() -> None:
    result = translation.run(CONFIG, seed=0)
    assert set(result.exact) == {"attention", "uniform", "none", "40", "noisy"}
    assert result.exact.keys() == result.nats_per_token.keys() == result.sampled.keys()
    searches = {f"{p:g} {w}" for p, w in itertools.product((0.0, 1.0), (1, 2))}
    assert set(result.beam_exact) == set(result.beam_ratio) == set(result.beam_nats) == searches
    assert set(result.clean_exact) == {"1", "2"}
    assert set(result.rare) == {"1", "2", "common"}
    assert set(result.by_digits) == set(result.by_digits_all) == {"3", "4", "5", "6"}
    assert result.catalogue_bleu.keys() == {"translator", "copy", "look-up"}
    for name, score in result.catalogue_bleu.items():
        assert result.catalogue_low[name] <= score <= result.catalogue_high[name]
    assert re.search(r"tok:13a.*version:", result.signature["BLEU"])
    # Two searches of which the wider found something less probable would be greedy's failure.
    assert result.beam_nats["0 2"] <= result.beam_nats["0 1"] + 1e-6
    assert json.loads(json.dumps(dataclasses.asdict(result), allow_nan=False))


@pytest.mark.slow
def test_another_language_and_one_part_alone() -> None:
    config = dataclasses.replace(
        CONFIG, target="fr", parts=("beams",), doses=(), widths=(1,), num_pairs=60
    )
    result = translation.run(config, seed=0)
    assert result.catalogue_bleu == result.rare == result.by_digits == {}
    assert set(result.exact) == {"attention", "noisy"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"parts": ("bleu",)}, "each of parts must be one of attention, doses"),
        ({"target": "ja"}, "target must be one of en, zh, de, fr"),
        ({"doses": (0,)}, "doses must be between 1 and num_pairs = 120"),
        ({"noisy_pairs": 121}, "noisy_pairs must be between 1 and num_pairs = 120"),
        ({"noise": 1.0}, r"noise must be in \[0, 1\)"),
        ({"short_digits": 6}, "short_digits must be between 1 and 5"),
        ({"rare_counts": tuple(range(1, 1 + len(CURRENCIES)))}, "two must be common"),
        ({"rare_counts": (1, 1)}, "different"),
        ({"num_test": 0}, "num_test must be >= 1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(CONFIG, **changes)
