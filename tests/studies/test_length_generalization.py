"""Numerals, small models, and the study `length_generalization`: closed forms and a short run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

from companion.core.seeds import make_generator
from companion.models.recurrent import CELLS, RecurrentModel
from companion.models.transformer import TransformerModel
from companion.sources.numerals import ID_OF, TOKENS, number_words, numeral_batch, prompt_of
from companion.studies import length_generalization as study
from companion.studies.runner import one_thread
from companion.text.batching import IGNORE, Batch

# --- numerals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (13, "thirteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (111, "one hundred eleven"),
        (1000, "one thousand"),
        (5007, "five thousand seven"),
        (42_307, "forty two thousand three hundred seven"),
        (300_000, "three hundred thousand"),
        (999_999, "nine hundred ninety nine thousand nine hundred ninety nine"),
    ],
)
def test_numbers_are_said_as_in_english(number: int, words: str) -> None:
    assert " ".join(number_words(number)) == words


def value(words: list[str]) -> int:
    """An independent reader: sums and products."""
    small = {word: place for place, word in enumerate(TOKENS[1:21])}
    small.update({word: 20 + 10 * place for place, word in enumerate(TOKENS[21:29])})
    total = part = 0
    for word in words:
        if word == "thousand":
            total, part = 1000 * part, 0
        else:
            part = 100 * part if word == "hundred" else part + small[word]
    return total + part


def test_an_independent_reader_reads_every_number_back() -> None:
    for number in [*range(20_000), *range(20_000, 1_000_000, 997)]:
        assert value(number_words(number)) == number


def test_a_number_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="between 0 and 999999, got 1000000"):
        number_words(1_000_000)


def test_only_digits_and_the_end_are_targets() -> None:
    batch = numeral_batch([42_307, 6])
    words = " ".join(TOKENS[i] for i in batch.inputs[0].tolist())
    assert words == "<end> forty two thousand three hundred seven = 4 2 3 0 7"
    wanted = ["4", "2", "3", "0", "7", "<end>"]
    assert [TOKENS[i] for i in batch.targets[0].tolist() if i != IGNORE] == wanted
    assert [TOKENS[i] for i in batch.targets[1].tolist() if i != IGNORE] == ["6", "<end>"]
    # A target stands where the token before it is read.
    assert batch.targets[1, 2] == ID_OF["6"]
    assert TOKENS[batch.inputs[1, 2]] == "="


# --- models --------------------------------------------------------------------------------------


def models() -> list[nn.Module]:
    recurrent = [
        RecurrentModel(cell, vocabulary_size=7, embedding_size=4, hidden_size=5) for cell in CELLS
    ]
    return [*recurrent, TransformerModel(vocabulary_size=7, width=8, max_length=9)]


@pytest.mark.parametrize("model", models(), ids=lambda model: str(type(model).__name__))
def test_no_model_sees_what_follows(model: nn.Module) -> None:
    inputs = torch.randint(7, (2, 9), generator=make_generator(0))
    other = inputs.clone()
    other[:, 5:] = (other[:, 5:] + 1) % 7
    (before, _), (after, _) = model.eval()(inputs), model(other)
    assert before.shape == (2, 9, 7)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])
    # Nor the other texts of the batch.
    torch.testing.assert_close(model(inputs[:1])[0], before[:1])


@pytest.mark.parametrize("model", models(), ids=lambda model: str(type(model).__name__))
def test_a_text_may_be_read_in_parts(model: nn.Module) -> None:
    inputs = torch.randint(7, (2, 9), generator=make_generator(0))
    whole, _ = model.eval()(inputs)
    first, state = model(inputs[:, :4])
    second, state = model(inputs[:, 4:5], state)
    third, _ = model(inputs[:, 5:], state)
    torch.testing.assert_close(torch.cat([first, second, third], dim=1), whole)
    assert not torch.allclose(model(inputs[:, 4:5])[0], second)  # the state does count


def test_the_transformer_tells_positions_apart_and_has_so_many() -> None:
    model = TransformerModel(vocabulary_size=7, width=8, max_length=9).eval()
    same, state = model(torch.full((1, 9), 3))
    assert not torch.allclose(same[0, 0], same[0, 1])
    with pytest.raises(ValueError, match="positions for 9 tokens, got 10"):
        model(torch.zeros(1, 1, dtype=torch.long), state)
    with pytest.raises(ValueError, match="cell must be one of LSTM, GRU, tanh RNN, got 'CNN'"):
        RecurrentModel("CNN", vocabulary_size=7, embedding_size=4, hidden_size=5)


def test_the_readers_are_of_one_size() -> None:
    config = study.Config()
    lstm = RecurrentModel(
        "LSTM",
        vocabulary_size=len(TOKENS),
        embedding_size=study.EMBEDDING_SIZE,
        hidden_size=config.hidden_size,
    )
    transformer = TransformerModel(vocabulary_size=len(TOKENS), width=config.width)
    # The closed form of an LSTM: four gates, each with inputs, states and two biases.
    e, h, v = study.EMBEDDING_SIZE, config.hidden_size, len(TOKENS)
    assert lstm.num_parameters == v * e + 4 * h * (e + h + 2) + h * v + v
    assert 0.8 < transformer.num_parameters / lstm.num_parameters < 1.25


# --- the study -----------------------------------------------------------------------------------


def test_every_word_and_every_length_of_a_tested_composition_is_in_training() -> None:
    seen, held_out, composed = study.parts(study.Config(), make_generator(0))
    assert len(seen) == 1800
    assert len(held_out) == 1999 - 1800
    assert len(composed) == len(set(composed)) > 500
    assert not set(seen) & set(held_out)
    assert not set(composed) & set(seen)
    assert all(n % 1000 and n > 1000 for n in composed)
    assert all(n < 1000 or n % 1000 == 0 for n in seen + held_out)
    words = [number_words(n) for n in seen]
    tested = [number_words(n) for n in composed]
    assert {w for text in tested for w in text} <= {w for text in words for w in text}
    assert {len(text) for text in tested} <= {len(text) for text in words}
    assert {len(str(n)) for n in composed} <= {len(str(n)) for n in seen}


@pytest.mark.parametrize("kind", study.KINDS)
def test_examples_are_different_compositions_of_their_kind_and_are_not_tested(kind: str) -> None:
    tested = range(1001, 500_000)
    examples = study.compositions(kind, 100, tested, make_generator(0))
    assert len(examples) == len(set(examples)) == 100
    assert all(n >= 500_000 and n % 1000 for n in examples)
    rests = {len(str(n % 1000)) for n in examples}
    assert rests == ({int(kind[-1])} if kind[-1].isdigit() else {1, 2, 3})
    assert (len({n // 1000 for n in examples}) <= 10) == (kind == "ten_thousands")
    assert (len({n % 1000 for n in examples}) <= 10) == (kind in ("ten_rests", "rest_1"))


def test_too_few_compositions_of_a_kind_are_named() -> None:
    with pytest.raises(ValueError, match="only 0 different compositions of kind 'any'"):
        study.compositions("any", 1, range(1_000_000), make_generator(0))


def test_half_of_each_batch_is_drawn_from_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Batch] = []
    monkeypatch.setattr(study, "learn", lambda model, some, **__: batches.extend(some) or model)
    config = study.Config(steps=3, batch_size=8, hidden_size=8)
    study.train_reader("LSTM", [7, 8], config, seed=0, half=[2_007])
    thousand = ID_OF["thousand"]
    assert [int((batch.inputs == thousand).any(1).sum()) for batch in batches] == 6 * [4]
    batches.clear()
    study.train_reader("LSTM", [7, 8], config, seed=0, half=[])
    assert [int((batch.inputs == thousand).any(1).sum()) for batch in batches] == 6 * [0]


def test_test_numbers_are_drawn_from_all_that_are_new() -> None:
    """The mean rank of 500 drawn numbers lies within five standard errors of the middle."""
    new = study.draw_unseen(4, 500, range(1000, 2000), make_generator(0))
    assert len(set(new)) == 500
    assert all(2000 <= n < 10_000 for n in new)
    error = 8000 / math.sqrt(12 * 500)
    assert sum(new) / 500 == pytest.approx(6000, abs=5 * error)  # one of a million seeds is outside
    assert new != study.draw_unseen(4, 500, range(1000, 2000), make_generator(1))


def test_where_few_numbers_are_new_all_are_tested() -> None:
    assert sorted(study.draw_unseen(1, 20, [0, 4, 9], make_generator(0))) == [1, 2, 3, 5, 6, 7, 8]


def test_a_run_tests_numbers_of_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    tested: list[list[int]] = []
    monkeypatch.setattr(study, "share_right", lambda _, numbers: tested.append(numbers) or 0.0)
    monkeypatch.setattr(study, "train_reader", lambda *_, **__: nn.Identity())
    study.run(study.Config(readers=(), cells=(), num_test=200), seed=0)
    six = tested[3]
    # Uniform above 100,000: below a half with probability 4/9; none of 200 above is impossible.
    assert sum(n > 700_000 for n in six) > 20


class Oracle(nn.Module):
    """Reads numbers as `rule` does: answers are looked up by the words."""

    def __init__(self, numbers: list[int], rule: dict[int, str]) -> None:
        super().__init__()
        self.texts = {
            tuple(prompt_of(n).tolist()): [ID_OF[c] for c in rule[n]] + [0] for n in numbers
        }

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        logits = torch.zeros(*inputs.shape, len(TOKENS))
        for row, ids in enumerate(inputs.tolist()):
            prompt = tuple(ids[1 : ids.index(ID_OF["="]) + 1])
            for place, token in enumerate(self.texts[prompt][: inputs.shape[1] - len(prompt)]):
                logits[row, len(prompt) + place, token] = 1
        return logits, None


def test_answers_are_read_off_greedily_and_sorted_by_kind() -> None:
    numbers = [42_007, 1_003, 5_100, 12_345]
    rule = {42_007: "42007", 1_003: "1000", 5_100: "100", 12_345: "1=5"}
    model = Oracle(numbers, rule)
    answers = study.read_numbers(model, numbers)
    assert answers == ["42007", "1000", "100", "1=5"]
    assert study.share_right(model, numbers) == 0.25
    assert study.kinds_of_answers(numbers, answers) == {
        "right": 0.25, "thousands alone": 0.25, "rest alone": 0.25, "other": 0.25,
    }  # fmt: skip
    assert study.read_numbers(model, numbers, max_digits=2) == ["42", "10", "10", "1="]


class Counter(nn.Module):
    """Counts a's and b's exactly, but no further than `most`, and writes `extra` b's too many."""

    def __init__(self, most: int, extra: int = 0) -> None:
        super().__init__()
        self.most, self.extra = most, extra

    def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        a = (inputs == study.A_ID).cumsum(1).clamp(max=self.most)
        b = (inputs == study.B_ID).cumsum(1)
        next_token = torch.where(b == 0, study.A_ID, torch.where(b < a + self.extra, study.B_ID, 0))
        return torch.nn.functional.one_hot(next_token, 3).float(), None


