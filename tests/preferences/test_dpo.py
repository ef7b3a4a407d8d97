"""Direct preference optimisation: its optimum in closed form, its gradient, its bookkeeping."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from companion.core.seeds import make_generator, seed_everything
from companion.evaluation.texts import text_log_probs
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.preferences.comparisons import Pairs
from companion.preferences.dpo import DPOConfig, DPORecord, dpo_loss, train_dpo
from companion.text.rows import text_batch


def tiny(vocabulary_size: int = 5, seed: int = 0) -> LSTMLanguageModel:
    seed_everything(seed)
    config = LSTMConfig(vocabulary_size=vocabulary_size, embedding_size=6, hidden_size=12)
    return LSTMLanguageModel(config).eval()


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_exact_preferences_give_the_reference_times_exp_of_reward_over_beta(beta: float) -> None:
    """Texts are four atoms: the loss over all pairs, weighted by P(i beats j), has this minimum."""
    reward = torch.tensor([0.3, -0.7, 1.1, 0.0], dtype=torch.float64)
    reference = torch.tensor([0.4, 0.3, 0.1, 0.2], dtype=torch.float64)
    beats = torch.sigmoid(reward[:, None] - reward[None, :])
    winner, loser = (
        side.flatten() for side in torch.meshgrid(*[torch.arange(4)] * 2, indexing="ij")
    )
    logits = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        log_q, log_ref = torch.log_softmax(logits, dim=0), reference.log()
        losses = dpo_loss(log_q[winner], log_q[loser], log_ref[winner], log_ref[loser], beta)
        loss = (beats.flatten() * losses).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    expected = reference * torch.exp(reward / beta)
    expected = expected / expected.sum()
    torch.testing.assert_close(logits.detach().softmax(dim=0), expected, atol=1e-6, rtol=1e-5)


def test_the_gradient_is_that_of_the_formula_written_with_probabilities() -> None:
    generator = make_generator(1)
    sides = [torch.rand(6, generator=generator, dtype=torch.float64) for _ in range(4)]
    ours = [side.log().requires_grad_() for side in sides[:2]]
    dpo_loss(ours[0], ours[1], sides[2].log(), sides[3].log(), 0.3).sum().backward()  # type: ignore[no-untyped-call]
    theirs = [side.log().requires_grad_() for side in sides[:2]]
    odds = ((theirs[0].exp() / sides[2]) / (theirs[1].exp() / sides[3])) ** 0.3
    (-(odds / (1 + odds)).log()).sum().backward()  # type: ignore[no-untyped-call]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_the_loss_sees_only_the_difference_and_survives_extremes() -> None:
    zero = torch.zeros(1)
    low = dpo_loss(zero - 500, zero - 600, zero, zero, 0.1)
    torch.testing.assert_close(low, dpo_loss(zero + 100, zero, zero, zero, 0.1))
    far = torch.tensor([1e4]).requires_grad_()
    wrong = dpo_loss(-far, zero, zero, zero, 1.0)
    wrong.sum().backward()  # type: ignore[no-untyped-call]
    assert float(wrong.detach()) == pytest.approx(1e4)
    assert float(far.grad) == pytest.approx(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beta must be > 0, got 0"):
        dpo_loss(zero, zero, zero, zero, 0)


def test_a_texts_log_probability_is_the_sum_over_its_tokens_whatever_stands_beside_it() -> None:
    model = tiny()
    texts = [torch.tensor(text) for text in ([3, 0], [1, 2, 4, 1, 0], [1, 2, 4, 1, 3, 3])]
    rows = torch.tensor([[3, 0, 4, 4, 1, 2], [1, 2, 4, 1, 0, 0], [1, 2, 4, 1, 3, 3]])
    together = text_log_probs(model, rows.repeat(20, 1))  # more than are read at once
    assert torch.equal(together[:3], together[-3:])
    assert text_batch(rows[:2]).inputs.shape == (2, 5)
    for text, found in zip(texts, together[:3], strict=True):
        inputs = torch.cat([torch.tensor([0]), text[:-1]])[None]
        log_q = torch.log_softmax(model(inputs)[0], dim=-1)[0]
        expected = log_q.gather(-1, text[:, None]).sum()
        torch.testing.assert_close(found, expected)
    with pytest.raises(
        ValueError, match=r"rows of tokens, one or more of each, got shape \(0, 3\)"
    ):
        text_batch(rows[:0, :3])


def test_training_starts_at_ln_2_and_ends_at_the_closed_form() -> None:
    """One-token texts of weights 1, 2, 4: in 15 comparisons of two, exact shares are whole."""
    reference, weights, beta = tiny(seed=3), {1: 1, 2: 2, 3: 4}, 0.7
    chosen, rejected = [], []
    for a, b in ((1, 2), (1, 3), (2, 3)):
        for winner, loser in ((a, b), (b, a)):
            count = 15 * weights[winner] // (weights[a] + weights[b])
            chosen += [[winner, 0]] * count
            rejected += [[loser, 0]] * count
    policy = copy.deepcopy(reference)
    config = DPOConfig(beta=beta, epochs=150, batch_size=45, learning_rate=2e-2)
    pairs = Pairs(chosen=torch.tensor(chosen), rejected=torch.tensor(rejected))
    records = train_dpo(policy, reference, pairs, config, generator=make_generator(0))
    assert records[0].loss == pytest.approx(math.log(2), abs=1e-6)
    assert (records[0].margin, records[0].accuracy) == (0, 0.5)
    assert records[-1].epoch == 150
    texts = torch.tensor([[token, 0] for token in weights])
    with torch.no_grad():
        change = text_log_probs(policy, texts) - text_log_probs(reference, texts)
    # beta times the differences of log-ratios are the differences of reward, ln 2 each.
    gaps = beta * (change[1:] - change[:-1])
    torch.testing.assert_close(gaps, torch.full((2,), math.log(2)), atol=0.03, rtol=0)


def test_a_record_says_what_the_loss_is_made_of_and_the_reference_stays() -> None:
    reference, policy = tiny(seed=4), tiny(seed=4)
    before = copy.deepcopy(reference.state_dict())
    chosen = torch.tensor([[1, 2, 0, 0], [2, 0, 0, 0], [4, 4, 1, 0]])
    rejected = torch.tensor([[3, 0, 0, 0], [3, 3, 1, 4], [1, 0, 0, 0]])
    seen: list[DPORecord] = []

    def watch(record: DPORecord) -> None:
        assert not policy.training
        seen.append(record)

    config = DPOConfig(beta=0.5, epochs=3, batch_size=2, learning_rate=1e-2)
    pairs = Pairs(chosen=chosen, rejected=rejected)
    records = train_dpo(policy, reference, pairs, config, generator=make_generator(0), watch=watch)
    assert seen == records
    assert [record.epoch for record in records] == [0, 1, 2, 3]
    last = records[-1]
    with torch.no_grad():
        logs = [
            [text_log_probs(model, side) for side in (chosen, rejected)]
            for model in (policy, reference)
        ]
    margins = 0.5 * ((logs[0][0] - logs[1][0]) - (logs[0][1] - logs[1][1]))
    assert last.margin == pytest.approx(float(margins.mean()), abs=1e-5)
    assert last.accuracy == pytest.approx(float((margins > 0).float().mean()))
    for side, change in enumerate((last.chosen_change, last.rejected_change)):
        assert change == pytest.approx(float((logs[0][side] - logs[1][side]).mean()), abs=1e-5)
    assert last.loss < records[0].loss
    for name, value in reference.state_dict().items():
        assert torch.equal(value, before[name]), name
    first = dataclasses.replace(config, recorded_pairs=1, epochs=1)
    record = train_dpo(policy, reference, pairs, first, generator=make_generator(0))[0]
    assert record.margin == pytest.approx(float(margins[0]), abs=1e-5)
    nothing = Pairs(chosen=chosen[:0], rejected=rejected[:0])
    with pytest.raises(ValueError, match="one pair or more, got none"):
        train_dpo(policy, reference, nothing, config, generator=make_generator(0))


def test_a_policy_that_is_its_reference_is_right_in_one_half_of_the_recorded_pairs() -> None:
    """Exactly: texts of many lengths, of which other batches would round otherwise."""
    reference, generator = tiny(seed=5), make_generator(2)
    texts = torch.randint(5, (2, 200, 12), generator=generator)
    pairs = Pairs(chosen=texts[0], rejected=texts[1])
    config = DPOConfig(epochs=1, recorded_pairs=50)
    policy = copy.deepcopy(reference).train()  # as a model comes that was just trained
    modes: list[bool] = []
    records = train_dpo(
        policy, reference, pairs, config, generator=generator,
        watch=lambda record: modes.append(policy.training),
    )  # fmt: skip
    assert (records[0].margin, records[0].accuracy) == (0, 0.5)
    assert modes == [False, False]


def test_a_pair_in_a_last_short_batch_weighs_what_any_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five equal pairs, four a step, at a rate that changes nothing: gradients of 4/4 and 1/4."""
    reference, norms = tiny(seed=6), []
    clip = torch.nn.utils.clip_grad_norm_

    def measured(*arguments: Any) -> torch.Tensor:
        norms.append(float(clip(*arguments)))
        return torch.tensor(norms[-1])

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", measured)
    pairs = Pairs(chosen=torch.tensor([[1, 2, 0]] * 5), rejected=torch.tensor([[3, 0, 0]] * 5))
    config = DPOConfig(batch_size=4, learning_rate=1e-30)
    train_dpo(copy.deepcopy(reference), reference, pairs, config, generator=make_generator(0))
    assert norms[0] == pytest.approx(4 * norms[1], rel=1e-4)  # float32 sums
    policy = copy.deepcopy(reference)
    sides = [text_log_probs(policy, side[:1]) for side in (pairs.chosen, pairs.rejected)]
    dpo_loss(*sides, *[side.detach() for side in sides], config.beta).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [parameter.grad for parameter in policy.parameters()]
    length = math.sqrt(sum(float((g**2).sum()) for g in gradients if g is not None))
    assert norms[1] == pytest.approx(length / 4, rel=1e-4)


