"""What training and using a language model costs: operations, GPU-hours, energy, CO2 and money.

Operations are counted as floating-point operations (FLOPs), a multiplication and an addition being
two. A dense model uses each weight once for each token, so it takes about 2 N operations a token
forward and twice as many backward: 6 N D for training on D tokens (Kaplan et al. 2020, section
2.1), and 2 N for each token that is read or written afterwards. What follows from operations is
arithmetic, and only as good as the utilisation, the power and the price that go in. Of an LSTM the
products are counted exactly by `companion.training.training_flops_per_token`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from companion.core.settings import check_sizes, settings_class

#: Operations of a petaflop/s-day.
PF_DAY = 1e15 * 86_400


def training_flops(parameters: float, tokens: float) -> float:
    """6 N D: operations of training a dense model with `parameters` weights on `tokens` tokens."""
    _check_positive(parameters=parameters, tokens=tokens)
    return 6 * parameters * tokens


def inference_flops(parameters: float, tokens: float) -> float:
    """2 N for each of `tokens` tokens that a trained model reads or writes."""
    _check_positive(parameters=parameters, tokens=tokens)
    return 2 * parameters * tokens


def processor_hours(flops: float, *, peak_flops_per_second: float, utilization: float) -> float:
    """Hours of one processor (GPU-hours) that `flops` operations take.

    peak_flops_per_second: what the maker states for the precision in use. utilization: the share of
    it that the model's own operations reach (model FLOPs utilisation, MFU).
    """
    _check_positive(flops=flops, peak_flops_per_second=peak_flops_per_second)
    if not 0 < utilization <= 1:
        raise ValueError(f"utilization must be in (0, 1], a share of the peak, got {utilization}")
    return flops / (peak_flops_per_second * utilization) / 3600


@settings_class
class Hardware:
    """What an hour of a processor takes: power, emissions and money."""

    watts: float
    """Mean electric power of one processor with what is counted of its machine, in watts."""
    power_usage_effectiveness: float = 1.0
    """Energy of the whole data centre over that of its machines (PUE); 1 leaves cooling out."""
    grams_co2_per_kwh: float
    """Grams of CO2 equivalents emitted for each kWh: the grid's carbon intensity."""
    dollars_per_hour: float = 0.0
    """Price of an hour of one processor, in US dollars; 0 leaves money out."""

    def __post_init__(self) -> None:
        _check_positive(watts=self.watts)
        if not 1 <= self.power_usage_effectiveness < math.inf:
            raise ValueError(
                "power_usage_effectiveness must be >= 1 and finite, got "
                f"{self.power_usage_effectiveness}"
            )
        for name in ("grams_co2_per_kwh", "dollars_per_hour"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")

    def cost(self, hours: float) -> Cost:
        """What `hours` of one processor cost (see `processor_hours`)."""
        _check_positive(hours=hours)
        kwh = hours * self.watts / 1000 * self.power_usage_effectiveness
        return Cost(
            hours=hours,
            kwh=kwh,
            kg_co2=kwh * self.grams_co2_per_kwh / 1000,
            dollars=hours * self.dollars_per_hour,
        )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Hours of one processor, energy, emissions and money."""

    hours: float
    """Processor-hours, GPU-hours for a GPU."""
    kwh: float
    """Kilowatt-hours, the data centre's overhead included."""
    kg_co2: float
    """Kilograms of CO2 equivalents from that electricity; making the machines is left out."""
    dollars: float
    """US dollars."""

    def days(self, processors: int) -> float:
        """Days on this many processors that share the work without loss."""
        check_sizes(processors=processors)
        return self.hours / processors / 24


def utilization(
    parameters: float, tokens: float, *, hours: float, peak_flops_per_second: float
) -> float:
    """The model FLOPs utilisation (MFU) of a training that took `hours` processor-hours.

    Raises ValueError for a share above 1: no training is faster than its processor's peak.
    """
    _check_positive(hours=hours, peak_flops_per_second=peak_flops_per_second)
    share = training_flops(parameters, tokens) / (hours * 3600 * peak_flops_per_second)
    if share > 1:
        raise ValueError(
            f"this training takes {share:.3g} times as many operations as {hours:g} hours at "
            f"{peak_flops_per_second:g} a second: check hours, peak and precision"
        )
    return share


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be > 0 and finite, got {value}")
