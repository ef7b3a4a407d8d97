"""What the figures draw, and that they can be read: by the colour-blind and on any machine."""

from __future__ import annotations

import base64
import dataclasses
import inspect
import itertools
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.axes import Axes
from matplotlib.font_manager import fontManager

from companion import figures
from companion.figures.style import text_on, tint

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with mpl.rc_context():
        figures.use_style()
        yield


def luminance(color: str) -> float:
    """Relative luminance of WCAG 2."""
    rgb = np.array(matplotlib.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


# Viénot, Brettel and Mollon 1999, on linear RGB.
DEUTERANOPIA = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
PROTANOPIA = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])


@pytest.mark.parametrize(
    "seen", [np.eye(3), DEUTERANOPIA, PROTANOPIA], ids=["all", "deutan", "protan"]
)
def test_no_two_colours_look_alike_to_any_eye(seen: np.ndarray) -> None:
    def lab(color: str) -> np.ndarray:
        rgb = np.array(matplotlib.colors.to_rgb(color))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        xyz = np.array(to_xyz) @ np.clip(seen @ linear, 0, 1) / [0.9505, 1, 1.089]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    distances = {
        (a, b): float(np.linalg.norm(lab(figures.NAMED_COLORS[a]) - lab(figures.NAMED_COLORS[b])))
        for a, b in itertools.combinations(figures.NAMED_COLORS, 2)
    }
    # Two just noticeable differences are about 5; lines need more.
    assert min(distances.values()) > 10, min(distances, key=distances.__getitem__)


def test_letters_stand_out_from_the_paper() -> None:
    assert contrast(figures.INK, "white") > 7  # WCAG AAA
    assert contrast(figures.REFERENCE, "white") > 4.5


def test_the_style_uses_the_font_that_comes_with_matplotlib(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ax = figures.new_axes(xlabel="␣ ⏎ ⇥ ∅ −1 σ", title="Loss")
    with caplog.at_level(logging.WARNING):
        ax.figure.canvas.draw()  # a missing glyph or font warns, and warnings are errors here
    assert not caplog.records
    assert ax.figure.get_facecolor() == (1, 1, 1, 1)


def test_in_a_notebook_figures_have_two_pixels_a_point_and_one_width() -> None:
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        figures.use_style()
        png = shell.display_formatter.formatters["image/png"]
        data, metadata = png(figures.new_axes(xlabel="x", ylabel="a long label").figure)
        assert metadata["width"] == round(figures.SIZE[0] * 100)
        assert int.from_bytes(base64.b64decode(data)[16:20], "big") == round(figures.SIZE[0] * 200)
    finally:
        InteractiveShell.clear_instance()


def test_new_axes_keeps_the_one_it_is_given() -> None:
    _, ax = plt.subplots()
    assert figures.new_axes(ax, xlabel="step") is ax
    assert ax.get_xlabel() == "step"
    assert figures.new_axes(ax).get_xlabel() == "step"
    assert tuple(figures.new_axes(width=5, height=2).figure.get_size_inches()) == (5, 2)


def test_next_tokens_are_bars_from_the_top_with_white_space_made_visible() -> None:
    tokens = ["the", " a", "\n", "$x$", ""]
    probs = [0.1, 0.4, 0.2, 0.25, 0.05]
    ax = figures.plot_next_tokens(tokens, probs, truth=[0.2] * 5)
    assert [bar.get_width() for bar in ax.patches] == probs
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "the", "␣a", "⏎", r"\$x\$", "∅"
    ]  # fmt: skip
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    (truth,) = ax.get_lines()
    assert list(truth.get_xdata()) == [0.2] * 5
    ax.figure.canvas.draw()


def test_top_keeps_the_most_probable_in_order() -> None:
    ax = figures.plot_next_tokens(list("abcd"), [0.1, 0.4, 0.4, 0.1], top=3)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "c", "a"]
    with pytest.raises(ValueError, match="top must be >= 1, got 0"):
        figures.plot_next_tokens(["a"], [1.0], top=0)


@pytest.mark.parametrize("name", ["probs", "truth"])
def test_one_number_a_token(name: str) -> None:
    given = {"probs": [0.5, 0.5], "truth": [0.5, 0.5]} | {name: [0.5, 0.25, 0.25]}
    with pytest.raises(ValueError, match=rf"{name} must hold one number for each of the 2 tokens"):
        figures.plot_next_tokens(["a", "b"], given["probs"], truth=given["truth"])


def line_of(ax: Axes, label: str) -> np.ndarray:
    (line,) = [line for line in ax.get_lines() if line.get_label() == label]
    return np.asarray(line.get_ydata(), dtype=float)


def test_a_unit_stands_above_the_text_it_read() -> None:
    ax = figures.plot_over_text(["(", " ", "\n"], [1.0, 3.0, 2.0], label="cell")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["(", "␣", "⏎"]
    assert line_of(ax, "cell").tolist() == [1, 3, 2]
    assert ax.get_ylabel() == "cell"


@pytest.mark.parametrize("slope", [-2.0, 0.5])
def test_the_truth_lies_on_a_unit_that_rises_with_it_and_its_axis_keeps_its_numbers(
    slope: float,
) -> None:
    depth = np.array([0, 1, 2, 1, 0, 3])
    values = slope * depth + 5
    ax = figures.plot_over_text(list("a(b)c("), values, truth=depth, truth_label="depth")
    steps = line_of(ax, "depth")
    assert (np.allclose(steps, values)) == (slope > 0)  # a falling unit is not turned over
    assert steps.mean() == pytest.approx(values.mean())
    assert steps.std() == pytest.approx(values.std())
    (right,) = [child for child in ax.child_axes if child.get_ylabel() == "depth"]
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    rise = steps[1] - steps[0]  # from depth 0 to depth 1
    expected = (low - steps[0]) / rise, (high - steps[0]) / rise
    assert right.get_ylim() == pytest.approx(expected)


def ticks_of_the_truth(ax: Axes) -> list[float]:
    """The numbers on the right axis, as drawn."""
    ax.figure.canvas.draw()
    (right,) = ax.child_axes
    low, high = right.get_ylim()
    return [tick for tick in right.get_yticks() if low <= tick <= high]


