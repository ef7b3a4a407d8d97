"""Seeds: the same seed gives the same numbers, and no two purposes share a stream."""

from __future__ import annotations

import itertools

import pytest
import torch

from companion.core.seeds import make_generator, seed_everything


def draws(generator: torch.Generator | None) -> torch.Tensor:
    return torch.rand(1000, generator=generator, dtype=torch.float64)


def test_a_purpose_has_its_own_stream_each_time_the_same() -> None:
    seed_everything(7)
    streams = [draws(None)]
    streams += [draws(make_generator(7, purpose)) for purpose in ("text", "order", "sample")]
    streams.append(draws(make_generator(8, "text")))
    for one, other in itertools.combinations(streams, 2):
        correlation = float(torch.corrcoef(torch.stack([one, other]))[0, 1])
        assert abs(correlation) < 0.15  # 1,000 independent pairs: a standard deviation of 0.032
    assert torch.equal(draws(make_generator(7, "text")), streams[1])


def test_without_a_purpose_the_stream_is_the_one_that_weights_are_drawn_from() -> None:
    """The trap: data and weights of one seed, unless data say what they are for."""
    seed_everything(7)
    assert torch.equal(draws(None), draws(make_generator(7)))


def test_purposes_differ_in_the_bits_that_torch_reads_and_large_offsets_do_not() -> None:
    assert torch.equal(draws(make_generator(7)), draws(make_generator(7 + 2**32)))
    purposes = [f"purpose {number}" for number in range(1000)]
    seeds = {make_generator(7, purpose).initial_seed() % 2**32 for purpose in purposes}
    assert len(seeds) == 1000  # by accident two agree for one set of names in ten thousand


def test_a_seed_that_no_library_takes_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 2"):
        seed_everything(-1)
