"""The study `exposure_bias`: a source and a gap that are computed by hand, and a small run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from companion.runtime import make_generator
from companion.source_models import endless_text, surprisals
from companion.sources import GrammarSource
from companion.studies import exposure_bias, one_thread
from companion.studies.exposure_bias import CopySource


def copying(noise: float = 0.1) -> CopySource:
    return CopySource(length=3, symbols=4, noise=noise)


def test_a_copied_text_is_half_random_and_half_the_same() -> None:
    texts = torch.stack(copying(0.1).sample(20_000, generator=make_generator(0)))
    assert texts.shape == (20_000, 7)
    assert (texts[:, 6] == 0).all()
    assert bool(((texts[:, :6] >= 1) & (texts[:, :6] <= 4)).all())
    wrong = (texts[:, :3] != texts[:, 3:6]).double().mean()
    # 60,000 draws: a standard error of .0012; four of them.
    assert float(wrong) == pytest.approx(0.1, abs=0.005)


def test_the_truth_of_a_copy_by_hand_and_undefined_after_a_misplaced_token() -> None:
    row = torch.tensor([[0, 1, 2, 3, 1, 4, 3, 0, 2, 0, 1]])
    truth = copying(0.1).truth(row)[0]
    uniform = [0, 0.25, 0.25, 0.25, 0.25]
    right = 0.9
    other = 0.1 / 3
    assert truth[0].tolist() == uniform
    torch.testing.assert_close(truth[3], torch.tensor([0, right, other, other, other]).double())
    torch.testing.assert_close(truth[5], torch.tensor([0, other, other, right, other]).double())
    assert truth[6].tolist() == [1, 0, 0, 0, 0]
    assert truth[7].tolist() == uniform  # a new text
    assert truth[9].tolist() == uniform  # the end came too early, so another text begins
    late = copying(0.1).truth(torch.tensor([[0, 1, 1, 1, 1, 1, 1, 2, 2, 0, 1]]))[0]
    assert bool(late[7].isnan().all())  # 2 stands where the text must end
    assert bool(late[8].isnan().all())
    assert late[9].tolist() == uniform


def test_entropy_and_mean_surprisal_of_copies_agree() -> None:
    source = copying(0.1)
    rows = torch.stack([endless_text(source, 701, generator=make_generator(i)) for i in range(40)])
    truth = source.truth(rows)
    nats = -truth.gather(-1, rows[:, 1:, None]).log()
    by_hand = 3 * (math.log(4) - 0.9 * math.log(0.9) - 0.1 * math.log(0.1 / 3)) / 7
    assert source.entropy_rate() == pytest.approx(by_hand)
    # 4,000 texts; the sd of a text's copy part is about 1.8 nats in 7 tokens: an error of .004.
    assert float(nats.mean()) == pytest.approx(by_hand, abs=0.016)


def test_the_grammars_truth_agrees_with_its_surprisals() -> None:
    source = GrammarSource()
    good, bad = "it is great . <end>", "it are great . <end>"
    row = torch.tensor([source.encode(f"<end> {bad} {good}")])
    truth = exposure_bias.true_probs(source, row)
    nats = -truth.gather(-1, row[:, 1:, None]).squeeze(-1).log()
    torch.testing.assert_close(nats, surprisals(source, row), equal_nan=True)


def test_the_divergence_of_the_truth_itself_is_zero_and_undefined_where_it_is() -> None:
    truth = copying(0.1).truth(torch.tensor([[0, 1, 1, 1, 1, 1, 1, 2, 2]]))
    kl = exposure_bias.divergence(truth, truth.clamp(min=1e-300).log())
    torch.testing.assert_close(kl[:, :7], torch.zeros(1, 7).double())
    assert bool(kl[:, 7:].isnan().all())


def test_the_gap_and_its_error_are_those_of_means_over_streams() -> None:
    generator = make_generator(1)
    true = torch.rand(50, 8, generator=generator, dtype=torch.float64)
    own = torch.rand(50, 8, generator=generator, dtype=torch.float64) + 0.5
    gap, error = exposure_bias._gap(true, own)
    assert gap == pytest.approx(float(own.mean() - true.mean()))
    expected = math.sqrt(float(true.mean(1).var() + own.mean(1).var()) / 50)
    assert error == pytest.approx(expected)
    own[0, 4:] = torch.nan  # positions without a truth weigh nothing
    assert exposure_bias._gap(true, own)[0] == pytest.approx(float(own.nanmean() - true.mean()))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="blocks must be between 1 and"):
        exposure_bias.Config(blocks=0)
    with pytest.raises(ValueError, match=r"copy_noise must be in \(0, 1\), got 0"):
        exposure_bias.Config(copy_noise=0.0)
    with pytest.raises(ValueError, match="copy_symbols must be >= 2"):
        exposure_bias.Config(copy_symbols=1)


@pytest.mark.slow
def test_a_small_run_repeats_with_its_seed_and_is_json() -> None:
    config = exposure_bias.Config(
        grammar_steps=10, copy_steps=10, hidden_size=16, copy_length=2, num_streams=6,
        prompt_tokens=10, num_tokens=20, blocks=2,
    )  # fmt: skip
    with one_thread():
        one, again = (exposure_bias.run(config, seed=0) for _ in range(2))
    assert one == again
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert set(one.gap) == {"grammar", "copy"}
    assert [len(blocks) for blocks in one.gap_by_block.values()] == [2, 2]
