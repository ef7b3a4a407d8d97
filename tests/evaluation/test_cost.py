"""Costs: published trainings worked out by hand, and inputs that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from companion.evaluation.cost import (
    PF_DAY,
    Hardware,
    inference_flops,
    processor_hours,
    training_flops,
    utilization,
)


def hardware(**changes: Any) -> Hardware:
    return Hardware(
        **{
            "watts": 100.0,
            "grams_co2_per_kwh": 100.0,
            **changes,
        }
    )


def test_gpt3_s_operations_days_and_years_are_the_published_ones() -> None:
    """Brown et al. 2020, table D.1: 174.6 billion parameters, 300 billion tokens."""
    flops = training_flops(174.6e9, 300e9)
    assert flops == pytest.approx(3.14e23, rel=2e-3)
    assert flops / PF_DAY == pytest.approx(3640, rel=2e-3)
    # At 24.6 TFLOP/s (Patterson et al. 2021) on one V100 about 405 years.
    hours = processor_hours(flops, peak_flops_per_second=24.6e12, utilization=1.0)
    years = hardware().cost(hours).days(1) / 365.25
    assert years == pytest.approx(405, abs=2)


def test_gpt3_s_energy_and_emissions_are_patterson_s() -> None:
    """Patterson et al. 2021: 24.6 TFLOP/s and 330 W a V100, PUE 1.1, 429 g a kWh on 10,000 V100s
    give 14.8 days, 1,287 MWh and 552 tonnes."""
    v100 = hardware(
        watts=330.0, power_usage_effectiveness=1.1, grams_co2_per_kwh=429.0
    )  # fmt: skip
    cost = v100.cost(processor_hours(3.14e23, peak_flops_per_second=125e12, utilization=24.6 / 125))
    assert cost.days(10_000) == pytest.approx(14.8, abs=0.05)
    assert cost.kwh == pytest.approx(1_287_000, abs=500)
    assert cost.kg_co2 == pytest.approx(552_100, abs=300)


def test_bloom_s_energy_and_emissions_are_luccioni_s() -> None:
    """Luccioni et al. 2023: 1,082,990 hours at 400 W and 57 g give 433,196 kWh and 24.7 tonnes."""
    cost = hardware(watts=400.0, grams_co2_per_kwh=57.0).cost(1_082_990)
    assert cost.kwh == pytest.approx(433_196)
    assert cost.kg_co2 == pytest.approx(24_700, abs=50)


def test_llama_s_hours_are_half_of_the_peak() -> None:
    """Touvron et al. 2023: 135,168 A100 hours for 13 billion parameters and 1 trillion tokens."""
    share = utilization(13.0e9, 1e12, hours=135_168, peak_flops_per_second=312e12)
    assert share == pytest.approx(0.514, abs=0.001)
    again = processor_hours(6 * 13.0e9 * 1e12, peak_flops_per_second=312e12, utilization=share)
    assert again == pytest.approx(135_168)


def test_money_is_hours_times_price_and_overhead_costs_energy_alone() -> None:
    cost = hardware(dollars_per_hour=2.0, power_usage_effectiveness=1.5).cost(1.0)
    assert (cost.hours, cost.dollars) == (pytest.approx(1.0), pytest.approx(2.0))
    assert (cost.kwh, cost.kg_co2) == (pytest.approx(0.15), pytest.approx(0.015))


def test_a_use_takes_a_third_of_a_training_token() -> None:
    assert inference_flops(1e9, 50) == 1e11 == training_flops(1e9, 50) / 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"watts": -3.0}, "watts must be > 0"),
        ({"power_usage_effectiveness": 0.9}, "power_usage_effectiveness must be >= 1"),
        ({"grams_co2_per_kwh": float("nan")}, "grams_co2_per_kwh must be >= 0"),
        ({"dollars_per_hour": -1.0}, "dollars_per_hour must be >= 0"),
    ],
)
def test_wrong_hardware_is_refused(changes: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        hardware(**changes)


def test_nothing_to_pay_for_is_refused() -> None:
    with pytest.raises(ValueError, match="hours must be > 0"):
        hardware().cost(0.0)
    with pytest.raises(ValueError, match="tokens must be > 0"):
        training_flops(1e9, 0)
    with pytest.raises(ValueError, match="hours must be > 0"):
        utilization(1e9, 1e9, hours=0, peak_flops_per_second=1e12)
    with pytest.raises(ValueError, match="processors must be >= 1"):
        hardware().cost(1.0).days(0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flops": 0.0}, "flops must be > 0"),
        ({"utilization": 1.2}, r"utilization must be in \(0, 1\]"),
        ({"utilization": 0.0}, r"utilization must be in \(0, 1\]"),
        ({"peak_flops_per_second": float("inf")}, "peak_flops_per_second must be > 0 and finite"),
    ],
)
def test_wrong_speeds_are_refused(changes: dict[str, float], words: str) -> None:
    plain = {"flops": 1e12, "peak_flops_per_second": 1e12, "utilization": 1.0}
    with pytest.raises(ValueError, match=words):
        processor_hours(**{**plain, **changes})


def test_a_training_faster_than_the_peak_is_refused() -> None:
    """A tenth of LLaMA-13B's hours would be five times the peak."""
    with pytest.raises(
        ValueError, match=r"5\.14 times as many operations as .*: check hours, peak"
    ):
        utilization(13.0e9, 1e12, hours=13_516.8, peak_flops_per_second=312e12)
