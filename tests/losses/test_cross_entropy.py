"""The loss against a hand computation, at extreme logits, and in the traps of shapes."""

from __future__ import annotations

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from annotation_checker import unchecked
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.losses.cross_entropy import divergence_limit, summed_nats, token_nats
from companion.losses.large_vocabulary import NoiseSampler, chunked_nats, sampled_nats
from companion.losses.training_loss import TrainingLoss
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.text.batching import IGNORE

LOSSES = [token_nats, summed_nats]


def by_hand(logits, targets):
    """-log(exp(logit of the target) / sum of exps) in float64, position by position."""
    result = np.zeros(targets.shape)
    for b, t in np.ndindex(*targets.shape):
        row = logits[b, t].double().numpy()
        if targets[b, t] != IGNORE:
            result[b, t] = -math.log(math.exp(row[targets[b, t]]) / np.exp(row).sum())
    return result


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9), st.integers(0, 10**6))
def test_token_nats_equal_a_hand_computation_in_float64(batch, time, vocabulary, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(batch, time, vocabulary, generator=generator) * 3
    targets = torch.randint(vocabulary, (batch, time), generator=generator)
    # float32: losses up to ~20, each within a few parts in 10^7 of them.
    np.testing.assert_allclose(token_nats(logits, targets), by_hand(logits, targets), atol=1e-5)


def test_nats_are_exact_at_logits_times_1000():
    logits = torch.tensor([[[3.0, 1.0, -2.0], [3.0, 1.0, -2.0]]]) * 1000
    assert token_nats(logits, torch.tensor([[0, 2]])).tolist() == [[0.0, 5000.0]]


def test_half_precision_logits_are_summed_in_float32():
    # log(100) has error 0.01 in bfloat16; in float32 it is right to 6 digits.
    nats = token_nats(torch.zeros(1, 1, 100, dtype=torch.bfloat16), torch.zeros(1, 1).long())
    assert nats.dtype == torch.float32
    assert nats.item() == pytest.approx(math.log(100), rel=1e-6)


@pytest.mark.parametrize(
    ("size", "first", "limit"),
    [(1000, 2.0, 100 * math.log(1000)), (1000, 20.0, 2000), (1, 0.0, 100 * math.log(2))],
)
def test_a_loss_has_diverged_at_a_hundred_times_a_uniform_guess_or_its_own_start(
    size: int, first: float, limit: float
) -> None:
    found = float(divergence_limit(size, torch.tensor(first)))
    assert found == pytest.approx(limit, rel=1e-6)  # float32


def test_uniform_logits_cost_the_log_of_the_vocabulary_size():
    nats = token_nats(torch.full((2, 3, 50), 7.0), torch.randint(50, (2, 3)))
    torch.testing.assert_close(nats, torch.full((2, 3), math.log(50)))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_shape_mistake_that_torch_passes_when_batch_equals_vocabulary_raises(loss):
    # CrossEntropyLoss reads dimension 1 as the classes. With B = V, (T, B, V) logits and (T, B)
    # targets pass, and the softmax runs over the batch.
    time, batch = 3, 5
    logits, targets = torch.randn(batch, time, batch), torch.randint(batch, (batch, time))
    naive = F.cross_entropy(logits.transpose(0, 1), targets.T)  # silent
    assert naive != pytest.approx(float(token_nats(logits, targets).mean()), abs=1e-3)
    # The other silent one: time-major logits, flattened, against batch-major targets.
    mixed = F.cross_entropy(logits.transpose(0, 1).reshape(-1, batch), targets.flatten())
    assert mixed != pytest.approx(float(token_nats(logits, targets).mean()), abs=1e-3)
    with pytest.raises(
        ValueError, match=r"logits \(3, 5, 5\) must be the shape of targets \(5, 3\)"
    ):
        # Without the run-time check of annotations, which would raise first: the user's case.
        inspect.unwrap(loss)(logits.transpose(0, 1), targets)
    with pytest.raises(ValueError, match="vocabulary added as last axis"):
        inspect.unwrap(loss)(logits, logits.argmax(dim=1))


@pytest.mark.parametrize("loss", LOSSES)
def test_ignored_targets_cost_nothing_and_give_no_gradient(loss):
    logits = torch.randn(2, 3, 4, requires_grad=True)
    targets = torch.tensor([[1, IGNORE, 2], [IGNORE, IGNORE, 0]])
    nats = token_nats(logits, targets)
    assert (nats[targets == IGNORE] == 0).all()
    loss(logits, targets).sum().backward()
    assert (logits.grad[targets == IGNORE] == 0).all()
    assert (logits.grad[targets != IGNORE] != 0).all()


def test_a_batch_of_nothing_but_padding_costs_zero_and_not_nan():
    assert summed_nats(torch.randn(1, 2, 3), torch.full((1, 2), IGNORE)).item() == 0


def test_the_sum_is_the_sum_of_the_parts():
    logits, targets = torch.randn(3, 4, 6), torch.randint(6, (3, 4))
    targets[1, 2] = IGNORE
    torch.testing.assert_close(summed_nats(logits, targets), token_nats(logits, targets).sum())


def test_the_gradient_is_probability_minus_one_hot():
    logits = torch.randn(2, 3, 5, requires_grad=True)
    targets = torch.randint(5, (2, 3))
    summed_nats(logits, targets).backward()
    expected = logits.detach().softmax(-1) - F.one_hot(targets, 5)
    # float32 and values below 1.
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_target_outside_the_vocabulary_is_an_error(loss):
    with pytest.raises(IndexError, match="out of bounds"):
        loss(torch.randn(1, 1, 3), torch.tensor([[3]]))


# --- large vocabularies ---------------------------------------------------------------------------


def output_layer(targets=40, hidden=6, vocabulary=30):
    generator = torch.Generator().manual_seed(0)
    parts = [
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((targets, hidden), (vocabulary, hidden), (vocabulary,))
    ]
    wanted = torch.randint(vocabulary, (targets,), generator=generator)
    wanted[3::14] = IGNORE
    return parts, wanted


@pytest.mark.parametrize("chunk", [1, 7, 39, 40, 1000, None])
def test_the_chunked_loss_equals_the_plain_one_in_value_and_gradient(chunk):
    (features, weight, bias), targets = output_layer()
    plain = summed_nats((features @ weight.T + bias).unsqueeze(0), targets.unsqueeze(0))
    chunked = chunked_nats(features, weight, bias, targets, chunk=chunk)
    # The log-probabilities are computed in float64 or float32: 40 terms of up to 10.
    torch.testing.assert_close(chunked.double(), plain, rtol=0, atol=2e-4)
    leaves = features, weight, bias
    for ours, theirs in zip(
        torch.autograd.grad(3 * chunked, leaves),
        torch.autograd.grad(3 * plain, leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_the_chunked_loss_follows_mixed_precision_and_keeps_float32_gradients():
    """Under bfloat16 autocast it multiplies in bfloat16, as the plain loss, and sums in float32."""
    parts, targets = output_layer()
    leaves = [part.detach().float().requires_grad_() for part in parts]
    features, weight, bias = leaves
    exact = summed_nats((features @ weight.T + bias).unsqueeze(0), targets.unsqueeze(0))
    with torch.autocast("cpu", torch.bfloat16):
        plain = summed_nats(F.linear(features, weight, bias).unsqueeze(0), targets.unsqueeze(0))
        chunked = chunked_nats(features, weight, bias, targets, chunk=16)
    assert chunked.dtype == torch.float32
    # Logits reach 10 and have 8 bits: off by up to .04 each, in either loss.
    assert chunked.item() == pytest.approx(plain.item(), rel=1e-2)
    assert chunked.item() == pytest.approx(exact.item(), rel=1e-2)
    assert abs(chunked.item() - exact.item()) > 1e-5  # or it was not computed in bfloat16
    for ours, theirs in zip(
        torch.autograd.grad(chunked, leaves), torch.autograd.grad(exact, leaves), strict=True
    ):
        assert ours.dtype == torch.float32
        assert float((ours - theirs).norm() / theirs.norm()) < 0.03


def test_the_chunked_loss_never_makes_all_logits(monkeypatch):
    (features, weight, bias), targets = output_layer()
    made = []
    run = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *args: made.append(run(*args).shape) or run(*args))
    chunked_nats(features, weight, bias, targets, chunk=8)
    assert made == [(8, 30)] * 5


def test_the_chunked_loss_refuses_shapes_that_do_not_belong_together():
    (features, weight, bias), targets = output_layer()
    with pytest.raises(ValueError, match=r"must be the shape of targets \(39,\)"):
        inspect.unwrap(chunked_nats)(features, weight, bias, targets[:-1])
    with pytest.raises(ValueError, match="chunk must be >= 1, got 0"):
        chunked_nats(features, weight, bias, targets, chunk=0)


def test_the_sampled_normaliser_is_unbiased():
    """exp(loss + logit of the target) estimates the sum over the vocabulary; its mean is exact."""
    (features, weight, bias), _ = output_layer(targets=1)
    targets = torch.tensor([4])
    with torch.no_grad():
        logits = features @ weight.T + bias
        exact = logits.exp().sum()
        noise = NoiseSampler(torch.arange(30).flip(0) + 1)
        torch.manual_seed(0)
        estimates = torch.stack(
            [
                (
                    sampled_nats(features, weight, bias, targets, noise(20), noise.log_probs)
                    + logits[0, 4]
                ).exp()
                for _ in range(4000)
            ]
        )
    standard_error = float(estimates.std() / math.sqrt(len(estimates)))
    assert standard_error < 0.02 * exact
    assert float(estimates.mean()) == pytest.approx(float(exact), abs=4 * standard_error)
    # Without the correction for what each token's chance was, it would be far off.
    wrong = sampled_nats(
        features, weight, bias, targets, noise(200_000), torch.full((30,), -math.log(30))
    )
    assert abs((wrong + logits[0, 4]).exp().item() - exact) > 0.1 * exact


def test_the_sampled_loss_and_gradient_approach_the_full_ones_with_many_samples():
    (features, weight, bias), targets = output_layer()
    noise = NoiseSampler(torch.arange(30) + 1)
    torch.manual_seed(0)
    plain = summed_nats((features @ weight.T + bias).unsqueeze(0), targets.unsqueeze(0))
    sampled = sampled_nats(features, weight, bias, targets, noise(200_000), noise.log_probs)
    # 200,000 samples shared by all positions: errors of about half a per cent.
    assert sampled.item() == pytest.approx(plain.item(), rel=0.01)
    for ours, theirs in zip(
        torch.autograd.grad(sampled, (features, weight)),
        torch.autograd.grad(plain, (features, weight)),
        strict=True,
    ):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.02


def test_noise_is_drawn_by_counts_to_the_power_and_no_token_is_left_out():
    counts = torch.tensor([0, 1, 16, 81])
    noise = NoiseSampler(counts, power=0.75)
    shares = torch.tensor([1.0, 1.0, 8.0, 27.0]) / 37
    torch.testing.assert_close(noise.log_probs.exp(), shares)
    torch.manual_seed(0)
    drawn = torch.bincount(noise(100_000), minlength=4) / 100_000
    # Standard deviation at most .0014; four of them allowed.
    torch.testing.assert_close(drawn, shares, rtol=0, atol=0.006)


def test_rare_words_of_a_large_vocabulary_are_drawn_by_their_shares():
    """A chi-square test of 268,000 words, as WikiText-103 has; one seed in three million fails it.

    One word is 95 % of the text, and the others have shares of 1.9e-7. A cumulated sum in float32,
    which has steps of 6e-8 below one, would draw most of them too often or too seldom.
    """
    size, draws = 268_000, 2**24
    counts = torch.ones(size, dtype=torch.long)
    counts[0] = 19 * (size - 1)
    torch.manual_seed(0)
    found = torch.bincount(NoiseSampler(counts, power=1)(draws), minlength=size).double()
    expected = draws * counts / counts.sum()
    statistic = float(((found - expected) ** 2 / expected).sum())
    # The variance of each term is 2 + 1 / expected, as its count is Poisson's.
    assert abs(statistic - size) < 5 * math.sqrt(float((2 + 1 / expected).sum()))


# --- what a window costs --------------------------------------------------------------------------


def tiny_model(**fields):
    torch.manual_seed(0)
    config = LSTMConfig(vocabulary_size=20, embedding_size=6, hidden_size=8, **fields)
    return LSTMLanguageModel(config).train()


def window(vocabulary=20):
    ids = torch.randint(vocabulary, (3, 11), generator=torch.Generator().manual_seed(1))
    return ids[:, :-1], ids[:, 1:]


def test_full_and_chunked_losses_train_alike():
    results = {}
    for kind in ("full", "chunked"):
        model = tiny_model()
        loss, nats, _ = TrainingLoss(model, kind)(*window(), None)
        loss.backward()
        results[kind] = [nats, *(parameter.grad for parameter in model.parameters())]
    # float32 sums in another order.
    torch.testing.assert_close(results["chunked"], results["full"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["full", "chunked", "sampled", "adaptive"])
def test_whatever_the_loss_a_target_to_ignore_costs_nothing(kind):
    """Where all are ignored but some, the loss is what those alone cost."""
    model = tiny_model(adaptive_cutoffs=(5,) if kind == "adaptive" else ())
    noise = NoiseSampler(torch.arange(1, 21))
    loss = TrainingLoss(model, "full" if kind == "adaptive" else kind, noise=noise, num_samples=30)
    inputs, targets = window()

    def cost(targets):
        torch.manual_seed(0)  # the same samples
        return loss(inputs, targets, None)[1]

    first = torch.arange(10) < 4
    parts = targets.where(first, IGNORE), targets.where(~first, IGNORE)
    # Sums of float32 in another order.
    torch.testing.assert_close(sum(map(cost, parts)), cost(targets), rtol=1e-5, atol=1e-5)
    assert cost(torch.full_like(targets, IGNORE)) == 0


def test_the_penalties_are_what_merity_writes():
    model = tiny_model()
    inputs, targets = window()
    plain, nats, _ = TrainingLoss(model)(inputs, targets, None)
    both, same_nats, _ = TrainingLoss(model, activation_penalty=2.0, temporal_penalty=3.0)(
        inputs, targets, None
    )
    outputs = model.features(inputs)[0]  # (B, T, H); no dropout here, so dropped and raw agree
    positions = 30
    size = outputs.square().mean() * positions
    change = (outputs[:, 1:] - outputs[:, :-1]).square().mean() * 3 * 9  # one fewer a row
    torch.testing.assert_close(both, plain + 2 * size + 3 * change)
    torch.testing.assert_close(same_nats, nats)  # reported apart from the penalties


def test_a_loss_that_cannot_be_is_refused():
    refusal = "loss must be one of full, chunked, sampled, got 'nce'"
    with unchecked(), pytest.raises(ValueError, match=refusal):
        TrainingLoss(tiny_model(), "nce")
    with pytest.raises(ValueError, match="needs noise"):
        TrainingLoss(tiny_model(), "sampled")
    with pytest.raises(ValueError, match="exclude each other"):
        TrainingLoss(tiny_model(adaptive_cutoffs=(5,)), "chunked")


def test_one_look_up_for_inputs_samples_and_targets_is_the_same_loss_and_gradient(monkeypatch):
    results, look_ups = {}, []
    counted = F.embedding

    def embedding(*args, **named):
        look_ups.append(args[0].numel())
        return counted(*args, **named)

    for tie in (True, False):
        torch.manual_seed(0)
        config = LSTMConfig(vocabulary_size=20, embedding_size=8, hidden_size=8, tie_weights=True)
        model = LSTMLanguageModel(config).train()
        if not tie:  # two matrices of the same numbers
            matrix = model.embedding.weight.detach().clone()
            config = dataclasses.replace(config, tie_weights=False)
            other = LSTMLanguageModel(config).train()
            other.load_state_dict(model.state_dict())
            model = other
            assert torch.equal(model.output.weight, matrix)
        noise = NoiseSampler(torch.arange(20) + 1)
        torch.manual_seed(1)
        monkeypatch.setattr(F, "embedding", embedding)
        look_ups.clear()
        loss, nats, _ = TrainingLoss(model, "sampled", noise=noise, num_samples=7)(*window(), None)
        monkeypatch.undo()
        assert look_ups == ([30 + 7 + 30] if tie else [30, 7 + 30])
        loss.backward()
        weight = model.embedding.weight.grad
        results[tie] = nats, weight if tie else weight + model.output.weight.grad
    # The same terms, added in another order.
    torch.testing.assert_close(results[True], results[False], rtol=1e-5, atol=1e-6)