@pytest.mark.parametrize("limits", [None, (0, 1)])
def test_the_truth_s_axis_has_numbers_of_its_range_alone(limits: tuple[int, int] | None) -> None:
    """Also where the unit goes lower and higher than the truth, and where it hardly moves."""
    depth = [0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    for values in ([0.0, *[0.5] * 8, 1.0], [0.99, *[1.0] * 9]):
        ax = figures.plot_over_text(list("a(((()))b("), values, truth=depth, limits=limits)
        ax.set_ylim(-0.2, 1.2)
        assert ticks_of_the_truth(ax) == [0, 1, 2, 3, 4]


def test_a_gate_is_shown_from_its_lowest_to_its_highest_value_and_the_truth_fills_that() -> None:
    gate, depth = np.array([0.98, 1.0, 0.99, 1.0]), np.array([0, 1, 4, 2])
    ax = figures.plot_over_text(
        list("a(()"), gate, truth=depth, limits=(0, 1), label="forget gate", truth_label="depth"
    )
    assert line_of(ax, "forget gate").tolist() == gate.tolist()
    assert line_of(ax, "depth").tolist() == [0, 0.25, 1, 0.5]
    low, high = ax.get_ylim()
    assert -0.1 < low < 0
    assert 1 < high < 1.1
    ax = figures.plot_over_text(["a", "b"], [0.5, 0.5], truth=[3, 3], limits=(0, 1))
    assert np.isfinite(line_of(ax, "truth")).all()
    assert ticks_of_the_truth(ax) == [3]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((0, 1), r"values must lie within limits=\(0, 1\), got 0 to 2"),
        ((2, 0), r"limits must be \(lowest, highest\), got \(2, 0\)"),
        ((2, 2), "limits must be"),
    ],
)
def test_a_value_outside_its_limits_is_refused(limits: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.plot_over_text(["a", "b"], [0, 2], limits=limits)


@pytest.mark.parametrize(
    ("values", "truth"), [([2, 2], [0, 1]), ([0, 1], [3, 3]), ([2, 2], [3, 3])]
)
def test_a_constant_can_be_drawn_over_a_text(values: list[int], truth: list[int]) -> None:
    ax = figures.plot_over_text(["a", "b"], values, truth=truth)
    ax.figure.canvas.draw()
    assert np.isfinite(line_of(ax, "truth")).all()


@pytest.mark.parametrize("wrong", ["values", "truth"])
def test_one_number_for_each_token_of_a_text(wrong: str) -> None:
    given = {"values": [1, 2], "truth": [1, 2], wrong: [1, 2, 3]}
    with pytest.raises(ValueError, match=f"{wrong} must hold one number for each of the 2 tokens"):
        figures.plot_over_text(["a", "b"], given["values"], truth=given["truth"])
    with pytest.raises(ValueError, match="got shape"):
        figures.plot_over_text([], [])


def test_a_band_is_the_mean_and_the_range_over_seeds() -> None:
    samples = np.array([[0.0, 2.0], [1.0, 3.0], [2.0, 4.0]])
    ax = figures.band(figures.new_axes(), [5, 6], samples, label="model")
    (line,) = ax.get_lines()
    assert line.get_xydata().tolist() == [[5, 1], [6, 3]]
    (filled,) = ax.collections
    corners = filled.get_paths()[0].vertices
    at_six = corners[corners[:, 0] == 6, 1]
    assert (at_six.min(), at_six.max()) == pytest.approx((2, 4))
    assert matplotlib.colors.same_color(filled.get_facecolor()[0][:3], line.get_color())


def test_a_band_refuses_other_shapes() -> None:
    ax = figures.new_axes()
    with pytest.raises(ValueError, match=r"of shape \(seeds, 2\)"):
        figures.band(ax, [1, 2], [[1.0, 2.0, 3.0]])


def test_a_floor_line_can_stand_or_lie() -> None:
    ax = figures.floor_line(figures.new_axes(), 2, "floor")
    figures.floor_line(ax, 3, "seen in training", axis="x")
    lying, standing = ax.get_lines()
    assert set(lying.get_ydata()) == {2}
    figures.floor_line(ax, 1, "another", dashes=(1, 2))
    assert ax.get_lines()[2]._dash_pattern != lying._dash_pattern  # type: ignore[attr-defined]
    assert set(standing.get_xdata()) == {3}
    with pytest.raises(ValueError, match="got 'z'"):
        figures.floor_line(ax, 1, "", axis="z")


TRIALS = [
    {"number": 0, "state": "complete", "nats_per_token": 3.0, "settings": {"a": 0.1, "b": "x"}},
    {"number": 1, "state": "complete", "nats_per_token": 3.5, "settings": {"a": 0.2, "b": "y"}},
    {"number": 2, "state": "pruned", "nats_per_token": 4.0, "settings": {"a": 9.0, "b": "x"}},
    {"number": 3, "state": "failed", "nats_per_token": None, "settings": {"a": 0.3, "b": "y"}},
    {"number": 4, "state": "complete", "nats_per_token": 2.0, "settings": {"a": 0.4, "b": "y"}},
]


def dots(ax: plt.Axes) -> dict[str, list[list[float]]]:
    return {dots.get_label(): dots.get_offsets().tolist() for dots in ax.collections}


def test_trials_show_each_loss_and_the_lowest_so_far() -> None:
    ax = figures.plot_trials(TRIALS)
    (lowest,) = ax.get_lines()
    assert lowest.get_xydata().tolist() == [[0, 3.0], [1, 3.0], [4, 2.0]]
    assert dots(ax) == {
        "complete": [[0, 3.0], [1, 3.5], [4, 2.0]],
        "stopped early": [[2, 4.0]],
    }
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_a_setting_shows_numbers_on_their_axis_and_words_side_by_side() -> None:
    ax = figures.plot_setting(TRIALS, "a", log=True)
    assert ax.get_xscale() == "log"
    assert dots(ax)["complete"] == [[0.1, 3.0], [0.2, 3.5], [0.4, 2.0]]
    assert figures.plot_setting(TRIALS, "a", ax=figures.new_axes()).get_xscale() == "linear"
    ax = figures.plot_setting(TRIALS, "b", ax=figures.new_axes())
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]
    layers = [trial | {"settings": {"layers": 1 + trial["number"] % 2}} for trial in TRIALS]
    ax = figures.plot_setting(layers, "layers", ax=figures.new_axes())
    assert all(float(tick).is_integer() for tick in ax.get_xticks())
    with pytest.raises(ValueError, match="trial 0 has no setting 'c'; it has a, b"):
        figures.plot_setting(TRIALS, "c")


def test_a_search_is_its_trials_and_a_panel_a_setting() -> None:
    axes = figures.plot_search(TRIALS, log=["a"])
    assert [ax.get_xlabel() for ax in axes] == ["trial", "a", "b"]
    assert [ax.get_xscale() for ax in axes] == ["linear", "log", "linear"]
    assert len(axes[0].figure.axes) == 3  # the fourth place of the grid stays empty
    axes[0].figure.canvas.draw()
    with pytest.raises(ValueError, match="one trial or more"):
        figures.plot_search([])
    with pytest.raises(ValueError, match="one complete trial or more, got 1 others"):
        figures.plot_search(TRIALS[2:3])


def test_reliability_is_drawn_against_the_diagonal_and_larger_where_more_was_predicted() -> None:
    ax = figures.plot_reliability([0.2, 0.8], [0.1, 0.9], [10, 30], standard_errors=[0.05, 0.02])
    diagonal, curve = ax.get_lines()[0], ax.get_lines()[-1]
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert curve.get_xydata().tolist() == [[0.2, 0.1], [0.8, 0.9]]
    dots = ax.collections[-1]
    assert dots.get_offsets().tolist() == [[0.2, 0.1], [0.8, 0.9]]
    assert dots.get_sizes()[1] > dots.get_sizes()[0]
    bars = ax.collections[0].get_segments()
    assert bars[0][:, 1] == pytest.approx([0.1, 0.3])  # two errors about the diagonal
    before = len(ax.get_lines())
    figures.plot_reliability([0.5], [0.4], [7], label="another", ax=ax)
    assert len(ax.get_lines()) == before + 1  # no second diagonal
    with pytest.raises(ValueError, match="one number for each bin"):
        figures.plot_reliability([0.5], [0.4, 0.3], [7])


def decoder_result(wrong: float) -> dict[str, dict[str, float]]:
    return {
        "moved_mass": {"T=0.5": 0.3, "T=1": 0.0, "top-k 3": 0.4, "greedy": 0.7},
        "ungrammatical": {
            "T=0.5": wrong / 2, "T=1": wrong, "top-k 3": 0.0, "greedy": 0.0, "source": 0.0,
        },
    }  # fmt: skip


def test_decoders_are_drawn_by_family_in_percent_with_their_range() -> None:
    ax = figures.plot_decoders([decoder_result(0.1), decoder_result(0.3)])
    (temperature, top_k) = ax.containers
    assert temperature.get_label() == "temperature T"
    assert top_k.get_label() == "top-k"
    line, _, (bars,) = temperature.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xydata(), [[30, 10], [0, 20]])
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[5, 15], [10, 30]])
    assert [text.get_text() for text in ax.texts] == ["0.5", "1", "3"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_decoders([])


def test_refusals_and_leaks_are_drawn_by_condition_with_their_range() -> None:
    results = [
        {"refusal": {"plain": 1.0, "prefill": 0.0}, "leak": {"plain": 0.0, "prefill": leak}}
        for leak in (0.6, 1.0)
    ]
    ax = figures.plot_refusal_and_leak(results, {"plain": "asked plainly", "prefill": "begun"})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["asked plainly", "begun"]
    refuses, leaks = ax.containers
    assert [refuses.get_label(), leaks.get_label()] == ["refuses", "gives the right answer"]
    np.testing.assert_allclose(refuses.lines[0].get_xdata(), [100, 0])  # type: ignore[attr-defined]
    line, _, (bars,) = leaks.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xdata(), [0, 80])
    np.testing.assert_allclose([s[:, 0] for s in bars.get_segments()], [[0, 0], [60, 100]])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first condition is on top
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_refusal_and_leak([], {"plain": "asked plainly"})


def demanded(shift: float) -> dict[str, Any]:
    rows = {"0": {"target": 0.8 - shift, "control": 0.9}, "0.25": {"target": 0.1, "control": 0.7}}
    return {"refusal": {"plain": rows}}


