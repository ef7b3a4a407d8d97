"""Distribution shift: the split of a loss, its bins, rarer pairs, and scores of strange text."""

from __future__ import annotations

import functools
import itertools
import math
import zlib

import numpy as np
import pytest
import torch
from annotation_checker import unchecked

from companion.core.seeds import make_generator
from companion.evaluation.scoring import evaluate
from companion.generalization.out_of_distribution import (
    SCORES,
    auroc,
    byte_pieces,
    repetitive_texts,
    strangeness_scores,
    zlib_bits_per_byte,
)
from companion.generalization.shift import (
    by_context_count,
    by_true_probability,
    carried_by_rarest,
    context_counts,
    rarer_pairs,
    split_loss,
    token_terms,
)
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.automaton import AutomatonSource
from companion.sources.streams import true_rows
from companion.text.batching import streams
from companion.training.config import TrainConfig
from companion.training.continued import mixed_text, train_and_measure


@functools.cache
def random_source(seed: int, *, without: int | None = None) -> AutomatonSource:
    """Four states, five tokens, all of which may come everywhere, but for `without`."""
    rng = np.random.default_rng(seed)
    p = torch.from_numpy(rng.dirichlet(np.ones(5), 4)) + 0.02
    target = torch.from_numpy(rng.integers(0, 4, (4, 5)))
    target[:, 0] = 0
    if without is not None:
        p[:, without], target[:, without] = 0, -1
    return AutomatonSource(list(".abcd"), p / p.sum(1, keepdim=True), target)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def log_probs(source: AutomatonSource, rows: torch.Tensor) -> torch.Tensor:
    """A source as a model: what it says comes after each token of rows that it can write."""
    return source.transition_probs[source.walk(rows[:, 1:])].log()


def cross_entropy(new: AutomatonSource, model: AutomatonSource) -> float:
    """Nats per token, by solving for the expected visits of each pair of states in one text."""
    pairs = [(s, t) for s in range(new.num_states) for t in range(model.num_states)]
    moves, costs = np.zeros((len(pairs), len(pairs))), np.zeros(len(pairs))
    for i, (s, t) in enumerate(pairs):
        for w in range(new.vocabulary_size):
            p, q = float(new.transition_probs[s, w]), float(model.transition_probs[t, w])
            costs[i] -= p * math.log(q)
            if w != 0:
                after = int(new.transition_states[s, w]), int(model.transition_states[t, w])
                moves[i, pairs.index(after)] += p
    visits = np.linalg.solve(np.eye(len(pairs)) - moves.T, np.eye(len(pairs))[0])
    return float(visits @ costs / visits.sum())


# --- the split -----------------------------------------------------------------------------------


def exact_split(
    new: AutomatonSource, old: AutomatonSource, model: AutomatonSource
) -> tuple[float, float, float]:
    """Entropy, unavoidable part and own error in nats per token of `new`, without any sampling."""
    unavoidable = new.kl_divergence(old)
    return new.entropy_rate(), unavoidable, new.kl_divergence(model) - unavoidable


def test_the_exact_parts_sum_to_the_exact_cross_entropy() -> None:
    old, new, model = map(random_source, (0, 1, 2))
    entropy, unavoidable, own = exact_split(new, old, model)
    # The reference shares no code with it; rounding alone may differ.
    assert entropy + unavoidable + own == pytest.approx(cross_entropy(new, model), abs=1e-10)
    assert entropy + unavoidable == pytest.approx(cross_entropy(new, old), abs=1e-10)
    assert unavoidable > 0.1
    assert abs(own) > 0.1


def test_a_source_is_no_distance_from_itself_and_the_old_source_makes_no_error() -> None:
    old, new = map(random_source, (0, 1))
    assert exact_split(old, old, new)[1] == pytest.approx(0, abs=1e-12)
    assert exact_split(new, old, old)[2] == 0
    # A perfect model of the new source wins back all that was unavoidable, and no more.
    entropy, unavoidable, own = exact_split(new, old, new)
    assert own == pytest.approx(-unavoidable, abs=1e-12)
    assert entropy == new.entropy_rate()


