"""Critical batch size: the law, its fit, and the gradient noise scale."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from companion.evaluation.batch_size import (
    BatchSizeLaw,
    fit_batch_size_law,
    gradient_noise_scale,
)

LAW = BatchSizeLaw(least_steps=35.0, critical=80.0)
SIZES = (4, 16, 64, 256, 1024)


def test_the_law_is_the_hyperbola_of_mccandlish() -> None:
    steps, examples = LAW.steps(SIZES), LAW.examples(SIZES)
    np.testing.assert_allclose((steps / 35 - 1) * (examples / LAW.least_examples - 1), 1.0)
    np.testing.assert_allclose(examples, np.array(SIZES) * steps)


def test_at_the_critical_size_both_steps_and_examples_are_doubled() -> None:
    assert float(LAW.steps(80)) == pytest.approx(2 * LAW.least_steps)
    assert float(LAW.examples(80)) == pytest.approx(2 * LAW.least_examples)
    assert LAW.least_examples == 2800


def test_a_fit_finds_the_law_that_made_the_steps() -> None:
    found = fit_batch_size_law(SIZES, LAW.steps(SIZES))
    assert found.least_steps == pytest.approx(35, rel=1e-6)
    assert found.critical == pytest.approx(80, rel=1e-6)


def test_a_fit_to_noisy_steps_is_as_far_off_as_the_noise() -> None:
    noisy = LAW.steps(SIZES) * np.exp([0.05, -0.05, 0.05, -0.05, 0.05])
    # Each of the two ends of the law is held by two runs, so an error of 5 % in each moves the
    # ratio of both by no more than about 10 %.
    assert fit_batch_size_law(SIZES, noisy).critical == pytest.approx(80, rel=0.12)


@pytest.mark.parametrize(
    ("sizes", "steps", "says"),
    [
        ((1, 2), (3.0, 2.0), "three sizes or more"),
        ((1, 2, 4), (3.0, 2.0), "three sizes or more"),
        ((1, 2, 4), (3.0, 2.0, 0.0), "must be > 0 and finite"),
        ((1, 2, 4), (8.0, 4.0, 2.0), "no bend"),  # examples never rise: all below the critical
        ((1, 2, 4), (5.0, 5.0, 5.0), "no bend"),  # steps never fall: all above it
    ],
)
def test_steps_that_no_law_fits_are_refused(
    sizes: tuple[int, ...], steps: tuple[float, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        fit_batch_size_law(sizes, steps)


def test_the_noise_scale_of_known_gradients_is_variance_by_squared_length() -> None:
    generator = torch.Generator().manual_seed(0)
    true, deviation, part_size = torch.full((100,), 0.3), 3.0, 8
    # 2,000 parts of 8 examples: each example's gradient has variance 9 in each of 100 weights.
    parts = true + deviation / part_size**0.5 * torch.randn(2000, 100, generator=generator)
    scale = gradient_noise_scale(parts, part_size)
    # The variance is known to .3 %; the squared length 9 to 2 * 3 * 3 / (2000 * 8)^.5 / 9 = 1.6 %.
    assert scale == pytest.approx(100 * 9 / (100 * 0.09), rel=0.06)


def test_the_noise_scale_does_not_depend_on_how_examples_are_grouped() -> None:
    generator = torch.Generator().manual_seed(1)
    examples = 0.5 + torch.randn(4096, 50, generator=generator, dtype=torch.float64)
    by_4 = gradient_noise_scale(examples.view(1024, 4, 50).mean(dim=1), 4)
    by_64 = gradient_noise_scale(examples.view(64, 64, 50).mean(dim=1), 64)
    assert by_4 == pytest.approx(4, rel=0.05)  # 50 / (50 * .25)
    # 64 parts give the variance to (2 / 63 / 50)^.5 = 2.5 %.
    assert by_64 == pytest.approx(by_4, rel=0.1)


def test_the_variance_of_the_mean_is_taken_off() -> None:
    generator = torch.Generator().manual_seed(2)
    examples = 0.125 + torch.randn(32, 4000, generator=generator)
    # Variance 4,000 by squared length 62.5 is 64; with the mean's own variance in it, 21. The
    # squared length is known to 4 in 62.5: (2 * 4000)^.5 / 32 and 2 * (62.5 / 32)^.5.
    assert gradient_noise_scale(examples, 1) == pytest.approx(64, rel=0.25)


def test_a_gradient_that_cannot_be_told_from_zero_has_an_infinite_scale() -> None:
    assert gradient_noise_scale(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 1) == math.inf
    with pytest.raises(ValueError, match="two parts or more"):
        gradient_noise_scale(torch.ones(1, 3), 1)


@pytest.mark.parametrize("values", [(0.0, 1.0), (1.0, -1.0), (math.inf, 1.0)])
def test_a_law_of_no_steps_is_refused(values: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must be > 0 and finite"):
        BatchSizeLaw(least_steps=values[0], critical=values[1])