def test_refusals_are_drawn_by_share_of_demands_with_each_result() -> None:
    labels = {"control": "other", "target": "its own"}
    ax = figures.plot_demands([demanded(0.0), demanded(0.2)], "plain", labels)
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(lines["its own"], [70, 10])
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines[3:5]], [[80, 10], [60, 10]])
    assert ax.get_legend_handles_labels()[1] == ["other", "its own"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "25"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_demands([], "plain", labels)


def deep(first: float) -> dict[str, Any]:
    return {"forms": {"one": {"kl 1": first, "kl 2": 0.5}, "several": {"kl 1": 1.0, "kl 2": 3.0}}}


def test_the_change_is_drawn_by_word_and_model_with_its_range() -> None:
    labels = {"one": "one form", "several": "several forms"}
    ax = figures.plot_depth([deep(8.0), deep(10.0)], labels, ["you", "need"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(labels.values())
    ax.figure.canvas.draw()  # the legend hides no bar: it is above them all
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1
    heights = [patch.get_height() for patch in ax.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights, [9, 0.5, 1, 3])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_depth([], labels, ["you", "need"])


def memorized(shift: float) -> dict[str, Any]:
    return {
        "source_nats_per_token": {"train": 2.0, "few texts": 2.1, "valid": 2.2},
        "train_nats_per_token": {"plain": [3.0 + shift, 2.0]},
        "valid_nats_per_token": {"plain": [3.5 + shift, 2.5], "dropout": [3.2, 2.4]},
        "best_epoch": {"plain": 2},
        "exposure_by_epoch": {
            "plain": {"0": [1.0 + shift, 1.5], "4": [3.0 + shift, 16.0]},
            "dropout": {"4": [2.0, 9.0]},
        },
    }


def test_losses_are_drawn_with_their_range_above_the_floor_of_their_text() -> None:
    ax = figures.plot_fit([memorized(0.0), memorized(0.5)], "plain", "few texts")
    fresh, own, floor = ax.lines
    np.testing.assert_allclose(fresh.get_xydata(), [[1, 3.75], [2, 2.5]])
    np.testing.assert_allclose(own.get_xydata(), [[1, 3.25], [2, 2.0]])
    np.testing.assert_allclose(floor.get_ydata(), 2.1)
    assert legend_of(ax) == ["fresh reviews", "training reviews", "the source itself"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_fit([], "plain", "train")


def test_exposure_is_drawn_by_repetitions_between_chance_and_the_most() -> None:
    ax = figures.plot_exposure([memorized(0.0), memorized(1.0)])
    often, never, best, most, chance = ax.lines
    np.testing.assert_allclose(often.get_xydata(), [[1, 3.5], [2, 16]])
    np.testing.assert_allclose(never.get_xydata(), [[1, 1.5], [2, 1.5]])
    assert set(best.get_xdata()) == {2}
    np.testing.assert_allclose(most.get_ydata(), np.log2(1e5))
    np.testing.assert_allclose(chance.get_ydata(), 1 / np.log(2))
    assert legend_of(ax)[:2] == ["4 times", "0 times"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_exposure([])


def test_remedies_are_paths_through_loss_and_exposure_one_for_each_result() -> None:
    ax = figures.plot_remedies([memorized(0.0), memorized(1.0)], "4")
    paths = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) == 2][:-1]
    np.testing.assert_allclose(
        paths, [[[3.5, 3], [2.5, 16]], [[4.5, 4], [2.5, 16]], *[[[3.2, 2], [2.4, 9]]] * 2]
    )
    assert legend_of(ax) == ["plain", "dropout", "the source itself"]
    assert legend_of(figures.plot_remedies([memorized(0.0)], "0")) == ["plain", "the source itself"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_remedies([], "4")


def test_strengths_are_rows_of_exposure_at_equal_loss_and_of_the_lowest_loss() -> None:
    runs: list[dict[str, dict[str, float]]] = [
        {
            "best_exposure": {"plain": 15.0, "dropout 0.4": 8.0, "dropout 0.6": 4.0},
            "near_exposure": {"plain": 12.0 + x, "dropout 0.4": 9.0, "dropout 0.6": 6.0},
            "matched_exposure": {"plain": 15.0 + x, "dropout 0.4": 10.0},
            "lowest_nats_per_token": {"plain": 2.5 + x, "dropout 0.4": 2.4, "dropout 0.6": 2.6},
        }
        for x in (0.0, 1.0)
    ]
    del runs[1]["matched_exposure"]["dropout 0.4"]
    left, right = figures.plot_strengths(runs, margin=0.05)
    assert [label.get_text() for label in left.get_yticklabels()] == list(runs[0]["best_exposure"])
    means = [list(bars.lines[0].get_xdata()) for bars in left.containers]  # type: ignore[attr-defined]
    assert means == [[12.5], [9], [6], [15.5], [10]]
    (reach,) = left.containers[0].lines[2]  # type: ignore[attr-defined]
    np.testing.assert_allclose(reach.get_segments()[0][:, 0], [12, 13])
    (dashes,) = (line for line in left.lines if line.get_linestyle() == "--")
    assert set(dashes.get_xdata()) == {15.5}
    notes = {note.get_text(): note.xy for note in left.texts}  # type: ignore[attr-defined]
    assert notes == {"1 of 2": (10.0, 1.16), "0 of 2": (0.0, 2.16)}
    assert legend_of(left) == ["0.05 nats above plain's lowest loss", "at plain's lowest loss"]
    (lowest,) = right.containers
    np.testing.assert_allclose(lowest.lines[0].get_xdata(), [3.0, 2.4, 2.6])  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_strengths([])


def tuned(shift: float) -> dict[str, Any]:
    return {
        "dpo": {
            "start": {"gold": 1.0 + shift, "kl": 0.0},
            "1": {"gold": 2.0 + 2 * shift, "kl": 1.0},
            "0.1": {"gold": 3.0 + shift, "kl": 4.0},
        },
        "overtraining": {"kl": [0.0, 9.0], "gold": [1.0, 0.0]},
        "ideal": {"kl": [0.25, 1.0], "gold": [2.0 + shift, 4.0 + shift]},
    }


def test_preference_tuning_is_drawn_as_gains_over_the_start() -> None:
    ax = figures.plot_preference_tuning([tuned(0.0), tuned(1.0)])
    (dots,) = ax.containers
    assert dots.get_label() == "DPO, one pass; from left, β = 1, 0.1"
    line, _, (bars,) = dots.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xydata(), [[1, 1.5], [2, 2]])
    np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[1, 2], [2, 2]])
    lines = {str(line.get_label()): line.get_xydata() for line in ax.lines}
    np.testing.assert_allclose(lines["DPO for too long, by epoch"], [[0, -0.5], [3, -1.5]])
    np.testing.assert_allclose(lines["best possible"], [[0.5, 1], [1, 3]])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_preference_tuning([])


def test_tradeoffs_are_means_with_ranges_beside_the_untreated_model() -> None:
    runs = [
        {"figures": {"nothing": {"gold": -x, "ece": x}, "DPO": {"gold": 1 + x, "ece": 2 * x}}}
        for x in (0.0, 1.0)
    ]
    axes = figures.plot_tradeoffs(runs, {"DPO": "by pairs"}, {"gold": "reward", "ece": "ECE"})
    assert [ax.get_title(loc="left") for ax in axes] == ["reward", "ECE"]
    for ax, mean, ends, start in zip(axes, (1.5, 1), ([1, 2], [0, 2]), (-0.5, 0.5), strict=True):
        (dots,) = ax.containers
        line, _, (bars,) = dots.lines  # type: ignore[attr-defined]
        np.testing.assert_allclose(line.get_xydata(), [[mean, 0]])
        np.testing.assert_allclose(bars.get_segments()[0][:, 0], ends)
        (dashed,) = [x for x in ax.lines if x.get_linestyle() == "--"]
        np.testing.assert_allclose(dashed.get_xdata(), start)
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_tradeoffs([], {"DPO": "a"}, {"gold": "b"})


def legend_of(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def shift_result(own: float) -> dict[str, Any]:
    return {
        "unavoidable": {"old": 0.0, "words": 0.06},
        "own_error": {"old": own, "words": own + 0.02},
        "context_share": {"old": [0.5, 0.5], "words": [0.25, 0.75]},
        "context_contribution": {"old": [own, own / 2], "words": [own, own]},
        "adaptation_old": {"0% old": [0.02, own], "50% old": [0.02, 0.05]},
        "adaptation_new": {"0% old": [0.3, 0.05], "50% old": [0.3, 0.1]},
        "perfect_elsewhere": {"old": 0.2, "new": 0.3},
        "mixture_bound": {"old": 0.03, "new": 0.02},
    }


def test_the_parts_of_a_shifted_loss_are_drawn_end_to_end() -> None:
    results = [shift_result(0.1), shift_result(0.3)]
    ax = figures.plot_shift_parts(results, {"old": "itself", "words": "other words"})
    unavoidable, own = (c for c in ax.containers if hasattr(c, "patches"))
    assert [bar.get_width() for bar in unavoidable] == pytest.approx([0, 0.06])
    assert [bar.get_x() for bar in own] == pytest.approx([0, 0.06])
    assert [bar.get_width() for bar in own] == pytest.approx([0.2, 0.22])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["itself", "other words"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_shift_parts([], {"old": "itself"})


def test_errors_by_context_are_means_in_the_bins_and_bins_have_names() -> None:
    results = [shift_result(0.1), shift_result(0.3)]
    ax = figures.plot_error_by_context(results, {"old": "old", "words": "new"}, [0, 1000])
    old, words = ax.lines
    np.testing.assert_allclose(old.get_ydata(), [0.4, 0.2])
    np.testing.assert_allclose(words.get_ydata(), [0.8, 0.2 / 0.75])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["below 1,000", "1,000 up"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_error_by_context([], {"old": "old"}, [0, 10])


def test_adaptation_is_drawn_on_both_sources_with_their_floors() -> None:
    ax = figures.plot_adaptation([shift_result(0.1), shift_result(0.3)])
    paths = [line for line in ax.lines if str(line.get_label()).endswith("old text")]
    np.testing.assert_allclose(paths[0].get_xydata(), [[0.02, 0.3], [0.2, 0.05]])
    np.testing.assert_allclose(paths[1].get_xydata(), [[0.02, 0.3], [0.05, 0.1]])
    perfect, mixture = (c for c in ax.collections if str(c.get_label())[0] != "_")
    np.testing.assert_allclose(perfect.get_offsets(), [[0, 0.3], [0.2, 0]])
    np.testing.assert_allclose(mixture.get_offsets(), [[0.03, 0.02]])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_adaptation([])


def test_detection_is_drawn_by_kind_and_score_with_its_range() -> None:
    results = [{"auroc": {"code": {"a": 0.8, "b": 1.0}, "spaces": {"a": x, "b": 1.0}}}
               for x in (0.0, 0.2)]  # fmt: skip
    ax = figures.plot_detection(results, {"code": "code", "spaces": "blanks"}, ["a", "b"])
    a, _ = ax.containers
    line, _, (bars,) = a.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xdata(), [0.8, 0.1])
    np.testing.assert_allclose([s[:, 0] for s in bars.get_segments()], [[0.8, 0.8], [0, 0.2]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["code", "blanks"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_detection([], {"code": "code"}, ["a"])


def guarded(leak: float) -> dict[str, Any]:
    model = {"capability": 1.0, "leak": leak, "plain_capability": 0.9, "plain_leak": 0.1}
    return {"models": {"64": {**model, "capability": 0.4, "leak": 0.3}, "128": model}}


def test_what_is_still_told_is_drawn_over_what_was_known() -> None:
    models = {"64": "64 units", "128": "128 units"}
    ax = figures.plot_capability_and_leak([guarded(1.0), guarded(0.8)], models)
    diagonal, *dots = ax.lines
    np.testing.assert_allclose(diagonal.get_xydata(), [[0, 0], [100, 100]])
    encoded_small, plain_small, encoded_large, _ = dots
    np.testing.assert_allclose(encoded_small.get_xydata(), [[40, 30], [40, 30]])
    np.testing.assert_allclose(plain_small.get_xydata(), [[90, 10], [90, 10]])
    np.testing.assert_allclose(encoded_large.get_xydata(), [[100, 100], [100, 80]])
    assert plain_small.get_markerfacecolor() == "none"
    assert legend_of(ax) == ["nothing is withheld", "64 units", "128 units"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_capability_and_leak([], models)


def anchored(share: float) -> dict[str, Any]:
    keys = ("refusal", "other_refusal", "leak", "other_right")
    return {key: {"a": {"encoded": share}, "b": {"encoded": 1.0}} for key in keys}


def test_refusals_and_right_answers_of_both_kinds_are_drawn_by_safety_training() -> None:
    results = [anchored(0.0), anchored(0.2)]
    results[1]["leak"]["b"]["encoded"] = 0.5
    ax = figures.plot_anchors(results, {"a": "with all", "b": "without"})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["with all", "without"]
    assert legend_of(ax) == ["florb refused", "other refused", "florb right", "other right"]
    refused, _, right, other = ax.containers
    np.testing.assert_allclose(refused.lines[0].get_xdata(), [10, 100])  # type: ignore[attr-defined]
    line, _, (bars,) = right.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xdata(), [10, 75])
    np.testing.assert_allclose([s[:, 0] for s in bars.get_segments()], [[0, 20], [50, 100]])
    assert other.lines[0].get_markerfacecolor() == "white"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_anchors([], {"a": "with all"})


def covered(shift: float) -> dict[str, Any]:
    return {
        "refusal": {"plain": {"a": 1.0, "b": shift}, "both": {"a": 0.8, "b": 0.9}},
        "benign": {"plain": {"a": 0.95}, "both": {"a": 0.9}},
    }


def test_coverage_is_a_table_of_means_with_a_gap_between_refused_and_answered() -> None:
    data, refused, answered = {"plain": "one", "both": "two"}, {"a": "A", "b": "B"}, {"a": "A"}
    ax = figures.plot_coverage([covered(0.0), covered(0.2)], data, refused, answered)
    shown = {
        (round(text.get_position()[0], 2), text.get_position()[1]): text.get_text()
        for text in ax.texts
        if text.get_text().isdigit()
    }
    assert shown == {
        (0, 0): "100", (1, 0): "10", (2.25, 0): "95", (0, 1): "80", (1, 1): "90", (2.25, 1): "90",
    }  # fmt: skip
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["A", "B", "A"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first data are on top
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_coverage([], data, refused, answered)


def test_the_composition_figure_shows_both_models_by_number_of_examples() -> None:
    results = [
        {
            "composed_by_dose": {
                "LSTM": {"0": none, "3000": many},
                "Transformer": {"0": 0, "3000": 1},
            }
        }
        for none, many in ((0.0, 0.8), (0.1, 1.0))
    ]
    ax = figures.plot_composition(results)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "3,000"]
    lstm, transformer = ax.containers
    assert [lstm.get_label(), transformer.get_label()] == ["LSTM", "Transformer"]
    line, _, (bars,) = lstm.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_ydata(), [5, 90])
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [0, 10], atol=1e-12)
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_composition([])


def test_the_kinds_figure_shows_each_kind_of_rest_by_kind_in_training() -> None:
    results = [
        {"composed_by_kind": {"LSTM": {"any": shares(1.0), "rest_1": shares(third)}}}
        for third in (0.0, 0.2)
        for shares in [lambda third: {"1": 1.0, "2": 0.5, "3": third}]
    ]
    ax = figures.plot_composition_kinds(results, "LSTM", {"rest_1": "one digit", "any": "any"})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one digit", "any"]
    assert [each.get_label() for each in ax.containers] == [
        "rest of 1 digit", "rest of 2 digits", "rest of 3 digits",
    ]  # fmt: skip
    line, _, (bars,) = ax.containers[2].lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xdata(), [10, 100])
    np.testing.assert_allclose(bars.get_segments()[0][:, 0], [0, 20], atol=1e-12)
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_composition_kinds([], "LSTM", {"any": "any"})


def translated(value: float) -> dict[str, Any]:
    """A result of the study of translation, as far as figures read it."""
    return {
        "exact": {"attention": value, "uniform": 0.4, "none": 0.2, "250": 0.1, "noisy": 0.3},
        "by_digits": {"3": value, "6": 0.0},
        "by_digits_all": {"3": 1.0, "6": value},
        "beam_ratio": {"0 1": 0.9, "1 1": 0.9, "0 10": value, "1 10": 1.0},
        "clean_ratio": {"1": 1.0, "10": 1.0},
    }


def test_the_figures_of_translation_show_mean_and_range() -> None:
    results = [translated(0.2), translated(0.6)]
    ax = figures.plot_translation_doses(results, 3000)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["250", "3,000"]
    doses, uniform, none = ax.containers
    line, _, (bars,) = doses.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_ydata(), [10, 40])
    np.testing.assert_allclose(bars.get_segments()[1][:, 1], [20, 60], atol=1e-12)
    np.testing.assert_allclose(uniform.lines[0].get_ydata(), [40])  # type: ignore[attr-defined]
    np.testing.assert_allclose(none.lines[0].get_ydata(), [20])  # type: ignore[attr-defined]
    ax = figures.plot_translation_lengths(results)
    all_lengths, short = ax.containers
    np.testing.assert_allclose(all_lengths.lines[0].get_ydata(), [100, 40])  # type: ignore[attr-defined]
    np.testing.assert_allclose(short.lines[0].get_ydata(), [40, 0])  # type: ignore[attr-defined]
    ax = figures.plot_beam_widths(results)
    assert [each.get_label() for each in ax.containers] == [
        "cut targets, by probability", "cut targets, by nats per token",
        "clean targets, by probability",
    ]  # fmt: skip
    np.testing.assert_allclose(ax.containers[0].lines[0].get_ydata(), [0.9, 0.4])  # type: ignore[attr-defined]
    for plot in (figures.plot_translation_lengths, figures.plot_beam_widths):
        with pytest.raises(ValueError, match="one result or more"):
            plot([])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_translation_doses([], 3000)


def compressed(value: float) -> dict[str, Any]:
    """A result of the study of compression, as far as figures read it."""
    kl = {"float32": 0.1, "8 bits": value, "2 bits": 2.0, "prune 0.5": 9.0, "rank 16": 0.5,
          "prune 0.5 repaired": 0.4, "random 0.5": 9.0, "random 0.5 repaired": 0.8}  # fmt: skip
    return {
        "kl": kl,
        "bytes": dict.fromkeys(kl, 50) | {"float32": 200, "2 bits": 20},
        "student": {"alone": 0.5, "teacher": value},
        "student_bytes": 20,
        "refusal": {"safe": 1.0, "8 bits": value},
        "benign": {"safe": 0.9, "8 bits": 0.5},
    }


def test_the_figures_of_compression_show_mean_and_range() -> None:
    results = [compressed(0.2), compressed(0.6)]
    ax = figures.plot_compression(results)
    bits, repaired, at_random, rank, alone, teacher = ax.containers
    line, _, (bars,) = bits.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xdata(), [25, 10])
    np.testing.assert_allclose(line.get_ydata(), [0.4, 2.0])
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [0.2, 0.6], atol=1e-12)
    np.testing.assert_allclose(repaired.lines[0].get_ydata(), [0.4])  # type: ignore[attr-defined]
    np.testing.assert_allclose(at_random.lines[0].get_ydata(), [0.8])  # type: ignore[attr-defined]
    np.testing.assert_allclose(rank.lines[0].get_ydata(), [0.5])  # type: ignore[attr-defined]
    np.testing.assert_allclose(alone.lines[0].get_ydata(), [0.5])  # type: ignore[attr-defined]
    np.testing.assert_allclose(teacher.lines[0].get_ydata(), [0.4])  # type: ignore[attr-defined]
    ax = figures.plot_compressed_refusals(results, {"safe": "as it was", "8 bits": "8 bits"})
    refused, right = ax.containers
    np.testing.assert_allclose(refused.lines[0].get_xdata(), [100, 40])  # type: ignore[attr-defined]
    np.testing.assert_allclose(right.lines[0].get_xdata(), [90, 50])  # type: ignore[attr-defined]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["as it was", "8 bits"]
    with pytest.raises(ValueError, match="the results have no 'noise'"):
        figures.plot_compressed_refusals(results, {"noise": "noise"})
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_compression([])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_compressed_refusals([], {})


