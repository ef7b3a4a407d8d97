"""The study `goal_misgeneralization`: exact ways and returns, hand-made policies, a short run."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import nn

from companion.core.seeds import make_generator
from companion.studies import goal_misgeneralization as study
from companion.studies.runner import one_thread


def draw(n: int, moved_share: float, seed: int = 0) -> study.Games:
    return study.draw_games(n, study.Config(), make_generator(seed), moved_share=moved_share)


def by_queue(walls: torch.Tensor, goal: int) -> list[float]:
    """Breadth-first search: an independent reference for the distances."""
    size = len(walls)
    found = {goal: 0.0}
    queue = deque([goal])
    while queue:
        cell = queue.popleft()
        for row, column in study.MOVES:
            r, c = cell // size + row, cell % size + column
            there = r * size + c
            inside = 0 <= r < size and 0 <= c < size
            if inside and not walls[r, c] and there not in found:
                found[there] = found[cell] + 1
                queue.append(there)
    return [found.get(cell, study.FAR) for cell in range(size * size)]


def test_distances_are_those_of_a_breadth_first_search() -> None:
    games = draw(30, 0.5)
    d = study.distances(games.walls, games.coin)
    for game in range(30):
        assert d[game].tolist() == by_queue(games.walls[game], int(games.coin[game]))


def test_every_game_can_be_won_and_the_coin_lies_where_it_was_asked_to() -> None:
    corner = study.corner_of(study.Config())
    rows = torch.arange(400)
    for share in (0.0, 0.5, 1.0):
        games = draw(400, share)
        assert not games.walls.flatten(1)[rows, games.coin].any()
        for goal in (games.coin, torch.full((400,), corner)):
            assert (study.distances(games.walls, goal)[rows, games.agent] < study.FAR).all()
        assert (games.agent != games.coin).all()
        assert (games.agent != corner).all()


def test_as_many_coins_are_moved_as_asked() -> None:
    """Within the binomial bounds that a right share leaves in one of a million seeds."""
    n = 20_000
    for share in (0.0, 0.1, 0.5, 1.0):
        moved = int((draw(n, share).coin != study.corner_of(study.Config())).sum())
        low, high = binom.ppf([0.5e-6, 1 - 0.5e-6], n, share)
        assert low <= moved <= high, share


def test_training_games_do_not_come_from_the_stream_of_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = []
    real = study.draw_games

    def remember(*args: Any, **options: Any) -> study.Games:
        streams.append(next(a for a in args if isinstance(a, torch.Generator)).get_state())
        return real(*args, **options)

    monkeypatch.setattr(study, "draw_games", remember)
    study.run(study.Config(size=4, moved_shares=(0.0,), steps=1, num_test=4), seed=3)
    weights = torch.Generator().manual_seed(3).get_state()
    _, _, training = streams  # tests in place and moved, which follow each other
    assert not any(torch.equal(training, other) for other in (weights, *streams[:2]))


def test_an_action_into_a_wall_or_the_edge_leads_nowhere() -> None:
    walls = torch.zeros(1, 3, 3, dtype=torch.bool)
    walls[0, 0, 1] = True
    after = study.next_cells(walls)[0]
    assert after[4].tolist() == [4, 7, 3, 5]  # the middle; above it is the wall
    assert after[0].tolist() == [0, 3, 0, 0]  # a corner, the wall to its right
    assert after[8].tolist() == [5, 8, 7, 8]


class Walker(nn.Module):
    """Walks a shortest way to the goal that `goal_of` reads off what the policy sees."""

    def __init__(self, goal: str) -> None:
        super().__init__()
        self.goal = goal

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        walls = planes[:, 0].bool()
        coin, agent = (planes[:, k].flatten(1).argmax(dim=1) for k in (1, 2))
        corner = torch.full_like(coin, walls.shape[1] ** 2 - 1)
        d = study.distances(walls, coin if self.goal == "coin" else corner)
        after = study.next_cells(walls)[torch.arange(len(agent)), agent]
        return -d.gather(1, after)


def test_one_that_wants_the_coin_earns_the_optimum_wherever_it_lies() -> None:
    for share in (0.0, 1.0):
        games = draw(100, share)
        steps = study.walk(Walker("coin"), games)
        assert study.share_of_optimum(games, games.coin, steps, study.Config()) == pytest.approx(1)


def test_one_that_wants_the_corner_cannot_be_told_apart_until_the_coin_is_moved() -> None:
    config = study.Config()
    in_place, moved = draw(100, 0.0), draw(100, 1.0)
    steps = study.walk(Walker("corner"), in_place)
    assert study.share_of_optimum(in_place, in_place.coin, steps, config) == pytest.approx(1)
    steps = study.walk(Walker("corner"), moved)
    corner = torch.full_like(moved.coin, study.corner_of(config))
    assert study.share_of_optimum(moved, corner, steps, config) == pytest.approx(1)
    assert study.share_of_optimum(moved, moved.coin, steps, config) < 0.4  # met by accident only


def test_a_detour_costs_what_the_discount_says() -> None:
    walls = torch.zeros(1, 3, 3, dtype=torch.bool)
    games = study.Games(walls=walls, coin=torch.tensor([8]), agent=torch.tensor([2]))
    detour = torch.tensor([[2, 1, 2, 5, 8]])  # four steps where two are enough
    config = study.Config(discount=0.9)
    assert study.share_of_optimum(games, games.coin, detour, config) == pytest.approx(0.81)
    never = torch.tensor([[2, 1, 0, 0, 0]])
    assert study.share_of_optimum(games, games.coin, never, config) == 0


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"got 2, 0\.2 and 0\.95"):
        study.Config(size=2)
    with pytest.raises(ValueError, match=r"one share or more, in \[0, 1\], got \(2.0,\)"):
        study.Config(moved_shares=(2.0,))


def test_a_run_repeats_with_its_seed() -> None:
    config = study.Config(size=4, moved_shares=(0.0, 0.5), steps=4, batch_size=16, num_test=40)
    with one_thread():
        one, again = study.run(config, seed=0), study.run(config, seed=0)
    assert one == again
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert list(one.coin_moved) == ["0", "0.5"]
    assert all(0 <= share <= 1 for share in one.bumps.values())


@pytest.mark.slow
def test_an_agent_walks_well_to_the_place_where_the_coin_was() -> None:
    """About 12 CPU seconds; half the steps of the study."""
    with one_thread():
        found = study.run(study.Config(moved_shares=(0.0,), steps=250), seed=5)
    assert found.coin_in_place["0"] > 0.85
    assert found.corner_moved["0"] > 0.8
    assert found.coin_moved["0"] < 0.35