def test_the_parts_at_each_position_sum_to_the_cross_entropy_there() -> None:
    old, new, model = map(random_source, (0, 1, 2))
    rows = true_rows(new, 4, 200, make_generator(0))
    log_q = log_probs(model, rows)
    split = split_loss(new, old, rows, log_q)
    truth = new.transition_probs[new.walk(rows[:, 1:])]
    cross_entropy = -torch.where(truth > 0, truth * log_q, 0.0).sum(-1)
    total = split.entropy + split.unavoidable + split.own_error
    torch.testing.assert_close(total, cross_entropy, rtol=0, atol=1e-10)
    assert sum(split.means) == pytest.approx(float(cross_entropy.mean()), abs=1e-10)


def test_the_sampled_parts_are_the_exact_ones_within_their_noise() -> None:
    old, new, model = map(random_source, (0, 1, 2))
    rows = true_rows(new, 16, 1500, make_generator(1))
    split = split_loss(new, old, rows, log_probs(model, rows))
    parts = (split.entropy, split.unavoidable, split.own_error)
    for part, exact in zip(parts, exact_split(new, old, model), strict=True):
        by_row = part.mean(dim=1)
        noise = float(by_row.std()) / math.sqrt(len(by_row))
        assert noise < 0.02
        assert float(part.mean()) == pytest.approx(exact, abs=4.5 * noise)
    by_row = split.own_error.mean(dim=1)
    assert split.own_standard_error == pytest.approx(float(by_row.std()) / 4)


def test_the_old_source_as_the_model_has_no_own_error_anywhere() -> None:
    old, new = map(random_source, (0, 1))
    rows = true_rows(new, 2, 100, make_generator(2))
    split = split_loss(new, old, rows, log_probs(old, rows))
    assert float(split.own_error.abs().max()) == 0
    assert float(split_loss(old, old, true_rows(old, 2, 100, make_generator(3)),
                            log_probs(new, true_rows(old, 2, 100, make_generator(3))))
                 .unavoidable.abs().max()) < 1e-12  # fmt: skip


def test_what_the_old_source_cannot_write_is_refused() -> None:
    poor, new = random_source(0, without=4), random_source(1)
    rows = true_rows(new, 2, 300, make_generator(4))
    with pytest.raises(ValueError, match="the unavoidable part is infinite"):
        split_loss(new, poor, rows, log_probs(new, rows))
    # Text without that token, at places where the new source might have written it.
    other = true_rows(poor, 2, 50, make_generator(4))
    with pytest.raises(ValueError, match="the unavoidable part is infinite"):
        split_loss(new, poor, other, log_probs(new, other))
    with pytest.raises(ValueError, match="rows must be text of the new source"):
        split_loss(poor, new, rows, log_probs(new, rows))
    with pytest.raises(ValueError, match="a position for each token"):
        split_loss(new, new, rows, log_probs(new, rows)[:, 1:])
    tiny = AutomatonSource(["<end>"], torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.long))
    with pytest.raises(ValueError, match="same vocabulary"):
        split_loss(new, tiny, rows, log_probs(new, rows))
    one = split_loss(new, new, rows[:1], log_probs(new, rows[:1]))
    with pytest.raises(ValueError, match="two rows or more"):
        _ = one.own_standard_error


# --- bins ----------------------------------------------------------------------------------------