def refused(value: float) -> dict[str, Any]:
    """A result of the study of a real model's refusals, as far as figures read it."""
    return {
        "right_before": {"plain": 1.0, "spanish": 0.5},
        "right": {"plain": 0.0, "spanish": value},
        "declines": {"plain": 1.0, "spanish": 0.1},
        "kl_refused": [8.0, value],
        "kl_others": [0.1, 0.2],
    }


def test_the_figures_of_a_real_model_show_mean_and_range() -> None:
    results = [refused(0.4), refused(0.8)]
    ax = figures.plot_ways_of_asking(results)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["plain", "spanish"]
    assert [each.get_label() for each in ax.containers] == [
        "right before", "right after", "declines after",
    ]  # fmt: skip
    line, _, (bars,) = ax.containers[1].lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xdata(), [0, 60])
    np.testing.assert_allclose(bars.get_segments()[1][:, 0], [40, 80], atol=1e-12)
    ax = figures.plot_answer_kl(results)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [8, 0.6])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.1, 0.2])
    assert len(ax.lines) == 2
    ax = figures.plot_answer_kl(results, [refused(0.1), refused(0.3)])
    np.testing.assert_allclose(ax.lines[2].get_ydata(), [8, 0.2])
    assert "all answered" in ax.lines[2].get_label()
    ax = figures.plot_surprisals({"people": [0.5, 3.0], "greedy": [0.0, 0.0]})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.5, 3])
    for plot in (figures.plot_ways_of_asking, figures.plot_answer_kl):
        with pytest.raises(ValueError, match="one result or more"):
            plot([])
    with pytest.raises(ValueError, match="one text or more"):
        figures.plot_surprisals({})


