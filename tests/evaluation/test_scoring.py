"""Evaluation: every target once, sums before quotients, and averages worked out by hand."""

from __future__ import annotations

import inspect
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from companion.evaluation import scoring
from companion.evaluation.classification import precision_recall_f1
from companion.evaluation.scoring import (
    Evaluation,
    Scores,
    evaluate,
    score,
    scored_pieces,
    standard_error,
    summarize,
)
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.text.batching import scoring_streams

VOCABULARY = 9


def make_model(**changes):
    """A model whose predictions vary with the context: weights larger than the initial ones."""
    torch.manual_seed(1)
    config = {"vocabulary_size": VOCABULARY, "embedding_size": 6, "hidden_size": 8} | changes
    model = LSTMLanguageModel(LSTMConfig(**config)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=1.0)
    return model


def random_text(length):
    return torch.randint(VOCABULARY, (length,))


def one_token_at_a_time(model, ids):
    """Surprisals and predictions by the plainest loop: read a token, look up the next one."""
    state, nats, predictions = None, [], []
    with torch.no_grad():
        for token, following in itertools.pairwise(ids):
            logits, state = model(token.view(1, 1), state)
            log_probs = logits[0, 0].double().log_softmax(-1)
            nats.append(-float(log_probs[following]))
            predictions.append(int(log_probs.argmax()))
    return nats, predictions


# float32 surprisals of up to ~30 nats: a few parts in 10^7 each, and matrix products of
# different shapes round differently.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-5}


@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_stream_equals_reading_one_token_at_a_time(num_layers):
    model, ids = make_model(num_layers=num_layers), random_text(60)
    nats, predictions = one_token_at_a_time(model, ids)
    scores = score(model, ids, num_streams=1, window_length=7)
    np.testing.assert_allclose(scores.nats, nats, **FLOAT32)
    assert scores.predictions.tolist() == predictions
    assert torch.equal(scores.targets, ids[1:])
    result = evaluate(model, ids, num_streams=1)
    assert result.nats == pytest.approx(sum(nats), rel=1e-5)
    assert result.accuracy == np.mean(np.array(predictions) == ids[1:].numpy())


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 80), st.integers(1, 10), st.integers(1, 50))
def test_the_answer_does_not_depend_on_the_window_length(length, num_streams, window_length):
    model, ids = make_model(), random_text(length)
    whole = score(model, ids, num_streams=num_streams, window_length=1000)
    parts = score(model, ids, num_streams=num_streams, window_length=window_length)
    torch.testing.assert_close(parts.nats, whole.nats, **FLOAT32)
    assert torch.equal(parts.targets, ids[1:])
    assert torch.equal(whole.targets, ids[1:])


@pytest.mark.parametrize("changes", [{}, {"num_layers": 2, "last_size": 4, "weight_drop": 0.5}])
def test_read_as_one_the_answer_does_not_depend_on_the_number_of_streams(changes):
    model, ids = make_model(**changes), random_text(61)
    alone = score(model, ids, num_streams=1)
    for num_streams in (2, 7, 32, 60):
        scores = score(model, ids, num_streams=num_streams, window_length=4, as_one=True)
        # Starts are exact to 1e-6, and these weights let a state change nats tenfold at most.
        torch.testing.assert_close(scores.nats, alone.nats, rtol=1e-4, atol=1e-4)
        assert torch.equal(scores.targets, alone.targets)
    restarted = score(model, ids, num_streams=7)
    assert not torch.allclose(restarted.nats, alone.nats, atol=1e-2)  # or this shows nothing


