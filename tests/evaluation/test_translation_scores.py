"""Scores of translations: exact match, sacrebleu's figures, the look-up, and what loss means."""

import math

import pytest
import torch

from companion.evaluation.translation import exact_match, look_up, pair_nats, score_translations
from companion.generation.decoding import SamplingConfig, generate
from companion.generation.translation import Translator
from companion.models.seq2seq import Seq2Seq, Seq2SeqConfig
from companion.text.parallel import Pair
from companion.text.tokenizers import CharacterTokenizer, WordTokenizer

PAIRS = [Pair("a b c", "xyx"), Pair("b", "y"), Pair("a a b", "xxyy"), Pair("b a", "yx")]


def translator() -> Translator:
    torch.manual_seed(0)
    source = WordTokenizer.fit([pair.source for pair in PAIRS])
    target = CharacterTokenizer.fit([pair.target for pair in PAIRS])
    config = Seq2SeqConfig(
        source_size=source.vocabulary_size, target_size=target.vocabulary_size,
        embedding_size=4, hidden_size=8,
    )  # fmt: skip
    return Translator(model=Seq2Seq(config).double().eval(), source=source, target=target)


def test_perfect_translations_score_one_hundred():
    pytest.importorskip("sacrebleu")
    texts = ["one two three four five", "six seven eight nine ten"]
    scores = score_translations(texts, texts, resamples=100)
    assert scores.exact_match == 1
    assert scores.length_ratio == 1
    for metric in (scores.bleu, scores.chrf):
        assert metric.score == pytest.approx(100)
        assert metric.low == pytest.approx(100)
        assert metric.high == pytest.approx(100)
    assert "tok:13a" in scores.bleu.signature
    assert "bs:100" in scores.bleu.signature
    assert "version:" in scores.chrf.signature


def test_bleu_is_its_formula():
    """One sentence, no smoothing in play: precisions 5/6, 4/5, 3/4, 2/3 and exp(1 - 7/6)."""
    pytest.importorskip("sacrebleu")
    scores = score_translations(["a b c d e z"], ["a b c d e f g"], resamples=100)
    expected = math.exp(1 - 7 / 6) * (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25
    assert scores.bleu.score == pytest.approx(100 * expected)


def test_an_interval_holds_its_score_and_shrinks_with_sentences():
    pytest.importorskip("sacrebleu")
    right, wrong = "a b c d e f", "a b q d e f"
    widths = []
    for repeat in (5, 50):
        scores = score_translations([right, wrong] * repeat, [right, right] * repeat)
        assert scores.bleu.low < scores.bleu.score < scores.bleu.high
        widths.append(scores.bleu.high - scores.bleu.low)
    assert 2 < widths[0] / widths[1] < 4.5  # the root of 10 is expected


def test_exact_match_counts_whole_sentences():
    assert exact_match(["a b", "c", "d"], ["a b", "c ", "d"]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="1 translations and 2 references"):
        exact_match(["a"], ["a", "b"])


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="2 translations and 1 references"):
        score_translations(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="0 translations and 0 references"):
        score_translations([], [])
    with pytest.raises(ValueError, match="must not be empty"):
        score_translations(["a"], [""])


def test_missing_sacrebleu_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ValueError, match="pip install sacrebleu"):
        score_translations(["a"], ["a"])


def test_look_up_takes_the_most_similar_sentence_and_of_equals_the_first():
    known = [
        Pair("save the file", "1"), Pair("delete the file", "2"), Pair("Delete THE file", "3"),
        Pair("delete the file and the folder", "4"),
    ]  # fmt: skip
    asked = ["delete the file", "save it", "nothing known", "delete the file and the disk"]
    assert look_up(known, asked) == ["2", "1", "1", "4"]
    with pytest.raises(ValueError, match="no pair to look"):
        look_up([], ["a"])


def test_nats_of_a_batch_are_those_of_each_pair():
    model = translator()
    nats, tokens = pair_nats(model, PAIRS)
    assert tokens.tolist() == [len(pair.target) + 1 for pair in PAIRS]
    for row, pair in enumerate(PAIRS):
        alone, _ = pair_nats(model, [pair])
        assert float(alone) == pytest.approx(float(nats[row]), abs=1e-12)
    two, _ = pair_nats(model, PAIRS, batch_size=2)
    torch.testing.assert_close(two, nats, rtol=0, atol=1e-12)


def test_translations_that_hardly_match_have_a_score_and_an_interval():
    """Some resamples hold no character of their references, which sacrebleu 2.6 stumbles over."""
    scores = score_translations(["xx", "xx", "xx", "save"], ["ab", "cd", "ef", "save it"])
    assert 0 <= scores.chrf.low < scores.chrf.score < scores.chrf.high
    assert scores.bleu.score >= 0


def test_exp_of_minus_nats_is_how_often_a_sample_is_the_reference():
    """5,000 samples: the share of the reference "y" within 4 standard errors."""
    model = translator()
    nats, _ = pair_nats(model, [Pair("b", "y")])
    expected = math.exp(-float(nats))
    source = torch.tensor([[*model.source.encode("b"), model.source.end_id]])
    end = model.target.end_id
    rows = generate(
        model.model.given(source), torch.full((5000, 1), end), 4, SamplingConfig(),
        end_id=end, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    wanted = torch.tensor([*model.target.encode("y"), end])
    share = float((rows[:, :2] == wanted).all(dim=1).double().mean())
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 5000)


def test_only_the_tokenizers_of_the_training_fit():
    model = translator()
    with pytest.raises(ValueError, match="use those it was trained with"):
        Translator(model=model.model, source=model.target, target=model.source)
