"""The study `overoptimization`: its fits, its figures, a small run, and the stored one."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from matplotlib import pyplot as plt

from companion import figures
from companion.best_of_n import fit_gold_curves
from companion.sources import GrammarSource
from companion.studies import one_thread, overoptimization


@pytest.fixture(scope="module")
def source() -> GrammarSource:
    return GrammarSource()


def quick() -> overoptimization.Config:
    return overoptimization.Config(
        steps=30, hidden_size=16, num_tokens=20, judged_texts=60, test_texts=80,
        label_counts=(20, 60), num_proxies=2, lstm_epochs=1, ns=(1, 4, 8, 16), betas=(0.0, 1.0),
        policy_steps=6, policy_batch=8, end_texts=20,
    )  # fmt: skip


# --- fits -----------------------------------------------------------------------------------------


def test_each_form_is_found_where_it_is_the_truth() -> None:
    d = np.linspace(0.2, 3, 12)
    square = fit_gold_curves(d, d * (2 - 0.7 * d))
    log = fit_gold_curves(d, d * (1.5 - 0.9 * np.log(d)))
    assert (square["square"].alpha, square["square"].beta) == pytest.approx((2, 0.7))
    assert (log["log"].alpha, log["log"].beta) == pytest.approx((1.5, 0.9))
    assert square["square"].r_squared == pytest.approx(1)
    assert log["log"].r_squared == pytest.approx(1)
    assert square["log"].r_squared < 0.999
    assert log["square"].r_squared < 0.999


def test_the_explained_share_is_the_usual_one() -> None:
    """Against scikit-learn, on noisy points."""
    from sklearn.metrics import r2_score

    d = np.linspace(0.5, 2, 8)
    gain = np.sin(5 * d)
    fit = fit_gold_curves(d, gain)["square"]
    found = d * (fit.alpha - fit.beta * d)
    assert fit.r_squared == pytest.approx(r2_score(gain, found))
    for alpha, beta in ((fit.alpha + 0.01, fit.beta), (fit.alpha, fit.beta + 0.01)):
        worse = np.square(gain - d * (alpha - beta * d)).sum()
        assert worse > np.square(gain - found).sum()


def test_fits_without_enough_to_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="three points or more"):
        fit_gold_curves([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="distances above 0"):
        fit_gold_curves([0.0, 1.0, 2.0], [1.0, 2.0, 1.0])
    with pytest.raises(ValueError, match="gains that differ"):
        fit_gold_curves([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])


# --- the study ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one() -> overoptimization.Result:
    with one_thread():
        return overoptimization.run(quick(), seed=0)


@pytest.mark.slow
def test_a_small_run_repeats_with_its_seed_and_is_json(one: overoptimization.Result) -> None:
    with one_thread():
        assert overoptimization.run(quick(), seed=0) == one
        assert overoptimization.run(quick(), seed=1) != one
    json.dumps(dataclasses.asdict(one), allow_nan=False)


@pytest.mark.slow
def test_the_figures_of_a_run_are_those_of_its_curves(one: overoptimization.Result) -> None:
    kinds = {"words 20", "words 60", "lstm"}
    for name in ("bon_gold", "bon_proxy", "proxy_accuracy", "peak_gain_by_proxy",
                 "drop_by_proxy", "peaks_inside"):  # fmt: skip
        assert set(getattr(one, name)) == kinds, name
    most = np.array(one.bon_gold["words 60"])
    assert most.shape == (2, 4)
    assert most[:, 0].tolist() == pytest.approx([0, 0], abs=1e-9)
    assert one.bon_peak_gain == pytest.approx(most.max(axis=1).mean())
    assert one.bon_drop == pytest.approx((most.max(axis=1) - most[:, -1]).mean())
    assert one.bon_drop >= 0
    # Nothing chooses better than the gold reward, and a proxy likes what it chooses.
    assert (most <= np.array(one.bon_ceiling) + 1e-9).all()
    assert (np.diff(np.array(one.bon_proxy["words 60"]), axis=1) > 0).all()
    assert set(one.policy_curves) == set(one.policy_end) == {"0", "1"}
    curve = one.policy_curves["0"]
    assert len(curve["kl"]) == len(curve["gold"]) == 7
    assert curve["kl"][0] == pytest.approx(0, abs=1e-6)
    assert curve["proxy"][0] == 0
    smooth = [np.mean(curve["gold"][i : i + 5]) for i in range(3)]
    assert one.rl_peak_gain == pytest.approx(max(smooth))
    assert one.rl_drop == pytest.approx(max(smooth) - one.policy_end["0"]["gold"])
    assert 0.5 < one.label_accuracy < 1
    assert set(one.texts) == {"start", "best of 16", "policy, beta = 0", "policy, beta = 1"}
    assert all(len(texts) == 3 for texts in one.texts.values())
    assert set(one.fits) == {"best of n", "policy"}


@pytest.mark.slow
def test_a_run_can_be_drawn(one: overoptimization.Result) -> None:
    results = [dataclasses.asdict(one)]
    ax = figures.plot_best_of_n(results, {"words 60": "60 pairs", "lstm": "LSTM"})
    gold = ax.get_lines()[0].get_ydata()
    assert list(gold) == pytest.approx(np.mean(one.bon_gold["words 60"], axis=0).tolist())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "60 pairs", "LSTM", "gold chooses",
    ]  # fmt: skip
    ax = figures.plot_policies(results, {"0": "no penalty", "1": "penalty 1"})
    assert len(ax.get_lines()) == 3
    assert len(ax.get_lines()[0].get_ydata()) == 3  # seven steps, five averaged
    plt.close("all")
    for draw in (figures.plot_best_of_n, figures.plot_policies):
        with pytest.raises(ValueError, match="one result or more"):
            draw([], {})


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="ns must lie between 1 and test_texts = 100"):
        overoptimization.Config(test_texts=100)
    with pytest.raises(ValueError, match="one value or more each"):
        overoptimization.Config(betas=())
    with pytest.raises(ValueError, match="ns needs four values"):
        overoptimization.Config(ns=(1, 2, 4))
    with pytest.raises(ValueError, match="num_proxies must be >= 1, got 0"):
        overoptimization.Config(num_proxies=0)


@pytest.mark.slow
def test_pressing_on_a_proxy_spends_what_it_gained(source: GrammarSource) -> None:
    """A shorter training than the study's, about 35 CPU seconds, with the book's margins."""
    config = overoptimization.Config(
        steps=800, judged_texts=2000, test_texts=4000, label_counts=(5000,), num_proxies=3,
        lstm_epochs=0, betas=(0.0,), policy_batch=64, end_texts=100,
    )  # fmt: skip
    with one_thread():
        found = overoptimization.run(config, seed=5)
    assert found.bon_peak_gain > 1
    assert found.bon_drop > 0.4
    assert found.peaks_inside["words 5000"] == 1
    assert found.rl_peak_gain > 1
    assert found.rl_drop > 1.5
    end = found.policy_end["0"]
    assert end["words"] > 60
    assert end["proxy"] > 5
    assert end["kl"] > 80