def test_a_model_that_never_forgets_is_read_as_one_too():
    """Forget gates of one: what the first token wrote is in the state at the last."""
    model, ids = make_model(), random_text(41)
    for name, parameter in model.lstm.named_parameters():
        if name.startswith("bias_ih"):
            parameter.data[8:16] = 50.0
    alone = score(model, ids, num_streams=1)
    scores = score(model, ids, num_streams=8, as_one=True)
    # Sums of 40 float32 terms, kept for good.
    torch.testing.assert_close(scores.nats, alone.nats, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(score(model, ids, num_streams=8).nats, alone.nats, atol=1e-2)


def test_each_stream_is_scored_as_a_text_of_its_own():
    model, ids = make_model(), random_text(31)
    scores = score(model, ids, num_streams=3, window_length=4)
    pieces = [one_token_at_a_time(model, ids[start : start + 11])[0] for start in (0, 10, 20)]
    np.testing.assert_allclose(scores.nats, np.concatenate(pieces), **FLOAT32)


def test_a_confidence_is_the_probability_of_the_prediction_at_the_temperature_asked_for():
    model, ids = make_model(), random_text(40)
    with torch.no_grad():
        logits = model(ids[None, :-1])[0][0].double()
    for temperature in (0.5, 1.0, 3.0):
        scores = score(model, ids, num_streams=1, window_length=9, temperature=temperature)
        log_probs = (logits / temperature).log_softmax(-1)
        wanted = log_probs.max(-1)
        torch.testing.assert_close(scores.confidences, wanted.values.exp().float(), **FLOAT32)
        assert torch.equal(scores.predictions, wanted.indices)
        nats = -log_probs.gather(1, ids[1:, None])[:, 0]
        torch.testing.assert_close(scores.nats, nats.float(), **FLOAT32)
    for wrong in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="temperature must be > 0"):
            score(model, ids, temperature=wrong)


def test_evaluation_sums_and_divides_once_so_unequal_windows_weigh_by_their_tokens():
    # 20 targets at random, then an easy one in a window of its own.
    model, ids = make_model(), random_text(22)
    ids[-1] = score(model, ids, num_streams=1).predictions[-1]
    nats = torch.tensor(one_token_at_a_time(model, ids)[0])
    mean_of_means = float((nats[:20].mean() + nats[20:].mean()) / 2)
    assert abs(mean_of_means - float(nats.mean())) > 0.3  # the text tells the two apart
    result = evaluate(model, ids, num_streams=1, window_length=20)
    # float32 surprisals: a few parts in 10^7 each.
    assert result.nats_per_token == pytest.approx(float(nats.sum()) / 21, rel=1e-5)
    assert result.tokens == 21


def test_perplexity_is_the_exponential_of_the_mean_and_not_a_mean_of_exponentials():
    scores = Scores(
        nats=torch.tensor([0.0, math.log(100)]),
        predictions=torch.tensor([0, 0]),
        targets=torch.tensor([0, 1]),
    )
    # The geometric mean of 1 and 100, and not 50.5; log(100) is rounded to float32.
    assert summarize(scores).perplexity == pytest.approx(10, rel=1e-6)


def test_a_uniform_model_has_a_perplexity_of_the_vocabulary_size():
    model = make_model()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    result = evaluate(model, random_text(100), num_bytes=50)
    # log(9) in float32.
    assert result.perplexity == pytest.approx(VOCABULARY, rel=1e-6)
    # 99 targets of log2(9) bits over 50 bytes.
    assert result.bits_per_byte == pytest.approx(99 * math.log2(9) / 50, rel=1e-6)


def test_a_million_equal_terms_lose_no_digit():
    n = 1_000_000
    scores = Scores(
        nats=torch.full((n,), 0.1),
        predictions=torch.zeros(n, dtype=torch.long),
        targets=torch.zeros(n, dtype=torch.long),
    )
    # Each term is float32's 0.1, so the float64 sum is n times exactly that.
    assert summarize(scores).nats == pytest.approx(n * float(torch.tensor(0.1)), rel=1e-12)