def test_a_counter_is_right_as_far_as_it_counts() -> None:
    right = study.counts_right(Counter(most=7), range(1, 11))
    assert right.tolist() == [True] * 7 + [False] * 3
    assert not study.counts_right(Counter(most=99, extra=1), range(1, 11)).any()


def hand_set(*, slip: float = 0.0, disturbance: float = 0.0) -> RecurrentModel:
    """An LSTM with hand-set weights. Unit 0 adds .1 at an a and takes off .1 (1 + slip) at a b;
    unit 1 adds .01 at each b. It writes b while tanh of unit 0, less `disturbance` times that of
    unit 1, is above .05.
    """
    model = RecurrentModel("LSTM", vocabulary_size=3, embedding_size=3, hidden_size=6)
    weights = [weight.detach().zero_() for weight in model.parameters()]
    embedding, of_input, _, bias, _, of_output, _ = weights
    embedding.copy_(torch.eye(3))
    gates, bias = of_input.view(4, 6, 3), bias.view(4, 6)
    bias[[0, 1, 3]] = 50.0  # write, keep and show always
    gates[2, 0, study.A_ID], gates[2, 0, study.B_ID] = (
        math.atanh(0.1),
        -math.atanh(0.1 + 0.1 * slip),
    )
    gates[2, 1, study.B_ID] = math.atanh(0.01)
    of_output[study.B_ID, 0], of_output[study.B_ID, 1] = 1.0, -disturbance
    model.output.bias.detach()[:] = torch.tensor([0.05, -9.0, 0.0])
    return model.eval()


