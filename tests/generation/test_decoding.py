"""Decoding: what each rule keeps, what is then drawn, and text that the model knows by heart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from companion.generation.decoding import SamplingConfig, generate, stream_tokens
from companion.losses.cross_entropy import token_nats
from companion.models.lstm import LSTMConfig, LSTMLanguageModel

VOCABULARY = 9


def make_model(seed=1, **changes):
    torch.manual_seed(seed)
    config = {"vocabulary_size": VOCABULARY, "embedding_size": 6, "hidden_size": 8} | changes
    model = LSTMLanguageModel(LSTMConfig(**config)).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=1.0)
    return model


def random_logits(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 2


seeds = st.integers(0, 10**6)


@settings(deadline=None)
@given(seeds)
def test_the_default_samples_the_model_as_it_is(seed):
    logits = random_logits(seed, 3, VOCABULARY)
    torch.testing.assert_close(SamplingConfig().probs(logits), logits.softmax(-1))


@settings(deadline=None)
@given(seeds)
def test_greedy_puts_all_on_the_most_probable_token(seed):
    logits = random_logits(seed, 4, VOCABULARY)
    greedy = SamplingConfig(temperature=0)
    assert torch.equal(greedy.choose(logits, None), logits.argmax(-1))
    assert greedy.probs(logits).sum() == 4
    assert (greedy.probs(logits).amax(-1) == 1).all()


@settings(deadline=None)
@given(seeds, st.floats(0.1, 10))
def test_temperature_divides_the_logits(seed, temperature):
    logits = random_logits(seed, 2, VOCABULARY)
    probs = SamplingConfig(temperature=temperature).probs(logits)
    ratio = probs[:, 0] / probs[:, 1]
    expected = torch.exp((logits[:, 0] - logits[:, 1]) / temperature)
    # Two exponentials of arguments up to ~150 in float32; where a probability underflows, both
    # sides are compared as probabilities instead.
    kept = probs[:, :2].amin(dim=-1) > 1e-30
    torch.testing.assert_close(ratio[kept], expected[kept], rtol=1e-4, atol=0)


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1e-45])
def test_a_temperature_near_zero_is_greedy_and_never_nan(temperature):
    logits = torch.tensor([[50.0, -20.0, 49.0]])
    assert SamplingConfig(temperature=temperature).probs(logits).tolist() == [[1.0, 0.0, 0.0]]


def test_logits_times_1000_and_masked_tokens_decode():
    logits = torch.tensor([[3000.0, 1000.0, -math.inf]])
    for decoder in (
        SamplingConfig(),
        SamplingConfig(temperature=0.5),
        SamplingConfig(top_k=2),
        SamplingConfig(top_p=0.9),
    ):
        assert decoder.probs(logits).tolist() == [[1.0, 0.0, 0.0]]


@settings(deadline=None)
@given(seeds, st.integers(1, VOCABULARY + 3))
def test_top_k_keeps_k_tokens_in_every_row_of_a_batch(seed, k):
    # The trap: comparing (B, V) logits with a (B,) threshold cuts rows by each other's edges. The
    # second row lies far above the first, so that such a cut would show.
    logits = random_logits(seed, 2, VOCABULARY) + torch.tensor([[0.0], [100.0]])
    probs = SamplingConfig(top_k=k).probs(logits)
    assert (probs > 0).sum(-1).tolist() == [min(k, VOCABULARY)] * 2
    for row in range(2):
        assert torch.equal(probs[row], SamplingConfig(top_k=k).probs(logits[row]))
        best = logits[row].topk(min(k, VOCABULARY)).indices
        expected = torch.zeros(VOCABULARY).scatter(0, best, logits[row][best].softmax(-1))
        torch.testing.assert_close(probs[row], expected)


def test_a_square_batch_is_cut_row_by_row_too():
    logits = random_logits(0, VOCABULARY, VOCABULARY)  # where the broadcast would be silent
    assert (SamplingConfig(top_k=3).probs(logits) > 0).sum(-1).tolist() == [3] * VOCABULARY


def test_of_equally_probable_tokens_the_lower_id_is_kept():
    logits = torch.tensor([[0.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    assert SamplingConfig(top_k=2).probs(logits).tolist() == [[0, 0.5, 0.5, 0], [0.5, 0.5, 0, 0]]
    assert SamplingConfig(temperature=0).choose(logits, None).tolist() == [1, 0]
    assert SamplingConfig(top_p=0.5).probs(logits)[1].tolist() == [0.5, 0.5, 0, 0]
    # Many of them: a sort that is not stable keeps the order of a few by chance.
    kept = SamplingConfig(top_k=300).probs(torch.zeros(1, 1000)) > 0
    assert kept[0, :300].all()
    assert not kept[0, 300:].any()


@pytest.mark.parametrize(
    ("p", "kept"),
    [(0.1, 1), (0.5, 1), (0.51, 2), (0.75, 2), (0.8, 3), (0.875, 3), (0.9, 4), (1, 4)],
)
def test_the_nucleus_of_a_small_distribution_is_this(p, kept):
    probs = torch.tensor([0.125, 0.5, 0.125, 0.25])  # powers of two: sums are exact
    order = [1, 3, 0, 2]
    expected = torch.zeros(4)
    expected[order[:kept]] = probs[order[:kept]] / probs[order[:kept]].sum()
    torch.testing.assert_close(SamplingConfig(top_p=p).probs(probs.log()), expected)


@settings(deadline=None)
@given(seeds, st.floats(0.01, 0.99))
def test_the_nucleus_is_the_smallest_set_that_reaches_p(seed, p):
    logits = random_logits(seed, 3, 20)
    for probs, kept in zip(
        logits.softmax(-1).double(), SamplingConfig(top_p=p).probs(logits) > 0, strict=True
    ):
        # float32 sums of 20 numbers: p is met within 1e-6.
        assert probs[kept].sum() >= p - 1e-6
        assert probs[kept].sum() - probs[kept].min() < p + 1e-6  # one fewer would not do
        assert kept.all() or probs[kept].min() >= probs[~kept].max()


def test_the_nucleus_reached_exactly_takes_no_token_more():
    # Thresholds taken from the very sums that the decoder compares them with.
    for seed in range(50):
        probs = random_logits(seed, 8).softmax(-1)
        ordered = probs.sort(descending=True).values
        for size, mass in enumerate(ordered.cumsum(-1)[:-1].tolist(), start=1):
            assert int((SamplingConfig(top_p=mass).probs(probs.log()) > 0).sum()) in (
                size,
                size + 1,
            )
            # The logarithm may move a sum by a rounding; without it the size is exact.
        logits = random_logits(seed, 8)
        sums = (logits - logits.max()).softmax(-1).sort(descending=True).values.cumsum(-1)
        for size, mass in enumerate(sums[:-1].tolist(), start=1):
            assert int((SamplingConfig(top_p=mass).probs(logits) > 0).sum()) == size


def test_a_nucleus_of_everything_cuts_nothing_off():
    # In float32 the cumulative sum of a large vocabulary reaches 1 before its end.
    logits = random_logits(0, 2, 50_000) * 4
    probs = SamplingConfig(top_p=1.0).probs(logits)
    assert (logits.softmax(-1).cumsum(-1)[:, :-1] >= 1).any()  # the case is there
    assert (probs > 0).all()
    torch.testing.assert_close(probs, logits.softmax(-1))


def test_top_k_comes_before_the_nucleus_of_what_is_left():
    probs = torch.tensor([0.4, 0.3, 0.2, 0.1])
    # Top-2 leaves 4/7 = 0.571 and 3/7; the nucleus of 0.5 is then the first alone, of 0.6 both.
    both = SamplingConfig(top_k=2, top_p=0.6).probs(probs.log())
    torch.testing.assert_close(both, torch.tensor([4 / 7, 3 / 7, 0, 0]))
    assert SamplingConfig(top_k=2, top_p=0.5).probs(probs.log()).tolist() == [1, 0, 0, 0]


@settings(max_examples=50, deadline=None)
@given(seeds, st.floats(0.2, 5), st.none() | st.integers(1, 12), st.none() | st.floats(0.05, 1))
def test_every_decoder_gives_a_distribution_and_keeps_the_order(seed, temperature, k, p):
    logits = random_logits(seed, 2, 3, VOCABULARY)
    probs = SamplingConfig(temperature=temperature, top_k=k, top_p=p).probs(logits)
    assert (probs >= 0).all()
    torch.testing.assert_close(probs.sum(-1), torch.ones(2, 3))
    assert torch.equal(probs.argmax(-1), logits.argmax(-1))


@pytest.mark.parametrize(
    "decoder",
    [
        SamplingConfig(),
        SamplingConfig(temperature=0.7),
        SamplingConfig(top_k=4),
        SamplingConfig(top_p=0.8),
    ],
)
def test_sampled_frequencies_match_the_probabilities(decoder):
    logits = torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0, -1.5])
    probs = decoder.probs(logits).numpy()
    draws = decoder.choose(logits.expand(20_000, 6), torch.Generator().manual_seed(0)).numpy()
    counts, kept = np.bincount(draws, minlength=6), probs > 0
    assert counts[~kept].sum() == 0
    expected = 20_000 * probs[kept]
    chi_squared = ((counts[kept] - expected) ** 2 / expected).sum()
    # The chi-square of 5 degrees of freedom exceeds 25 once in 7,000 times; the seed is fixed.
    assert chi_squared < 25


def test_the_same_generator_state_gives_the_same_text_and_touches_no_global_state():
    model, prompt = make_model(), torch.tensor([[1, 2]])
    before = torch.get_rng_state()
    texts = [
        generate(model, prompt, 30, generator=torch.Generator().manual_seed(seed)).tolist()
        for seed in (5, 5, 6)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_prompt_read_at_once_equals_one_fed_token_by_token():
    model, prompt = make_model(num_layers=2), torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    expected, state = [], None
    with torch.no_grad():
        for column in prompt.T:
            logits, state = model(column[:, None], state)
        for _ in range(12):
            token = logits[:, -1].argmax(-1)
            expected.append(token)
            logits, state = model(token[:, None], state)
    got = generate(model, prompt, 12, SamplingConfig(temperature=0))
    assert torch.equal(got, torch.stack(expected, dim=1))


def test_generated_text_is_what_the_model_says_of_the_whole_text_read_again():
    # Without a carried state, by one forward pass over prompt and text: each token was the best.
    model, prompt = make_model(), torch.tensor([[3, 1]])
    text = generate(model, prompt, 20, SamplingConfig(temperature=0))
    with torch.no_grad():
        logits, _ = model(torch.cat([prompt, text], dim=1))
    assert torch.equal(logits[:, 1:-1].argmax(-1), text)


def test_rows_are_generated_independently():
    model = make_model()
    prompts = torch.tensor([[1, 2], [3, 4], [5, 6]])
    together = generate(model, prompts, 15, SamplingConfig(temperature=0))
    alone = [generate(model, row[None], 15, SamplingConfig(temperature=0)) for row in prompts]
    assert torch.equal(together, torch.cat(alone))


def always(token):
    """A model that predicts `token` whatever it reads."""
    model = make_model()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    model.output.bias.data[token] = 50.0
    return model


def test_generation_ends_when_every_row_has_ended():
    text = generate(
        always(4), torch.tensor([[1], [2]]), 10, SamplingConfig(temperature=0), end_id=4
    )
    assert text.tolist() == [[4], [4]]
    assert generate(always(4), torch.tensor([[1]]), 10, end_id=3).shape == (1, 10)


def test_a_row_that_has_ended_is_filled_with_the_end_while_others_go_on():
    model, prompt = make_model(), torch.zeros(6, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(2)
    text = generate(model, prompt, 40, SamplingConfig(temperature=3), generator=generator, end_id=0)
    ends = []
    for row in text:
        first = (row == 0).nonzero()[0].item() if (row == 0).any() else text.shape[1]
        assert (row[first:] == 0).all()
        ends.append(first)
    assert len(set(ends)) > 1  # rows ended at different times: the case is there
    assert max(ends) == text.shape[1] - 1  # and nothing was generated after the last had ended


def test_an_end_in_the_prompt_does_not_end_the_text():
    assert generate(always(4), torch.tensor([[3]]), 5, end_id=3).tolist() == [[4] * 5]


def test_streaming_gives_the_tokens_that_generate_gives():
    model, prompt = make_model(), torch.tensor([[1, 2], [3, 4]])
    stream = stream_tokens(
        model, prompt, SamplingConfig(), generator=torch.Generator().manual_seed(1)
    )
    columns = torch.stack([next(stream) for _ in range(8)], dim=1)
    text = generate(model, prompt, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(columns, text)
    assert torch.is_grad_enabled()  # the stream is still open, and gradients are on outside it


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match=r"training mode, so dropout is on; call model.eval\(\)"):
        generate(make_model(dropout=0.5).train(), torch.tensor([[1]]), 3)


def test_an_empty_prompt_and_no_tokens_are_refused():
    with pytest.raises(ValueError, match="at least one token"):
        generate(make_model(), torch.zeros(1, 0, dtype=torch.long), 3)
    with pytest.raises(ValueError, match="num_tokens must be >= 1, got 0"):
        generate(make_model(), torch.tensor([[1]]), 0)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"temperature": -0.1}, "temperature must be >= 0, got -0.1"),
        ({"temperature": math.nan}, "temperature must be >= 0, got nan"),
        ({"top_k": 0}, "top_k must be >= 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must be in \(0, 1\], got 1.1"),
        ({"top_p": math.nan}, "top_p"),
        ({"repetition_penalty": 0.9}, "repetition_penalty must be >= 1, got 0.9"),
        ({"repetition_penalty": math.nan}, "repetition_penalty"),
    ],
)
def test_a_decoder_that_chooses_nothing_is_refused(settings_, message):
    with pytest.raises(ValueError, match=message):
        SamplingConfig(**settings_)


def test_the_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    logits = torch.tensor([[2.0, -2.0, 3.0, 0.0]])
    seen = torch.tensor([[True, True, False, True]])
    assert SamplingConfig(repetition_penalty=2).penalised(logits, seen).tolist() == [[1, -4, 3, 0]]


def test_a_large_repetition_penalty_uses_every_token_before_one_twice():
    # Where all logits are positive, a penalty of 1000 puts what was generated last.
    model = always(4)
    model.output.bias.data = torch.arange(1.0, VOCABULARY + 1)
    prompt = torch.tensor([[VOCABULARY - 1]])
    once = generate(
        model, prompt, VOCABULARY, SamplingConfig(temperature=0, repetition_penalty=1000)
    )
    assert once[0].tolist() == list(reversed(range(VOCABULARY)))  # the prompt does not count
    plain = generate(model, prompt, 3, SamplingConfig(temperature=0))
    assert plain[0].tolist() == [VOCABULARY - 1] * 3


@pytest.mark.slow
def test_greedy_text_of_an_overfitted_model_is_the_sequence_it_memorised():
    # Only a context of two tokens tells what follows a 1 or a 5 here.
    text = torch.tensor([0, 1, 2, 1, 3, 5, 1, 4, 5, 6, 5, 7, 8, 1, 0])
    torch.manual_seed(0)
    model = LSTMLanguageModel(
        LSTMConfig(vocabulary_size=VOCABULARY, embedding_size=16, hidden_size=32)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        logits, _ = model(text[None, :-1])
        loss = token_nats(logits, text[None, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05  # overfitted: one batch, learnt by heart
    got = generate(model.eval(), text[None, :1], len(text) - 1, SamplingConfig(temperature=0))
    assert got[0].tolist() == text[1:].tolist()