def test_counts_and_quotients_are_those_of_the_scores():
    scores = Scores(
        nats=torch.tensor([1.0, 2.0, 3.0, 6.0]),
        predictions=torch.tensor([1, 2, 3, 0]),
        targets=torch.tensor([1, 2, 0, 3]),
    )
    result = summarize(scores, num_bytes=8, unknown_id=3)
    assert (result.tokens, result.correct, result.unknown, result.bytes) == (4, 2, 1, 8)
    assert result.nats_per_token == 3
    assert result.accuracy == 0.5
    assert result.bits_per_byte == pytest.approx(12 / math.log(2) / 8, rel=1e-15)
    assert summarize(scores).bits_per_byte is None
    assert summarize(scores).unknown == 0


def test_the_report_is_plain_numbers_under_stable_names():
    report = json.loads(json.dumps(Evaluation(nats=2.0, tokens=4, correct=1, bytes=4).to_dict()))
    assert report["nats_per_token"] == 0.5
    assert report["perplexity"] == pytest.approx(math.exp(0.5), rel=1e-15)
    assert report["bits_per_byte"] == pytest.approx(0.5 / math.log(2), rel=1e-15)
    assert report["accuracy"] == 0.25


@pytest.mark.parametrize("training", [True, False])
def test_scoring_turns_dropout_off_and_leaves_the_mode_as_it_was(training):
    model, ids = make_model(dropout=0.5).train(training), random_text(40)
    first, second = (score(model, ids).nats for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert model.training is training


@pytest.mark.parametrize("training", [True, False])
def test_pieces_that_nobody_asks_for_any_more_leave_the_mode_as_it_was(training):
    model, batch = make_model().train(training), scoring_streams(random_text(40), 2)
    for _ in scored_pieces(model, batch, 4):
        assert not model.training
        break
    assert model.training is training

    def fail():
        for _ in scored_pieces(model, batch, 4):
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert model.training is training
    model.embedding.weight.data = model.embedding.weight.data[:1]  # most tokens have no row
    for read in (score, lambda *arguments: score(*arguments, as_one=True)):
        with pytest.raises(IndexError):
            read(model, random_text(40))
        assert model.training is training


def test_no_more_logits_are_held_at_once_than_the_bound(monkeypatch):
    model, ids = make_model(), random_text(200)
    expected = score(model, ids, num_streams=4, window_length=50).nats
    made, logits = [], model.logits

    def noted(features):
        made.append(logits(features))
        return made[-1]

    monkeypatch.setattr(scoring, "MOST_LOGITS", 4 * VOCABULARY * 7)
    monkeypatch.setattr(model, "logits", noted)
    nats = score(model, ids, num_streams=4, window_length=50).nats
    assert max(each.numel() for each in made) == 4 * VOCABULARY * 7
    torch.testing.assert_close(nats, expected)


def test_more_streams_than_targets_still_miss_none():
    ids = random_text(5)
    assert torch.equal(score(make_model(), ids, num_streams=32).targets, ids[1:])


def test_sizes_below_one_and_texts_without_a_target_are_refused():
    model, ids = make_model(), random_text(10)
    with pytest.raises(ValueError, match="num_streams must be >= 1, got 0"):
        evaluate(model, ids, num_streams=0)
    with pytest.raises(ValueError, match="window_length must be >= 1, got 0"):
        evaluate(model, ids, window_length=0)
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        evaluate(model, ids[:1])


labels = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@settings(max_examples=30, deadline=None)
@given(labels)
def test_micro_precision_recall_and_f1_all_equal_accuracy(pairs):
    predictions, targets = torch.tensor(pairs).T
    result = precision_recall_f1(predictions, targets)
    for value in (result.micro_precision, result.micro_recall, result.micro_f1):
        # Quotients of small integers.
        assert value == pytest.approx(result.accuracy, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(labels)
def test_macro_averages_equal_the_definitions_written_out(pairs):
    predictions, targets = torch.tensor(pairs).T
    precisions, recalls, f1s = [], [], []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(p == t == label for p, t in pairs)
        predicted, actual = (sum(pair[i] == label for pair in pairs) for i in (0, 1))
        precisions.append(hits / predicted if predicted else 0.0)
        recalls.append(hits / actual if actual else 0.0)
        f1s.append(2 * hits / (predicted + actual))
    result = precision_recall_f1(predictions, targets)
    got = (result.macro_precision, result.macro_recall, result.macro_f1)
    assert got == pytest.approx(tuple(map(np.mean, (precisions, recalls, f1s))), abs=1e-12)


def test_macro_f1_is_ruled_by_the_rare_classes():
    # 98 of 100 right by always saying 0: accuracy 0.98, but classes 1 and 2 score zero.
    targets = torch.tensor([0] * 98 + [1, 2])
    result = precision_recall_f1(torch.zeros(100, dtype=torch.long), targets)
    assert result.accuracy == pytest.approx(0.98)
    assert result.macro_recall == pytest.approx(1 / 3)
    assert result.macro_f1 == pytest.approx(2 * 98 / 198 / 3)


def test_labels_that_do_not_pair_up_are_refused():
    empty = torch.zeros(0, dtype=torch.long)
    with pytest.raises(ValueError, match="non-empty"):
        precision_recall_f1(empty, empty)
    with pytest.raises(ValueError, match=r"one shape, got \(3,\) and \(2,\)"):
        # Without the run-time check of annotations, which would raise first.
        inspect.unwrap(precision_recall_f1)(torch.tensor([1, 2, 3]), torch.tensor([1, 2]))


def test_standard_error_of_independent_tokens_is_sigma_over_root_n():
    nats = torch.randn(400_000, generator=torch.Generator().manual_seed(0)) * 2 + 5
    # 400 blocks: the estimate of a standard deviation varies by 1/sqrt(2 * 399) = 3.5 %; 4 of them.
    assert standard_error(nats) == pytest.approx(2 / math.sqrt(400_000), rel=0.14)


def test_standard_error_sees_that_neighbours_go_together():
    # Each value 10 times in a row: a tenth of the independent numbers, an error sqrt(10) as large.
    values = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    nats = values.repeat_interleave(10)
    naive = float(nats.std()) / math.sqrt(nats.numel())
    # As above: 400 blocks, 3.5 % each, 4 of them.
    assert standard_error(nats) / naive == pytest.approx(math.sqrt(10), rel=0.14)


def test_standard_error_of_two_blocks_is_the_closed_form():
    # Means 1 and 3: standard deviation sqrt(2), over sqrt(2). The odd token at the end is left out.
    assert standard_error(torch.tensor([1.0, 1, 3, 3, 99]), block=2) == pytest.approx(1, rel=1e-12)


def test_standard_error_needs_two_blocks():
    with pytest.raises(ValueError, match="at least 2000 tokens for blocks of 1000, got 1999"):
        standard_error(torch.zeros(1999))
    with pytest.raises(ValueError, match="block must be >= 1, got 0"):
        standard_error(torch.zeros(10), block=0)


@pytest.mark.gpu
def test_a_text_on_the_gpu_scores_as_on_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    model, ids = make_model(), random_text(50)
    expected = score(model, ids, num_streams=3)
    scores = score(model.cuda(), ids.cuda(), num_streams=3)
    assert scores.targets.device.type == "cpu"
    torch.testing.assert_close(scores.nats, expected.nats, rtol=1e-4, atol=1e-4)


def test_the_memory_of_logits_is_used_again() -> None:
    """Of forty pieces of 13 MB, no more than a few are held at a time."""
    psutil = pytest.importorskip("psutil", reason="psutil reads the memory of this process")
    torch.manual_seed(0)
    model = LSTMLanguageModel(
        LSTMConfig(vocabulary_size=33_000, embedding_size=8, hidden_size=8, tie_weights=True)
    )
    ids = torch.randint(33_000, (32 * 120 + 1,))
    score(model, ids[:400])
    process = psutil.Process()
    before = process.memory_info().rss
    score(model, ids)
    scoring.summed_nats_of_rows(model, scoring.scoring_streams(ids, 32))
    assert process.memory_info().rss - before < 200 * 10**6