def test_a_counter_that_slips_is_found_by_exchanging_what_it_holds() -> None:
    """In closed form, as in the chapter's exercise: with .012 a step, it is right up to n = 42."""
    model = hand_set(slip=0.012)
    assert study.counts_right(model, range(1, 81)).tolist() == [True] * 42 + [False] * 38
    exchange = study.Exchange(model, 20)
    assert exchange.counting.tolist() == [True] + 5 * [False]
    assert exchange.corrected(make_generator(0)) == {
        "as it is": 22 / 60, "counting units": 1.0, "other units": 22 / 60,
        "random units": pytest.approx(22 / 60),
    }  # fmt: skip
    assert exchange.damaged() == {"counting units": 22 / 60, "other units": 1.0}
    for n, off in exchange.offsets().items():
        assert off["best"] == off["furthest"] == pytest.approx(0.012 * (int(n) - 10), abs=1e-3)


def test_an_exact_counter_is_not_blamed_for_what_disturbs_it() -> None:
    """It fails when tanh(.1) - .1 tanh(.01 (n - 1)) falls below .05, beyond n = 55."""
    model = hand_set(disturbance=0.1)
    reach = int(study.counts_right(model, range(1, 81)).long().cumprod(0).sum())
    assert reach == 55
    exchange = study.Exchange(model, 20)
    share = pytest.approx((reach - 20) / 60)
    assert exchange.corrected(make_generator(0)) == {
        "as it is": share, "counting units": share, "other units": 1.0, "random units": share,
    }  # fmt: skip
    assert exchange.damaged() == {"counting units": 1.0, "other units": share}