def test_errors_by_context_are_those_counted_by_hand() -> None:
    trained_on = torch.tensor([[0, 1, 1, 2, 1]])
    counts = context_counts(trained_on, torch.tensor([0, 1, 2, 3]), 4)
    assert counts.tolist() == [1, 3, 1, 0]
    errors = torch.tensor([0.2, 0.1, 0.4, 1.0], dtype=torch.float64)
    bins = by_context_count(errors, counts, [0, 1, 3, 100])
    assert bins.lows == [0, 1, 3, 100]
    assert bins.shares == pytest.approx([0.25, 0.5, 0.25, 0])  # an edge belongs to the upper bin
    assert bins.means[:3] == pytest.approx([1.0, 0.3, 0.1])
    assert math.isnan(bins.means[3])
    assert sum(bins.contributions) == pytest.approx(float(errors.mean()))
    with pytest.raises(ValueError, match="lows must rise from 0"):
        by_context_count(errors, counts, [1, 2])


P = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.0, 0.1]], dtype=torch.float64)
Q = torch.tensor([[0.25, 0.5, 0.25], [0.9, 0.05, 0.05]], dtype=torch.float64)


def test_terms_of_tokens_are_never_negative_and_sum_to_the_divergence() -> None:
    p = torch.cat([P, random_source(0).transition_probs[:, :3].softmax(-1)])
    q = torch.cat([Q, random_source(1).transition_probs[:, :3].softmax(-1)])
    terms = token_terms(p, q.log())
    kl = (torch.xlogy(p, p) - torch.where(p > 0, p * q.log(), 0.0)).sum(-1)
    assert float(terms.min()) >= -1e-15
    torch.testing.assert_close(terms.sum(-1), kl, rtol=0, atol=1e-12)
    assert terms[0].tolist() == pytest.approx([math.log(2) / 2 - 0.25, 0, 0.25])


def test_errors_by_true_probability_leave_out_no_token() -> None:
    bins = by_true_probability(P, Q.log(), [0, 1e-9, 0.2, 0.6])
    assert bins.shares == pytest.approx([0, 0.05, 0.5, 0.45])
    # Per position: cannot come .25 and .05; .1 read as .05; .5 read as .25.
    assert bins.contributions == pytest.approx(
        [0.3 / 2, (0.1 * math.log(2) - 0.05) / 2, (0.5 * math.log(2) - 0.25) / 2, 0]
    )


def test_the_rarest_tenth_is_cut_in_proportion_and_weightless_items_are_no_part_of_it() -> None:
    keys, weights = doubles(3, 1, 1, 2, 0), doubles(1, 1, 1, 1, 0)
    amounts = doubles(1, 2, 4, 3, 10)
    assert carried_by_rarest(amounts, keys, weights, part=0.5) == pytest.approx(6 / 20)
    assert carried_by_rarest(amounts, keys, weights, part=0.25) == pytest.approx(3 / 20)
    assert carried_by_rarest(amounts, keys, weights, part=0.75) == pytest.approx(9 / 20)
    with pytest.raises(ValueError, match="part must lie between 0 and 1"):
        carried_by_rarest(amounts, keys, weights, part=1.0)


# --- rarer pairs ---------------------------------------------------------------------------------


def two_words() -> AutomatonSource:
    """a or b, then x or y, then the end: independent."""
    p = torch.zeros(3, 5, dtype=torch.float64)
    p[0, 1], p[0, 2], p[1, 3], p[1, 4], p[2, 0] = 0.4, 0.6, 0.25, 0.75, 1.0
    target = torch.full((3, 5), -1)
    target[0, 1:3], target[1, 3:5], target[2, 0] = 1, 2, 0
    return AutomatonSource(["<end>", "a", "b", "x", "y"], p, target)


def test_a_rarer_pair_gives_what_it_loses_to_the_others() -> None:
    source = two_words()
    shifted = rarer_pairs(source, [(1, 3)], 0.1)
    assert shifted.next_token_probs([1])[3] == pytest.approx(0.025 / 0.775)
    assert shifted.next_token_probs([2])[3] == 0.25
    texts = itertools.product([1, 2], [3, 4], [0])
    assert sum(math.exp(shifted.log_prob(text)) for text in texts) == pytest.approx(1)
    # The divergence is that of one choice, made in 4 texts of 10, of 3 tokens.
    cost = 0.25 * math.log(0.25 * 0.775 / 0.025) + 0.75 * math.log(0.775)
    assert source.kl_divergence(shifted) == pytest.approx(0.4 * cost / 3)