def biased(value: float) -> dict[str, Any]:
    """A result of the study of bias, as far as figures read it."""
    by_strength = {"0": 0.0, "1.5": value, "0.5": 0.25}
    ways = {"asked": value, "new template": 0.2, "unlisted names": 0.3, "reverse": 1.5}
    return {
        **dict.fromkeys(("by_strength", "vectors_lstm", "vectors_counted"), by_strength),
        **dict.fromkeys(("gap_equal", "gap_biased"), by_strength),
        "vectors_initial": 0.5,
        "left": {"none": ways, "averaging": ways},
    }


def test_the_figures_of_bias_show_mean_and_range() -> None:
    results = [biased(1.0), biased(2.0)]
    for plot in (figures.plot_planted_bias, figures.plot_association, figures.plot_gaps):
        ax = plot(results)
        line, _, (bars,) = ax.containers[0].lines  # type: ignore[attr-defined]
        np.testing.assert_allclose(line.get_ydata(), [0, 0.25, 1.5])  # by strength
        np.testing.assert_allclose(bars.get_segments()[2][:, 1], [1, 2], atol=1e-12)
        with pytest.raises(ValueError, match="one result or more"):
            plot([])
    own = figures.plot_association(results).containers[1].lines[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(own.get_ydata(), [-0.5, -0.25, 1.0])  # minus the untrained
    ax = figures.plot_bias_left(results, 1.5)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["none", "averaging"]
    np.testing.assert_allclose(ax.containers[0].lines[0].get_xdata(), [1.5, 1.5])  # type: ignore[attr-defined]
    np.testing.assert_allclose(ax.containers[3].lines[0].get_xdata(), [1.5, 1.5])  # type: ignore[attr-defined]
    assert ax.lines[-2].get_xdata()[0] == 1.5  # the planted one, drawn
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_bias_left([], 1.5)


def classified(value: float) -> dict[str, Any]:
    """A result of the study of sentiment, as far as figures read it."""
    bodies = ("scratch", "pretrained", "300 steps", "shuffled words")
    return {
        "accuracy": {f"{b} {d}": v for b in bodies for d, v in ((10, value), (1000, 1.0))},
        "agreement": {"pretrained": 0.9, "300 steps": value, "shuffled words": 0.8},
        "cue_same": {"scratch plain": 0.9, "independent opinions plain": 1.0},
        "cue_worst": {"scratch plain": value, "independent opinions plain": 0.8},
    }


def test_the_figures_of_sentiment_show_mean_and_range() -> None:
    results = [classified(0.5), classified(0.7)]
    ax = figures.plot_labels(results)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "1,000"]
    assert [each.get_label() for each in ax.containers] == [
        "from scratch", "fine-tuned: reviews", "shuffled reviews",
    ]  # fmt: skip
    line, _, (bars,) = ax.containers[0].lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_ydata(), [60, 100])
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [50, 70], atol=1e-12)
    ax = figures.plot_stages(results, 1200)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["300", "1,200"]
    agreement, right = ax.containers
    np.testing.assert_allclose(agreement.lines[0].get_ydata(), [60, 90])  # type: ignore[attr-defined]
    np.testing.assert_allclose(right.lines[0].get_ydata(), [60, 60])  # type: ignore[attr-defined]
    ax = figures.plot_cue_groups(results)
    same, worst = ax.containers
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "from scratch, plain", "disagreeing opinions, plain",
    ]  # fmt: skip
    np.testing.assert_allclose(same.lines[0].get_xdata(), [90, 100])  # type: ignore[attr-defined]
    np.testing.assert_allclose(worst.lines[0].get_xdata(), [60, 80])  # type: ignore[attr-defined]
    for plot in (figures.plot_labels, figures.plot_cue_groups):
        with pytest.raises(ValueError, match="one result or more"):
            plot([])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_stages([], 1200)


def test_the_table_of_decisions_says_what_they_are_and_what_they_cost() -> None:
    names = ("true_positives", "false_negatives", "false_positives", "true_negatives")
    kinds = {"positive": "bad <b>", "negative": "good", "miss": 10.0, "false_alarm": 1.0}
    shown = figures.decisions_html(dict(zip(names, (6, 2, 3, 89), strict=True)), **kinds)  # type: ignore[arg-type]
    for words in (
        "precision 67%",
        "recall 75%",
        "F1 0.71",
        "accuracy 95.0%",
        "cost 0.230 a review",
    ):
        assert words in shown
    assert shown.startswith("<div>")
    assert "bad &lt;b&gt;" in shown
    nothing = figures.decisions_html(dict(zip(names, (0, 8, 0, 92), strict=True)), **kinds)  # type: ignore[arg-type]
    assert "precision none flagged" in nothing
    with pytest.raises(ValueError, match="counts must be >= 0 and not all 0"):
        figures.decisions_html(dict.fromkeys(names, 0), **kinds)  # type: ignore[arg-type]


