"""Canaries: ranks and exposure against brute force, and models whose answer is known."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from companion.core.seeds import make_generator
from companion.generalization.canaries import (
    NAMES,
    Canaries,
    Canary,
    chance_exposure,
    code_log_probs,
    code_rank,
    exposure,
    greedy_code,
    likeliest_codes,
)
from companion.losses.cross_entropy import token_nats
from companion.models.lstm import LSTMConfig, LSTMLanguageModel

WORDS = ["<end>", ".", "it", "is"]


def planted(seed: int = 0, **changes: object) -> Canaries:
    settings = {"repetitions": (0, 1, 3), "each": 2, "num_digits": 3, **changes}
    return Canaries(WORDS, generator=make_generator(seed), **settings)  # type: ignore[arg-type]


def random_model(
    canaries: Canaries, *, seed: int = 0, scale: float = 3.0, num_layers: int = 1
) -> LSTMLanguageModel:
    """Untrained, with large output weights, so that its probabilities differ widely."""
    torch.manual_seed(seed)
    size = len(canaries.vocabulary)
    config = LSTMConfig(
        vocabulary_size=size, embedding_size=8, hidden_size=12, num_layers=num_layers
    )
    model = LSTMLanguageModel(config)
    torch.nn.init.normal_(model.output.weight, std=scale)  # type: ignore[arg-type]
    return model.eval()


def uniform_model(canaries: Canaries) -> LSTMLanguageModel:
    model = random_model(canaries)
    torch.nn.init.zeros_(model.output.weight)  # type: ignore[arg-type]
    return model


def brute_force(model: LSTMLanguageModel, canaries: Canaries, name: str) -> torch.Tensor:
    """log p of each code in order, every one read on its own from the start."""
    prompt = canaries.prompt(name)
    codes = torch.tensor(list(itertools.product(range(10), repeat=canaries.num_digits)))
    ids = torch.cat([prompt.expand(len(codes), -1), canaries.digit_ids[codes]], dim=1)
    with torch.no_grad():
        nats = token_nats(model(ids[:, :-1])[0].double(), ids[:, 1:])
    return -nats[:, len(prompt) - 1 :].sum(dim=1)


# --- exposure ------------------------------------------------------------------------------------


def test_exposure_counts_the_halvings_of_the_space_that_the_model_saves() -> None:
    assert exposure(1, 100_000) == math.log2(100_000)
    assert exposure(25_000, 100_000) == pytest.approx(2)
    assert exposure(100_000, 100_000) == 0
    for rank in (0, 11):
        with pytest.raises(ValueError, match=f"between 1 and num_codes = 10, got {rank}"):
            exposure(rank, 10)


def test_chance_exposure_is_the_mean_over_all_ranks() -> None:
    for size in (1, 10, 1000):
        mean = math.fsum(exposure(rank, size) for rank in range(1, size + 1)) / size
        assert chance_exposure(size) == pytest.approx(mean, abs=1e-12)
    assert chance_exposure(100_000) == pytest.approx(1 / math.log(2), abs=1e-3)
    with pytest.raises(ValueError, match="num_codes must be >= 1, got 0"):
        chance_exposure(0)


# --- ranks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_tree_gives_every_code_its_probability(num_layers: int) -> None:
    canaries = planted()
    model = random_model(canaries, num_layers=num_layers)
    name = canaries.secrets[0].name
    found = code_log_probs(model, canaries.prompt(name), canaries.digit_ids, 3)
    # float32 states, in batches of other shapes; logits are up to 30.
    torch.testing.assert_close(found, brute_force(model, canaries, name), rtol=0, atol=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_ranks_agree_with_brute_force_for_likely_and_unlikely_codes(seed: int) -> None:
    canaries = planted(seed)
    model = random_model(canaries, seed=seed)
    name = canaries.secrets[1].name
    order = brute_force(model, canaries, name).sort(descending=True).indices.tolist()
    for rank in (1, 2, 7, 100, 500, 999, 1000):
        code = tuple(map(int, f"{order[rank - 1]:03d}"))
        # Codes next to each other may be closer than float32 tells apart.
        assert abs(canaries.rank(model, name, code) - rank) <= 1


def test_what_is_cut_off_is_below_the_bound() -> None:
    canaries = planted()
    model = random_model(canaries)
    prompt = canaries.prompt(canaries.secrets[0].name)
    whole = code_log_probs(model, prompt, canaries.digit_ids, 3)
    bound = float(whole.median())
    cut = code_log_probs(model, prompt, canaries.digit_ids, 3, at_least=bound)
    assert bool(cut[whole >= bound].isfinite().all())
    assert bool(cut.isinf().any())
    torch.testing.assert_close(cut[cut.isfinite()], whole[cut.isfinite()], rtol=0, atol=1e-3)
    none = code_log_probs(model, prompt, canaries.digit_ids, 3, at_least=1.0)
    assert bool(none.isinf().all())


def test_a_model_without_preferences_exposes_nothing() -> None:
    """Ties count against memorization: each code is as probable as all others."""
    canaries = planted()
    model = uniform_model(canaries)
    for canary in canaries.secrets:
        assert canaries.rank(model, canary.name, canary.code) == canaries.num_codes
        assert canaries.exposure(model, canary) == 0


def test_a_model_that_knows_gives_the_code_away() -> None:
    canaries = planted()
    model = random_model(canaries)
    ids = torch.stack([canaries.text(canary) for canary in canaries.secrets])
    ids = torch.cat([torch.zeros(len(ids), 1, dtype=torch.long), ids], dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.train()
    for _ in range(80):
        optimizer.zero_grad()
        token_nats(model(ids[:, :-1])[0], ids[:, 1:]).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()
    for canary in canaries.secrets:
        asked = canaries.prompt(canary.name), canaries.digit_ids, 3
        assert canaries.rank(model, canary.name, canary.code) == 1
        assert canaries.exposure(model, canary) == math.log2(1000)
        assert greedy_code(model, *asked) == canary.code
        ((code, probability), *_) = likeliest_codes(model, *asked, count=2)
        assert code == canary.code
        assert probability > 0.8


def test_the_rank_of_an_owner_is_among_the_planted_codes_and_agrees_with_brute_force() -> None:
    canaries = planted(each=4)
    model = random_model(canaries, seed=3)
    codes = {each.code for each in canaries.secrets if each.repetitions}
    places = [int("".join(map(str, code))) for code in codes]
    ranks = []
    for canary in canaries.secrets:
        if not canary.repetitions:
            with pytest.raises(ValueError, match="is not in the training text"):
                canaries.owner_rank(model, canary)
            continue
        all_codes = brute_force(model, canaries, canary.name)
        own = all_codes[int("".join(map(str, canary.code)))]
        # The margin is above rounding and below the differences between codes.
        expected = int((all_codes[places] >= own - 1e-5).sum())
        ranks.append(canaries.owner_rank(model, canary))
        assert ranks[-1] == expected
    assert len(set(ranks)) > 2  # or the test would say little


def test_codes_that_were_never_seen_have_the_exposure_of_chance_whatever_the_model() -> None:
    """A code drawn after the model: its rank is uniform, however lopsided the model is."""
    canaries = planted()
    model = random_model(canaries)
    prompt = canaries.prompt(canaries.secrets[0].name)
    codes = torch.randint(10, (200, 3), generator=make_generator(5)).tolist()
    ranks = [code_rank(model, prompt, canaries.digit_ids, code) for code in codes]
    bits = [exposure(rank, 1000) for rank in ranks]
    # One exposure has a standard deviation of 1 / ln 2 bits: four standard errors of the mean.
    assert sum(bits) / 200 == pytest.approx(chance_exposure(1000), abs=4 * 1.4427 / math.sqrt(200))


def test_the_likeliest_codes_are_those_of_brute_force_in_order() -> None:
    canaries = planted()
    model = random_model(canaries)
    name = canaries.secrets[0].name
    expected = brute_force(model, canaries, name).topk(5)
    found = likeliest_codes(model, canaries.prompt(name), canaries.digit_ids, 3, count=5)
    assert [probability for _, probability in found] == pytest.approx(
        expected.values.exp().tolist(), rel=1e-3
    )
    assert found[0][0] == tuple(map(int, f"{int(expected.indices[0]):03d}"))
    with pytest.raises(ValueError, match="count must be between 1 and 1000, got 1001"):
        likeliest_codes(model, canaries.prompt(name), canaries.digit_ids, 3, count=1001)


def test_a_greedy_answer_can_miss_the_likeliest_code() -> None:
    """The likeliest first digit need not begin the likeliest code."""
    missed = 0
    for seed in range(12):
        canaries = planted(seed)
        model = random_model(canaries, seed=seed, scale=1.0)
        asked = canaries.prompt(canaries.secrets[0].name), canaries.digit_ids, 3
        greedy = greedy_code(model, *asked)
        ((best, probability),) = likeliest_codes(model, *asked)
        codes = code_log_probs(model, *asked)
        place = int("".join(map(str, greedy)))
        assert math.exp(float(codes[place])) <= probability * (1 + 1e-6)
        missed += greedy != best
    assert 0 < missed < 12


def test_a_model_in_training_mode_is_refused() -> None:
    canaries = planted()
    model = random_model(canaries).train()
    with pytest.raises(ValueError, match="training mode"):
        canaries.exposure(model, canaries.secrets[0])
    with pytest.raises(ValueError, match="training mode"):
        greedy_code(model, canaries.prompt("ada"), canaries.digit_ids, 3)


def test_a_code_has_digits() -> None:
    canaries = planted()
    with pytest.raises(ValueError, match=r"each digit must lie in \[0, 10\), got \[1, 10, 2\]"):
        canaries.rank(uniform_model(canaries), "ada", (1, 10, 2))


# --- planting ------------------------------------------------------------------------------------


def test_every_canary_is_planted_as_often_as_it_says_and_the_texts_stay() -> None:
    canaries = planted()
    texts = [torch.tensor([2, 3, 1, 0]), torch.tensor([2, 1, 0])] * 5
    ids = canaries.hide(texts, generator=make_generator(1))
    assert int(ids[0]) == 0
    assert len(ids) == 1 + 5 * 7 + 2 * (1 + 3) * len(canaries.text(canaries.secrets[0]))
    words = " ".join(canaries.vocabulary[i] for i in ids.tolist())
    for canary in canaries.secrets:
        secret = f"<end> {canary.name} CODE IS {' '.join(map(str, canary.code))} . <end>"
        assert words.count(secret) == canary.repetitions
    assert words.count("<end> it is . <end>") > 0
    assert words.count(" it is .") == 5
    other = canaries.hide(texts, generator=make_generator(2))
    assert not torch.equal(ids, other)
    assert torch.equal(ids.sort().values, other.sort().values)


def test_canaries_follow_their_seed_and_have_names_of_their_own() -> None:
    one, same, other = planted(3), planted(3), planted(4)
    assert one.secrets == same.secrets
    assert one.secrets != other.secrets
    assert len({canary.name for canary in one.secrets}) == 6
    assert [canary.repetitions for canary in one.secrets] == [0, 0, 1, 1, 3, 3]
    assert isinstance(one.secrets[0], Canary)
    assert one.vocabulary[: len(WORDS)] == WORDS


def test_wrong_requests_are_named() -> None:
    with pytest.raises(ValueError, match="each and num_digits must be >= 1, got each=0"):
        planted(each=0)
    with pytest.raises(ValueError, match=r"different numbers >= 0, got \[1, 1\]"):
        planted(repetitions=[1, 1])
    with pytest.raises(ValueError, match=r"different numbers >= 0, got \[-1\]"):
        planted(repetitions=[-1])
    with pytest.raises(ValueError, match=f"there are {len(NAMES)} names, too few for 30 canaries"):
        planted(each=30)
    with pytest.raises(ValueError, match=r"none of the canaries' words, got \['CODE'\]"):
        Canaries([*WORDS, "CODE"], repetitions=[1], each=1, generator=make_generator(0))