def test_a_pair_taken_away_never_comes_and_a_factor_of_one_changes_nothing() -> None:
    source = two_words()
    assert math.isinf(source.kl_divergence(rarer_pairs(source, [(1, 3)], 0.0)))
    same = rarer_pairs(source, [(1, 3), (2, 3)], 1.0)
    assert same.kl_divergence(source) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="after 'a' nothing may come"):
        rarer_pairs(source, [(1, 3), (1, 4)], 0.0)
    with pytest.raises(ValueError, match=r"factor must be in \[0, 1\]"):
        rarer_pairs(source, [(1, 3)], 1.5)
    with pytest.raises(ValueError, match="cannot begin with the end token"):
        rarer_pairs(source, [(0, 1)], 0.5)


# --- strange text --------------------------------------------------------------------------------


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    familiar, strange = doubles(1, 2, 3, 4), doubles(2.5, 3, 9)
    right = sum((s > f) + 0.5 * (s == f) for s in strange for f in familiar)  # 2 + 2.5 + 4
    assert float(right) == 8.5
    assert auroc(familiar, strange) == pytest.approx(8.5 / 12)
    assert auroc(strange, familiar) == pytest.approx(3.5 / 12)
    assert auroc(familiar, doubles(5)) == 1
    with pytest.raises(ValueError, match="scores of both kinds, got 4 familiar and 0 strange"):
        auroc(familiar, doubles())


def bytes_model() -> LSTMLanguageModel:
    torch.manual_seed(0)
    return LSTMLanguageModel(LSTMConfig(vocabulary_size=257, hidden_size=8)).eval()


