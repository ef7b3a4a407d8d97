"""The bootstrap over documents: coverage, pairing, and units that every tokenizer shares."""

from __future__ import annotations

import math

import pytest
import torch

from companion.evaluation.significance import Units, bootstrap, paired_bootstrap, text_units
from companion.text.documents import Document
from companion.text.tokenizers import build_tokenizer, encode_documents


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_documents(count: int, spread: float, draw: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Summed nats and tokens: each document has its own difficulty, about 3 nats a token."""
    tokens = torch.randint(50, 400, (count,), generator=draw)
    difficulty = 3 + spread * torch.randn(count, generator=draw, dtype=torch.float64)
    noise = torch.randn(count, generator=draw, dtype=torch.float64) * tokens.sqrt()
    return tokens * difficulty + noise, tokens


@pytest.mark.parametrize("count", [6, 30])
def test_an_interval_holds_the_truth_nineteen_times_of_twenty(count: int) -> None:
    draw, held = generator(2), 0
    for repetition in range(600):
        nats, tokens = make_documents(count, 0.5, draw)
        found = bootstrap(nats, tokens, generator=generator(repetition), resamples=1000)
        held += found.low <= 3.0 <= found.high
    # 2,000 intervals held it in 93.5 % at 6 documents and 94 % at 30, for documents differ in
    # length; plain percentiles in 86 % and 92 %. Of 600 intervals a share has an error of 1 %.
    assert held / 600 == pytest.approx(0.94, abs=0.03)


def test_the_standard_error_of_equal_documents_is_the_textbook_s() -> None:
    values = torch.randn(50, generator=generator(), dtype=torch.float64)
    found = bootstrap(values, torch.ones(50, dtype=torch.float64), generator=generator())
    expected = float(values.std(correction=0)) / math.sqrt(50)
    # 10,000 resamples know a standard deviation to 0.7 %.
    assert found.standard_error == pytest.approx(expected, rel=0.03)
    assert found.estimate == pytest.approx(float(values.mean()), rel=1e-12)


def test_tokens_that_hang_together_make_the_naive_standard_error_too_small() -> None:
    nats, tokens = make_documents(40, 0.5, generator(2))
    found = bootstrap(nats, tokens, generator=generator())
    naive = math.sqrt((0.5**2 + 1) / float(tokens.sum()))  # as if each token stood alone
    assert found.standard_error > 5 * naive


def test_pairing_sees_a_difference_that_two_intervals_hide() -> None:
    draw = generator(3)
    first, tokens = make_documents(40, 0.5, draw)
    own = torch.randn(40, generator=draw, dtype=torch.float64) * 0.3 * tokens.sqrt()
    second = first + 0.05 * tokens + own  # 0.05 nats a token worse
    paired = paired_bootstrap(first, second, tokens, generator=generator())
    alone = [bootstrap(each, tokens, generator=generator()) for each in (first, second)]
    unpaired = math.hypot(*(each.standard_error for each in alone))
    assert paired.estimate == pytest.approx(-0.05, abs=0.02)
    assert paired.standard_error < unpaired / 10
    assert paired.high < 0
    assert paired.p_value < 0.001
    assert paired.first_lower > 0.999
    assert alone[1].low < alone[0].estimate  # either interval holds the other's estimate


def test_the_p_value_is_below_a_twentieth_one_time_of_twenty_when_nothing_differs() -> None:
    draw, values = generator(4), []
    for repetition in range(400):
        first, tokens = make_documents(30, 0.5, draw)
        own = torch.randn(40, generator=draw, dtype=torch.float64)[:30] * tokens.sqrt()
        found = paired_bootstrap(
            first, first + own, tokens, generator=generator(repetition), resamples=400
        )
        values.append(found.p_value)
    share = sum(value <= 0.05 for value in values) / len(values)
    # A standard error of 1.1 %; thirty documents make a bootstrap's test a little too eager.
    assert share == pytest.approx(0.06, abs=0.03)
    # Far from the edge it is uniform.
    assert sum(value <= 0.5 for value in values) / len(values) == pytest.approx(0.5, abs=0.08)


def test_a_model_compared_with_itself_does_not_differ() -> None:
    nats, tokens = make_documents(20, 0.5, generator())
    same = paired_bootstrap(nats, nats, tokens, generator=generator())
    assert (same.estimate, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_swapping_the_models_swaps_the_sign_and_keeps_the_p_value() -> None:
    first, tokens = make_documents(20, 0.5, generator(6))
    second = first + torch.randn(20, generator=generator(7), dtype=torch.float64) * 20
    one = paired_bootstrap(first, second, tokens, generator=generator())
    other = paired_bootstrap(second, first, tokens, generator=generator())
    assert other.estimate == -one.estimate
    assert other.p_value == one.p_value
    assert other.low == pytest.approx(-one.high, rel=1e-9)


def test_the_same_seed_gives_the_same_interval_and_many_units_fit_in_memory() -> None:
    nats, tokens = make_documents(5000, 0.5, generator())
    found = [bootstrap(nats, tokens, generator=generator(8), resamples=2000) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0].low < found[0].estimate < found[0].high


LINES = "the cat sat .\nthe  dog ran\n\n  far away from the cat\n \nand back .\n"
DOCUMENTS = [Document(f"{i}", LINES * (3 + i)) for i in range(6)]


@pytest.mark.parametrize("kind", ["byte", "character", "word", "bpe"])
@pytest.mark.parametrize("fewest_documents", [5, 99])
def test_units_hold_every_target_and_every_byte_once(kind: str, fewest_documents: int) -> None:
    options = {"vocabulary_size": 300} if kind == "bpe" else {}
    tokenizer = build_tokenizer(kind, [LINES], **options)
    encoded = encode_documents(tokenizer, DOCUMENTS)
    units = text_units(tokenizer, DOCUMENTS, fewest_documents=fewest_documents, piece_bytes=100)
    assert int(units.tokens.sum()) == encoded.ids.numel() - 1
    assert int(units.bytes.sum()) == encoded.num_bytes
    if fewest_documents == 5:
        assert units.kind == "documents"
        assert len(units.tokens) == 6
        starts = [0, *(units.tokens.cumsum(0)[:-1]).tolist()]
        # Where a document begins, what came before it was the end token.
        ends = [int(encoded.ids[start]) for start in starts]
        assert ends == [tokenizer.end_id] * 6
    else:
        assert units.kind == "pieces"
        assert len(units.tokens) > 12
        assert int(units.bytes.min()) >= 50


def test_pieces_are_the_same_for_every_tokenizer_and_change_no_token() -> None:
    text = LINES * 30
    document = [Document("a", text)]
    found = {}
    for kind in ("byte", "character", "word", "bpe"):
        options = {"vocabulary_size": 300} if kind == "bpe" else {}
        tokenizer = build_tokenizer(kind, [text], **options)
        units = text_units(tokenizer, document, piece_bytes=150)
        found[kind] = units.bytes.tolist()
        ids, at, start = tokenizer.encode(text), 0, 0
        for tokens, size in zip(units.tokens.tolist(), units.bytes.tolist(), strict=True):
            piece = text.encode()[at : at + size].decode()
            assert tokenizer.encode(piece) == ids[start : start + tokens]
            at, start = at + size, start + tokens
    assert found["byte"] == found["character"] == found["word"] == found["bpe"]


def test_sums_are_those_of_each_unit_even_of_an_empty_one() -> None:
    units = Units(kind="documents", tokens=torch.tensor([2, 0, 3]), bytes=torch.tensor([4, 0, 6]))
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert units.sums(values).tolist() == [3, 0, 12]
    assert units.sums(values > 2).tolist() == [0, 0, 3]
    with pytest.raises(ValueError, match="one for each of 5 targets, got 4"):
        units.sums(values[:4])


def test_wrong_arguments_are_named() -> None:
    one, two = torch.ones(1, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match="two units or more"):
        bootstrap(one, one, generator=generator())
    with pytest.raises(ValueError, match="some > 0"):
        bootstrap(two, 0 * two, generator=generator())
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        bootstrap(two, two, generator=generator(), level=95)
    with pytest.raises(ValueError, match="resamples must be >= 100, got 10"):
        bootstrap(two, two, generator=generator(), resamples=10)