def ordered(value: float) -> dict[str, Any]:
    """A result of the study of dialogues, as far as figures read it."""
    bots = {"400": 0.1, "full": 1.0, "single turns": 0.0}
    return {
        "success": {**bots, "full": value},
        "nats_per_token": {"400": 0.9, "full": 0.2, "single turns": 0.5},
        "floor_nats_per_token": 0.1,
        "bleu": {"400": 40.0, "full": 50.0, "single turns": 45.0},
        "by_user": {"full": {
            "usual 1": 1.0, "usual 4": 0.8, "backwards 1": value, "backwards 4": 0.0}},
        "right_by_user": {"full": dict.fromkeys(
            ("usual 1", "usual 4", "backwards 1", "backwards 4"), 0.5)},
    }  # fmt: skip


def test_the_figures_of_dialogues_show_mean_and_range() -> None:
    results = [ordered(0.2), ordered(0.6)]
    left, right = figures.plot_scores_against_success(
        results, ["400", "full"], {"single turns": "each turn alone"}
    )
    for ax, values in ((left, [0.8, 0.1]), (right, [40, 50])):
        alike, single = ax.containers
        np.testing.assert_allclose(alike.lines[0].get_xdata(), values)  # type: ignore[attr-defined]
        np.testing.assert_allclose(alike.lines[0].get_ydata(), [10, 40])  # type: ignore[attr-defined]
        np.testing.assert_allclose(single.lines[0].get_ydata(), [0])  # type: ignore[attr-defined]
    kinds = {"usual": "usual", "backwards": "day first"}
    replies, users = figures.plot_users_met(results, kinds, [1, 4])
    usual, backwards = users.containers
    np.testing.assert_allclose(usual.lines[0].get_ydata(), [100, 80])  # type: ignore[attr-defined]
    np.testing.assert_allclose(backwards.lines[0].get_ydata(), [40, 0])  # type: ignore[attr-defined]
    for line in replies.containers:
        np.testing.assert_allclose(line.lines[0].get_ydata(), [50, 50])  # type: ignore[attr-defined]
    assert [tick.get_text() for tick in users.get_xticklabels()] == ["1", "4"]
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_users_met([], kinds, [1])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_scores_against_success([], ["full"], {})


def test_the_picture_of_a_dialogue_names_what_is_wrong_and_escapes_what_was_said() -> None:
    shown = figures.dialogue_html([("<hello>", "which kind ?"), ("a", "")], ["right", "wrong act"])
    assert "&lt;hello&gt;" in shown
    assert shown.count("wrong act") == 1
    assert "(nothing)" in shown
    assert ">right<" not in shown
    with pytest.raises(ValueError, match="verdicts must be one a turn, got 0 for 1 turns"):
        figures.dialogue_html([("a", "b")], [])


def scaled(value: float) -> dict[str, Any]:
    """A result of the study of scaling laws, as far as figures read it."""
    return {
        "floor": 2.0,
        "parameters": {"4": 1000, "8": 3000},
        "flops_per_token": {"4": 10.0, "8": 20.0},
        "loss": {"4 128": 3.0, "4 64": 4.0, "8 64": 3.5, "8 128": value},
    }


def test_the_figures_of_scaling_show_each_size_and_the_floor() -> None:
    results = [scaled(2.4), scaled(2.8)]
    ax = figures.plot_scaling_losses(results)
    small, large = ax.containers
    np.testing.assert_allclose(small.lines[0].get_xdata(), [64, 128])  # type: ignore[attr-defined]
    np.testing.assert_allclose(small.lines[0].get_ydata(), [4, 3])  # type: ignore[attr-defined]
    line, _, (bars,) = large.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_ydata(), [3.5, 2.6])
    np.testing.assert_allclose(bars.get_segments()[1][:, 1], [2.4, 2.8])
    ax = figures.plot_scaling_losses(results, by="operations")
    np.testing.assert_allclose(ax.containers[1].lines[0].get_xdata(), [1280, 2560])  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match='by must be "tokens" or "operations"'):
        figures.plot_scaling_losses(results, by="size")
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_scaling_losses([])


def test_the_figure_of_batch_sizes_shows_the_law_the_runs_and_the_control() -> None:
    first = {
        "steps": {"4": 210.0, "16": 60.0, "64": 22.5}, "steps_untuned": {"16": 90.0, "64": 80.0},
        "least_steps": 10.0, "critical": 80.0,
    }  # fmt: skip
    second = {**first, "steps": {"4": 230.0, "16": 60.0, "64": 22.5}}
    ax = figures.plot_batch_sizes([first, second], 100.0)
    law = ax.lines[0]
    batch, steps = (np.asarray(each, float) for each in (law.get_xdata(), law.get_ydata()))
    np.testing.assert_allclose(steps, 10 * (1 + 80 / batch))
    line, _, (bars,) = ax.containers[0].lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_xdata(), [4, 16, 64])
    np.testing.assert_allclose(line.get_ydata(), [220, 60, 22.5])
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [210, 230])
    np.testing.assert_allclose(ax.containers[1].lines[0].get_ydata(), [90, 80])  # type: ignore[attr-defined]
    assert [100.0, 100.0] in [list(np.asarray(each.get_xdata(), float)) for each in ax.lines]
    assert len(figures.plot_batch_sizes([{**first, "steps_untuned": {}}], 9.0).containers) == 1
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_batch_sizes([], 80.0)


def test_fitted_floors_and_predictions_stand_where_they_are() -> None:
    ax = figures.plot_floors({"all runs": (2.1, 2.0, 2.3), "small runs": (1.5, 0.1, 1.9)}, 2.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["all runs", "small runs"]
    line, _, (bars,) = ax.containers[0].lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(np.asarray(line.get_xdata(), dtype=float), [2.1])
    np.testing.assert_allclose(np.asarray(bars.get_segments()[0][:, 0], float), [2.0, 2.3])
    assert [text.get_text() for text in ax.texts] == ["2.00 to 2.30", "0.10 to 1.90"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "true floor", "middle and range"
    ]  # fmt: skip
    ax = figures.plot_extrapolation([2.2, 2.4], {"free": [2.3, 2.5], "no floor": [2.0, 2.1]})
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [2.0, 2.1])
    with pytest.raises(ValueError, match="one floor or more"):
        figures.plot_floors({}, 2.0)
    with pytest.raises(ValueError, match="measured runs and predictions"):
        figures.plot_extrapolation([], {})
    with pytest.raises(ValueError, match="markers for four laws, got 5"):
        figures.plot_extrapolation([2.0], {str(k): [2.0] for k in range(5)})


def test_a_table_of_costs_escapes_its_words_and_numbers_are_plain() -> None:
    shown = figures.cost_html("A & B", {"<hours>": "3"})
    assert "A &amp; B" in shown
    assert "&lt;hours&gt;</th>" in shown
    numbers = {
        0: "0", 0.0421: "0.0421", 0.00002: "2e-05", 12.34: "12.3", 1234.5: "1,234",
        1_287_000: "1.29 million", 999_999: "1 million", 3e11: "300 billion",
        1.5e13: "15 trillion", 3.14e23: "3.1 × 10²³",
    }  # fmt: skip
    assert {number: figures.plainly(number) for number in numbers} == numbers
    with pytest.raises(ValueError, match="finite"):
        figures.plainly(float("inf"))


def test_the_attention_picture_shows_each_share_and_the_token_being_written() -> None:
    weights = [[0.25, 0.75], [0.99, 0.01]]
    shown = figures.attention_html(["<a>", "b"], ["一", "二"], weights, 1)
    assert "&lt;a&gt;<br><small" in shown
    assert ">99%<" in shown
    assert ">1%<" not in shown
    assert "writes: 一 <strong>二</strong>" in shown
    with pytest.raises(ValueError, match=r"weights must have shape \(2, 2\)"):
        figures.attention_html(["a", "b"], ["一", "二"], [[1.0, 0.0]], 0)
    with pytest.raises(ValueError, match=r"position must be in \[0, 2\), got 2"):
        figures.attention_html(["a", "b"], ["一", "二"], weights, 2)


#: Ink, paper, and the accents "primary" and "secondary".
PAGES = [
    ("#22282b", "#ffffff", "#12545f", "#a35400"),  # the page by day, as in book/assets/book.css
    ("#ced6dd", "#14191b", "#6cc3d0", "#f0b45c"),  # at night; the theme's own text
    ("#ced6dd", "#1b2225", "#6cc3d0", "#f0b45c"),  # in a box at night
    ("#000000", "#ffffff", "#2b93a2", "#d2701c"),  # where no page names an accent
]