def test_what_was_wrong_before_the_exchange_stays_wrong() -> None:
    """Slipping by .3, a text of 80 ends long before 10 b's are left."""
    exchange = study.Exchange(hand_set(slip=0.3), 20)
    assert exchange.corrected(make_generator(0))["counting units"] < 0.5
    with pytest.raises(ValueError, match="longest must be above 10"):
        study.Exchange(hand_set(), 10)


def test_a_counting_text_is_n_times_each_and_the_end() -> None:
    batch = study.counting_batch([2, 1])
    assert batch.inputs.tolist() == [[0, 1, 1, 2, 2], [0, 1, 2, 0, 0]]
    assert batch.targets.tolist() == [[1, 1, 2, 2, 0], [1, 2, 0, IGNORE, IGNORE]]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="readers must be one of LSTM, Transformer, got 'cat'"):
        study.Config(readers=("cat",))
    with pytest.raises(ValueError, match="cells must be one of LSTM, GRU, tanh RNN, got 'cat'"):
        study.Config(cells=("cat",))
    with pytest.raises(ValueError, match="kinds must be one of any, rest_1"):
        study.Config(kinds=("cat",))
    with pytest.raises(ValueError, match="doses must be >= 0"):
        study.Config(doses=(-1,))
    with pytest.raises(ValueError, match="num_parts must be between 1 and 998, got 999"):
        study.Config(num_parts=999)


def test_a_run_repeats_with_its_seed() -> None:
    config = study.Config(
        num_numbers=40, num_parts=30, doses=(0, 30), kinds=("any", "rest_1"), num_kind=20,
        num_test=20, hidden_size=8, width=8,
        steps=3, batch_size=8, counting_steps=3, longest_trained=11,
    )  # fmt: skip
    with one_thread():
        one, again = study.run(config, seed=0), study.run(config, seed=0)
    assert one == again
    json.dumps(dataclasses.asdict(one), allow_nan=False)
    assert set(one.by_digits) == {"3", "4", "5", "6"}
    assert set(one.composed) == {"LSTM", "Transformer"}
    assert {tuple(shares) for shares in one.composed_by_dose.values()} == {("0", "30")}
    assert set(one.composed_by_kind["LSTM"]) == {"any", "rest_1"}
    assert set(one.composed_by_kind["LSTM"]["any"]) == {"1", "2", "3"}
    assert set(one.reach) == set(CELLS)
    assert set(one.corrected) == {"as it is", "counting units", "other units", "random units"}


@pytest.mark.slow
def test_parts_do_not_make_a_whole_and_counting_goes_on_for_an_lstm() -> None:
    """About 12 CPU seconds."""
    config = study.Config()
    seen, held_out, composed = study.parts(config, make_generator(5))
    with one_thread():
        model = study.train_reader("LSTM", seen, config, seed=5)
        counter = study.train_counter("LSTM", config, seed=5)
        right = study.counts_right(counter, range(1, 31))
    assert study.share_right(model, held_out) > 0.95
    assert study.share_right(model, composed[:500]) < 0.03
    assert bool(right[:20].all())