def test_a_uniform_model_scores_as_arithmetic_says() -> None:
    model = bytes_model()
    torch.nn.init.zeros_(model.output.weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(model.output.bias)  # type: ignore[arg-type]
    text = b"the same words, the same words, the same words"
    scores = strangeness_scores(model, [text, text], skip=4)
    assert tuple(scores) == SCORES
    bits = math.log2(257)
    packed = 8 * len(zlib.compress(text, 9)) / len(text)
    assert zlib_bits_per_byte(text) == packed
    for name, value in zip(SCORES, (bits, bits - packed, bits, 1 - 1 / 257), strict=True):
        assert scores[name].tolist() == pytest.approx([value] * 2, abs=1e-5), name


def test_scores_are_those_of_the_plain_loss_after_the_skipped_bytes() -> None:
    model = bytes_model()
    texts = [bytes(row) for row in np.random.default_rng(0).integers(0, 256, (70, 20))]
    with torch.no_grad():
        ids = torch.tensor([list(text) for text in texts])
        log_q = torch.log_softmax(model(ids[:, :-1])[0], -1)
    nats = -log_q.gather(-1, ids[:, 1:, None]).squeeze(-1)[:, 4:]  # targets from byte 5 on
    found = strangeness_scores(model, texts, skip=5)["surprisal"]
    torch.testing.assert_close(
        found, (nats.mean(1) / math.log(2)).double(), rtol=0, atol=1e-5
    )  # float32 logits


def test_a_model_in_training_is_scored_without_dropout_and_given_back_in_training() -> None:
    model = bytes_model()
    before = strangeness_scores(model, [b"what it says"], skip=1)["surprisal"]
    model.train()
    torch.testing.assert_close(
        strangeness_scores(model, [b"what it says"], skip=1)["surprisal"], before
    )
    assert model.training


def test_texts_that_cannot_be_compared_are_refused() -> None:
    model = bytes_model()
    for texts in ([b"one", b"another"], [], [b"short"]):
        with pytest.raises(ValueError, match="one length above skip = 8 >= 1"):
            strangeness_scores(model, texts, skip=8)
    small = LSTMLanguageModel(LSTMConfig(vocabulary_size=20, hidden_size=8))
    with pytest.raises(ValueError, match="a token for each byte, got 20"):
        strangeness_scores(small, [b"text"], skip=1)
    with pytest.raises(ValueError, match="an empty text"):
        zlib_bits_per_byte(b"")


def test_pieces_are_whole_in_order_and_spread_over_the_text() -> None:
    assert byte_pieces("abcdefgh", 3) == [b"abc", b"def"]
    assert byte_pieces("é" * 3, 2) == ["é".encode()] * 3
    assert byte_pieces("".join(chr(97 + i) * 2 for i in range(10)), 2, 3) == [b"aa", b"dd", b"gg"]
    with pytest.raises(ValueError, match="too few for a piece of 3"):
        byte_pieces("ab", 3)
    with unchecked(), pytest.raises(ValueError, match="must be >= 1"):
        byte_pieces("abc", 0)


def test_repetitive_texts_repeat_and_are_as_long_as_the_familiar_ones() -> None:
    familiar = [bytes(range(i, i + 90)) for i in range(3)]
    found = repetitive_texts(bytes_model(), familiar, generator=make_generator(0))
    assert found["spaces"] == [b" " * 90]
    assert found["familiar phrase repeated"][1] == (familiar[1][40:80] * 3)[:90]
    for text in found["nonsense repeated"]:
        assert text[:13] == text[13:26]
        assert text[12:13] == b" "
    assert [len(texts) for texts in found.values()] == [1, 3, 3, 3]
    assert {len(text) for texts in found.values() for text in texts} == {90}
    with pytest.raises(ValueError, match="of one length, of 80 bytes or more"):
        repetitive_texts(bytes_model(), [b"short"], generator=make_generator(0))


# --- adaptation ----------------------------------------------------------------------------------


def test_mixed_text_fills_some_streams_with_the_old_text_and_the_rest_with_the_new() -> None:
    new, old = torch.arange(100, 113), torch.arange(30)
    mixed = streams(mixed_text(new, old, num_streams=4, old_streams=1), 4)
    assert mixed.shape == (4, 5)  # 12 targets in three streams: four in each
    assert mixed[:3, :4].flatten().tolist() == list(range(100, 112))
    assert mixed[3].tolist() == [0, 1, 2, 3, 4]
    alone = streams(mixed_text(new, old, num_streams=4, old_streams=0), 4)
    assert alone.min() >= 100
    with pytest.raises(ValueError, match="need 13 tokens of old text, got 12"):
        mixed_text(new, old[:12], num_streams=4, old_streams=2)
    with pytest.raises(ValueError, match=r"old_streams must be in \[0, num_streams = 4\), got 4"):
        mixed_text(new, old, num_streams=4, old_streams=4)
    with pytest.raises(ValueError, match="too few for 4 streams"):
        mixed_text(new[:3], old, num_streams=4, old_streams=0)


def test_training_is_measured_at_the_steps_asked_for_and_goes_on_from_there() -> None:
    model, seen = bytes_model(), []
    ids = torch.arange(200) % 7
    settings = TrainConfig(steps=6, num_streams=2, window_length=8, learning_rate=0.05)

    def measure(model: LSTMLanguageModel) -> None:
        assert not model.training
        seen.append(evaluate(model, ids).nats_per_token)

    train_and_measure(model, ids, settings, at=(0, 3, 6), measure=measure)
    assert seen[0] == pytest.approx(math.log(257), abs=0.3)
    assert seen[0] > seen[1] > seen[2] == evaluate(model, ids).nats_per_token
    with pytest.raises(ValueError, match=r"at must lie in \[0, 6\], got 7"):
        train_and_measure(model, ids, settings, at=[7], measure=measure)