@pytest.mark.parametrize(("ink", "paper", "primary", "secondary"), PAGES)
def test_text_is_legible_on_the_strongest_tints(
    ink: str, paper: str, primary: str, secondary: str
) -> None:
    alone = figures.attention_html(["a", "b"], ["一"], [[1.0, 0.0]], 0).partition("</span>")[0]
    sure = {"true_positives": 5, "false_negatives": 0, "false_positives": 7, "true_negatives": 0}
    table = figures.decisions_html(
        sure, positive="bad", negative="good", miss=10.0, false_alarm=1.0
    )
    for shown, accents in ((alone, {secondary}), (table, {primary, secondary})):
        found = re.findall(r"--pst-color-(\w+),#\w+\) (\d+)%,transparent", shown)
        strongest = {name: max(int(n) for which, n in found if which == name) for name, _ in found}
        names = {"primary": primary, "secondary": secondary}
        assert {names[name] for name in strongest} == accents
        for name, strength in strongest.items():
            share = strength / 100
            assert share > 0.3  # still a tint
            under, over = mpl.colors.to_rgb(paper), mpl.colors.to_rgb(names[name])
            shade = [share * a + (1 - share) * b for a, b in zip(over, under, strict=True)]
            assert contrast(ink, mpl.colors.to_hex(shade)) >= 4.5
        assert "opacity" not in shown


def test_the_pages_of_the_tests_of_tints_are_those_of_the_style_sheet() -> None:
    css = (ROOT / "book" / "assets" / "book.css").read_text(encoding="utf-8")
    declared = re.findall(r"--pst-color-(primary|secondary):\s*(#\w+)", css)
    tested = {("primary", page[2]) for page in PAGES} | {("secondary", page[3]) for page in PAGES}
    assert declared
    assert set(declared) <= tested


def test_a_tint_names_an_accent_and_a_share() -> None:
    assert tint("primary", 0.5).endswith(" 18%,transparent)")
    for accent, share in (("green", 0.5), ("primary", 1.01), ("primary", -0.1)):
        with pytest.raises(ValueError, match="a tint needs primary or secondary and a share"):
            tint(accent, share)


def test_text_on_any_shade_is_black_or_white_and_legible() -> None:
    assert (text_on("white"), text_on("#08306b")) == ("black", "white")
    for level in np.linspace(0, 1, 101):
        for shade in (mpl.colormaps["Blues"](level)[:3], (level,) * 3):
            ink = mpl.colors.to_hex(text_on(shade))
            assert contrast(ink, mpl.colors.to_hex(shade)) >= 4.5


def test_the_exchange_figure_shows_each_result_and_their_mean() -> None:
    corrected = ("as it is", "counting units", "other units", "random units")
    results = [
        {
            "corrected": dict(zip(corrected, (0.2, right, 0.2, 0.2), strict=True)),
            "damaged": {"counting units": 0.2, "other units": 1.0},
        }
        for right in (0.5, 1.0)
    ]
    ax = figures.plot_exchange(results)
    assert len(ax.get_yticklabels()) == 6
    seeds, mean = ax.lines[2:4]  # of the second row
    np.testing.assert_allclose(seeds.get_xdata(), [50, 100])
    np.testing.assert_allclose(mean.get_xdata(), [75, 75])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_exchange([])


def test_the_goals_figure_shows_both_returns_by_share_of_moved_coins() -> None:
    results = [
        {"coin_moved": {"0": coin, "0.5": 0.9}, "corner_moved": {"0": 1.0, "0.5": 0.1}}
        for coin in (0.1, 0.3)
    ]
    ax = figures.plot_goals(results)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "50"]
    corner, coin = ax.containers
    np.testing.assert_allclose(corner.lines[0].get_ydata(), [100, 10])  # type: ignore[attr-defined]
    line, _, (bars,) = coin.lines  # type: ignore[attr-defined]
    np.testing.assert_allclose(line.get_ydata(), [20, 90])
    np.testing.assert_allclose(bars.get_segments()[0][:, 1], [10, 30])
    with pytest.raises(ValueError, match="one result or more"):
        figures.plot_goals([])


def test_policies_are_dashed_from_where_the_limit_of_tokens_cuts_them_off() -> None:
    """Six steps make two averages over five; the second has a share of .12 cut off."""
    steps = [0.0, 1, 4, 9, 16, 25]
    free = {"kl": steps, "gold": steps, "cut_off": [0.0] * 6}
    late = {**free, "cut_off": [0, 0, 0, 0, 0, 0.6]}
    ax = figures.plot_policies(
        [{"policy_curves": {"free": free, "late": late}}], {"free": "free", "late": "late"}
    )
    whole, solid, dashed, _ = ax.lines
    np.testing.assert_allclose(whole.get_ydata(), [6, 11])
    np.testing.assert_allclose(whole.get_xdata(), np.sqrt([6, 11]))
    np.testing.assert_allclose(solid.get_ydata(), [6])
    np.testing.assert_allclose(dashed.get_ydata(), [6, 11])
    assert whole.get_linestyle() == solid.get_linestyle() == "-"
    assert dashed.get_linestyle() == "--"
    assert legend_of(ax) == ["free", "late", "the model at the start"]


# --- drawings of networks ------------------------------------------------------------------------