def test_dropout_is_at_work_in_every_step_and_in_no_record() -> None:
    config = LSTMConfig(vocabulary_size=5, embedding_size=6, hidden_size=12, dropout=0.5)
    seed_everything(8)
    policy, modes = LSTMLanguageModel(config), []
    reference = copy.deepcopy(policy).eval()
    pairs = Pairs(chosen=torch.tensor([[1, 2, 0]] * 6), rejected=torch.tensor([[3, 0, 0]] * 6))
    hook = register_optimizer_step_pre_hook(lambda *_: modes.append(policy.training))
    try:
        train_dpo(
            policy, reference, pairs, DPOConfig(epochs=2, batch_size=3),
            generator=make_generator(0), watch=lambda _: modes.append(policy.training),
        )  # fmt: skip
    finally:
        hook.remove()
    assert modes == [False, True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("pairs", "rising"), [(120, [0.25, 0.5, 0.75]), (45, []), (12, [])], ids=["4", "1", "below 1"]
)
def test_the_rate_rises_through_the_first_tenth_of_the_first_epoch_and_stays(
    pairs: int, rising: list[float]
) -> None:
    reference, rates = tiny(seed=7), []
    texts = Pairs(
        chosen=torch.tensor([[1, 2, 0]] * pairs), rejected=torch.tensor([[3, 0, 0]] * pairs)
    )
    config = DPOConfig(epochs=2, batch_size=3, learning_rate=1e-3)
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    try:
        train_dpo(copy.deepcopy(reference), reference, texts, config, generator=make_generator(0))
    finally:
        hook.remove()
    full = 2 * pairs // 3 - len(rising)
    assert rates == pytest.approx([1e-3 * share for share in rising] + [1e-3] * full)


@pytest.mark.parametrize(
    "name", ["beta", "epochs", "batch_size", "learning_rate", "clip_norm", "recorded_pairs"]
)
def test_a_setting_that_cannot_be_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be > 0, got 0"):
        DPOConfig(**{name: 0})