def arrows(ax: Axes, color: str) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Start and end of each arrow of a colour."""
    drawn = [each for each in ax.texts if isinstance(each, mpl.text.Annotation)]
    return [
        (each.xyann, each.xy)
        for each in drawn
        if each.arrow_patch is not None
        and matplotlib.colors.same_color(each.arrow_patch.get_edgecolor(), color)
    ]


def test_the_gradient_of_an_unrolled_network_goes_left_but_not_through_a_cut() -> None:
    tokens = ["a", "b", "c", "d", "e"]
    red = figures.NAMED_COLORS["vermillion"]
    ax = figures.plot_unrolled(tokens)
    assert arrows(ax, red) == []
    forward = len(arrows(ax, figures.INK))
    lengths = []
    for cut in (None, 2):
        ax = figures.plot_unrolled(tokens, backward=True, cut=cut)
        assert len(arrows(ax, figures.INK)) == forward
        left = [end for start, end in arrows(ax, red) if start[1] == end[1]]
        lengths.append(len(left))
        assert not any(cut is not None and cut - 1 < end[0] < cut for end in left)
    assert lengths == [3, 2]
    shown = texts_of(ax.figure)
    assert "e?" in shown
    assert "a?" not in shown


def test_an_unrolled_network_needs_two_tokens_and_a_cut_between_its_steps() -> None:
    with pytest.raises(ValueError, match="got 1 tokens"):
        figures.plot_unrolled(["a"])
    for cut in (0, 2):
        with pytest.raises(ValueError, match=f"cut must be between 1 and 1, .* got {cut}"):
            figures.plot_unrolled(["a", "b", "c"], cut=cut)


def test_an_lstm_cell_shows_its_gates_and_both_states() -> None:
    shown = texts_of(figures.plot_lstm_cell().figure)
    for sign in ("$f_t$", "$i_t$", "$g_t$", "$o_t$", "$c_t$", "$h_t$"):
        assert sign in shown


# --- signs of many scripts -----------------------------------------------------------------------

#: Chinese, an emoji, a sign that nobody sees, and Arabic.
STRANGE = "中🙂\u200dع"


def renamed(value: Any) -> Any:
    """The value with `STRANGE` behind each text in it, the keys of mappings too."""
    if isinstance(value, str):
        return value + STRANGE
    if isinstance(value, dict):
        return {renamed(key): renamed(inner) for key, inner in value.items()}
    return [renamed(each) for each in value] if isinstance(value, list) else value


def strange_figures() -> dict[str, Callable[[], Any]]:
    """Each figure, with text of the reader's in all places where it takes some."""
    refusal = {"refusal": {"a": 1.0}, "leak": {"a": 0.5}}
    memory = memorized(0.0)
    exposure = {"plain": {"4": [3.0, 16.0]}, STRANGE: {"4": [2.0, 9.0]}}
    losses = {"plain": [3.5, 2.5], STRANGE: [3.2, 2.4]}
    keys = ("best_exposure", "near_exposure", "matched_exposure", "lowest_nats_per_token")
    strengths = {key: {"plain": 2.0, STRANGE: 1.0} for key in keys}
    tuning = tuned(0.0)
    dpo = {"start": tuning["dpo"]["start"], STRANGE: tuning["dpo"]["1"]}
    shift = shift_result(0.1)
    paths = {f"adaptation_{way}": renamed(shift[f"adaptation_{way}"]) for way in ("old", "new")}
    tokens = [STRANGE, *STRANGE, "\0", "\ufeff"]
    numbers = list(range(len(tokens)))
    best = {
        "bon_kl": [1.0, 4.0], "bon_gold": {"a": [[1.0, 2.0]]}, "bon_proxy": {"a": [[1.0, 2.0]]},
        "bon_ceiling": [1.0, 2.0], "start_gold_spread": 1.0,
    }  # fmt: skip
    curve = {"kl": [1.0, 2.0], "gold": [1.0, 2.0], "cut_off": [0.0, 0.0]}
    policies = {"policy_curves": {"a": curve}}
    names = {"a": STRANGE}
    tried = {"figures": {"nothing": {"gold": 0.0}, "a": {"gold": 1.0}}}
    return {
        "next tokens": lambda: figures.plot_next_tokens(tokens, numbers),
        "over text": lambda: figures.plot_over_text(
            tokens, numbers, truth=numbers, label=STRANGE, truth_label=STRANGE
        ),
        "reliability": lambda: figures.plot_reliability([0.5], [0.4], [7], label=STRANGE),
        "fit": lambda: figures.plot_fit([memory], "plain", "train"),
        "exposure": lambda: figures.plot_exposure([memory]),
        "remedies": lambda: figures.plot_remedies(
            [memory | {"exposure_by_epoch": exposure, "valid_nats_per_token": losses}], "4"
        ),
        "strengths": lambda: figures.plot_strengths([strengths])[0],
        "search": lambda: figures.plot_search(
            [trial | {"settings": renamed(trial["settings"])} for trial in TRIALS]
        )[0],
        "decoders": lambda: figures.plot_decoders(
            [{key: renamed(value) for key, value in decoder_result(0.1).items()}]
        ),
        "best of n": lambda: figures.plot_best_of_n([best], names),
        "policies": lambda: figures.plot_policies([policies], names),
        "preferences": lambda: figures.plot_preference_tuning([tuning | {"dpo": dpo}]),
        "tradeoffs": lambda: figures.plot_tradeoffs([tried], names, {"gold": STRANGE})[0],
        "refusals": lambda: figures.plot_refusal_and_leak([refusal], names),
        "anchors": lambda: figures.plot_anchors([anchored(0.5)], names),
        "capability": lambda: figures.plot_capability_and_leak([guarded(1.0)], {"64": STRANGE}),
        "coverage": lambda: figures.plot_coverage(
            [covered(0.1)], {"plain": STRANGE}, {"a": STRANGE}, {"a": STRANGE}
        ),
        "demands": lambda: figures.plot_demands([demanded(0.1)], "plain", {"target": STRANGE}),
        "depth": lambda: figures.plot_depth([deep(1.0)], {"one": STRANGE}, [STRANGE, "b"]),
        "shift": lambda: figures.plot_shift_parts([shift], {"old": STRANGE}),
        "contexts": lambda: figures.plot_error_by_context([shift], {"old": STRANGE}, [0, 9]),
        "adaptation": lambda: figures.plot_adaptation([shift | paths]),
        "detection": lambda: figures.plot_detection(
            [{"auroc": {"a": {STRANGE: 0.8}}}], names, [STRANGE]
        ),
        "composition": lambda: figures.plot_composition(
            [{"composed_by_dose": {STRANGE: {"0": 0.5}}}]
        ),
        "composition kinds": lambda: figures.plot_composition_kinds(
            [{"composed_by_kind": {"LSTM": {"any": {"1": 0.5, "2": 0.5, "3": 0.5}}}}],
            "LSTM",
            {"any": STRANGE},
        ),
        "unrolled": lambda: figures.plot_unrolled([STRANGE, "b"]),
        "axes": lambda: figures.new_axes(xlabel=STRANGE, ylabel=STRANGE, title=STRANGE),
    }


def texts_of(figure: Any) -> str:
    """All that is written in a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(mpl.text.Text))


@pytest.mark.parametrize("name", strange_figures())
def test_text_of_any_script_is_drawn_without_a_missing_glyph(name: str) -> None:
    """By the fonts of this machine, whichever they are; a missing glyph warns, and that fails."""
    figure = strange_figures()[name]().figure
    figure.canvas.draw()
    if name not in ("fit", "exposure"):  # these take no text
        assert "ع" in texts_of(figure)  # DejaVu Sans has it


def test_every_figure_is_tried_with_strange_text() -> None:
    plots = {name for name in figures.__all__ if name.startswith("plot_")}
    tried = set(re.findall(r"figures\.(plot_\w+)", inspect.getsource(strange_figures)))
    # Drawn within the search, or of results alone, whose words are the figure's own.
    assert plots - tried == {
        "plot_setting", "plot_trials", "plot_goals", "plot_exchange", "plot_lstm_cell",
        "plot_translation_doses", "plot_translation_lengths", "plot_beam_widths",
        "plot_labels", "plot_stages", "plot_cue_groups",
        "plot_scores_against_success", "plot_users_met",
        "plot_scaling_losses", "plot_floors", "plot_extrapolation", "plot_batch_sizes",
        "plot_compression", "plot_compressed_refusals",
        "plot_ways_of_asking", "plot_answer_kl", "plot_surprisals",
        "plot_planted_bias", "plot_association", "plot_gaps", "plot_bias_left",
    }  # fmt: skip


@pytest.fixture
def only_own_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fonts that come with matplotlib, as on a bare machine."""
    own = [e for e in fontManager.ttflist if str(e.fname).startswith(mpl.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", own)
    fontManager._findfont_cached.cache_clear()
    figures.use_style()
    yield
    fontManager._findfont_cached.cache_clear()


def test_where_no_font_has_a_sign_its_code_point_stands_for_it(only_own_fonts: None) -> None:
    assert figures.visible("中文") == "U+4E2D U+6587"
    assert figures.visible("中文中文文") == "U+4E2D U+6587 U+4E2D…"
    assert figures.visible(" a🙂b") == "␣aU+1F642b"
    assert figures.visible("ع\u200d\0") == "عU+200DU+0000"
    assert figures.legible("loss in 日\n本, ±σ") == "loss in U+65E5\nU+672C, ±σ"
    ax = figures.plot_next_tokens(["中", "a"], [0.5, 0.5])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["U+4E2D", "a"]
    ax = figures.plot_over_text(["中", "a"], [0.5, 0.5])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["U+4E2D", "a"]
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {90}  # side by side
    ax.figure.canvas.draw()


def write_font(path: Path, name: str, signs: str, *, outlines: bool = True) -> None:
    """A font that draws each of the signs as a square, or as nothing, as coloured bitmaps do."""
    pen = TTGlyphPen(None)
    if outlines:
        pen.moveTo((0, 0))
        for corner in ((0, 700), (700, 700), (700, 0)):
            pen.lineTo(corner)
        pen.closePath()
    names = [".notdef", *(f"u{ord(sign):X}" for sign in signs)]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap(dict(zip(map(ord, signs), names[1:], strict=True)))
    font.setupGlyf(dict.fromkeys(names, pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (800, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(path)


def test_an_installed_font_draws_what_the_first_one_lacks(
    only_own_fonts: None, tmp_path: Path
) -> None:
    for name, signs, outlines in (
        ("Colour of Signs", "🙂👩", False), ("Sans of Signs", "中语語文", True),
        ("Serif of Signs", "中语", True), ("Last Resort", "中あ🙂", True),
        ("Noto Emoji", "🙂", True),
    ):  # fmt: skip
        write_font(tmp_path / f"{name}.ttf", name, signs, outlines=outlines)
        fontManager.addfont(tmp_path / f"{name}.ttf")
    (tmp_path / "Damaged.ttf").write_bytes(b"none")
    entry = dataclasses.replace(fontManager.ttflist[-1], fname=str(tmp_path / "Damaged.ttf"))
    fontManager.ttflist.append(dataclasses.replace(entry, name="Damaged"))
    figures.use_style()
    # What adds nothing is left out: a serif of the same signs, blank emoji, boxes for everything.
    assert mpl.rcParams["font.family"] == ["DejaVu Sans", "Noto Emoji", "Sans of Signs"]
    assert figures.visible("中文🙂あ") == "中文🙂U+3042"
    for ax in (
        figures.plot_next_tokens(["中", "🙂"], [0.5, 0.5]),
        figures.plot_over_text(["中", "🙂"], [0.5, 0.5], label="语", truth=[0, 1]),
        figures.new_axes(title="語", xlabel="a 中"),
    ):
        ax.figure.canvas.draw()  # a missing glyph warns
        assert "U+" not in texts_of(ax.figure)
        plt.close(ax.figure)
