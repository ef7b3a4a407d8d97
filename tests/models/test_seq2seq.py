"""The encoder-decoder: the formulas written out, padding that changes nothing, and a state that
the package's decoders can carry, repeat and drop.

All models compute in float64, where the order of sums moves the last digits alone.
"""

import itertools
import math

import pytest
import torch
from annotation_checker import unchecked

from companion.core.seeds import make_generator
from companion.generation.beam import beam_search
from companion.generation.decoding import SamplingConfig, generate
from companion.losses.cross_entropy import summed_nats
from companion.models.base import detach, largest_difference
from companion.models.seq2seq import Seq2Seq, Seq2SeqConfig, SourceAttention
from companion.text.batching import IGNORE

SAME = {"rtol": 0, "atol": 1e-12}
KINDS = ("dot", "general", "additive", "uniform", "none")
SOURCES, TARGETS, END = 7, 5, 0


def model_of(attention: str = "general", **changes) -> Seq2Seq:
    torch.manual_seed(0)
    settings = {"embedding_size": 6, "hidden_size": 8, "attention": attention} | changes
    config = Seq2SeqConfig(source_size=SOURCES, target_size=TARGETS, **settings)
    return Seq2Seq(config).double().eval()


@pytest.fixture(params=KINDS)
def model(request) -> Seq2Seq:
    return model_of(request.param)


def a_batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sources of 5, 2 and 3 tokens, whose padding is anything, and target inputs."""
    generator = make_generator(1)
    source = torch.randint(SOURCES, (3, 5), generator=generator)
    inputs = torch.randint(TARGETS, (3, 4), generator=generator)
    return source, torch.tensor([5, 2, 3]), inputs


def test_padding_and_the_rest_of_the_batch_change_nothing(model):
    source, lengths, inputs = a_batch()
    together = model.translate_logits(source, lengths, inputs)
    for row, length in enumerate(lengths.tolist()):
        alone = model.translate_logits(
            source[row : row + 1, :length], lengths[row : row + 1], inputs[row : row + 1]
        )
        torch.testing.assert_close(together[row], alone[0], **SAME)
    other = (source + 1) % SOURCES
    padding = torch.arange(5) >= lengths.unsqueeze(1)
    changed = model.translate_logits(torch.where(padding, other, source), lengths, inputs)
    torch.testing.assert_close(together, changed, rtol=0, atol=0)


def test_every_source_token_counts(model):
    """The control of the test above: what is no padding does change the logits, the first token
    and the last, or the masks would be too wide."""
    source, lengths, inputs = a_batch()
    before = model.translate_logits(source, lengths, inputs)
    for row, length in enumerate(lengths.tolist()):
        for place in (0, length - 1):
            changed = source.clone()
            changed[row, place] = (changed[row, place] + 1) % SOURCES
            after = model.translate_logits(changed, lengths, inputs)
            assert float((after[row] - before[row]).detach().abs().max()) > 1e-6


def test_padding_gets_no_gradient_and_no_attention(model):
    source, lengths, inputs = a_batch()
    embedded: list[torch.Tensor] = []

    def keep(module, arguments, output):
        output.retain_grad()
        embedded.append(output)

    handle = model.source_embedding.register_forward_hook(keep)
    model.translate_logits(source, lengths, inputs).square().sum().backward()
    handle.remove()
    assert embedded[0].grad is not None
    padding = torch.arange(5) >= lengths.unsqueeze(1)
    assert float(embedded[0].grad[padding].abs().max()) == 0
    assert float(embedded[0].grad[~padding].abs().sum(dim=-1).min()) > 0
    if model.config.attention != "none":
        weights = model.attention_weights(source, lengths, inputs)
        assert weights.shape == (3, 4, 5)
        assert float(weights.masked_select(padding.unsqueeze(1)).abs().max()) == 0
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 4).double(), **SAME)


def test_padded_targets_get_no_gradient():
    model = model_of()
    source, lengths, inputs = a_batch()
    targets = inputs.clone()
    targets[1, 2:] = IGNORE
    logits = model.translate_logits(source, lengths, inputs)
    logits.retain_grad()
    summed_nats(logits, targets).backward()
    assert float(logits.grad[1, 2:].abs().max()) == 0
    assert float(logits.grad[1, :2].abs().max()) > 0


@pytest.mark.parametrize("kind", ["dot", "general", "additive", "uniform"])
def test_attention_is_its_formula(kind):
    torch.manual_seed(1)
    attention = SourceAttention(4, kind).double()
    hidden = torch.randn(1, 2, 4, dtype=torch.float64)
    memory = torch.randn(1, 3, 4, dtype=torch.float64)
    weights = attention.weights(hidden, memory, torch.tensor([3]))
    context = attention(hidden, memory, torch.tensor([3]))
    attention.requires_grad_(False)
    for t in range(2):
        scores = []
        for s in range(3):
            h, m = hidden[0, t], memory[0, s]
            if kind == "general":
                scores.append(float(attention.query.weight @ h @ m))
            elif kind == "additive":
                inner = attention.query.weight @ h + attention.query.bias
                inner = torch.tanh(inner + attention.key.weight @ m)
                scores.append(float(attention.score.weight[0] @ inner))
            else:
                scores.append(float(h @ m) if kind == "dot" else 0.0)
        exps = [math.exp(score) for score in scores]
        expected = torch.tensor([e / sum(exps) for e in exps], dtype=torch.float64)
        torch.testing.assert_close(weights[0, t], expected, **SAME)
        torch.testing.assert_close(context[0, t], expected @ memory[0], **SAME)


def test_uniform_attention_is_the_mean_of_the_source_alone():
    model = model_of("uniform")
    source, lengths, inputs = a_batch()
    weights = model.attention_weights(source, lengths, inputs)
    torch.testing.assert_close(weights[1, 0], torch.tensor([0.5, 0.5, 0, 0, 0]).double(), **SAME)


def test_the_encoder_is_a_bidirectional_lstm():
    """The same weights in torch's own, on packed rows: an independent reference."""
    model = model_of()
    source, lengths, _ = a_batch()
    reference = torch.nn.LSTM(6, 4, batch_first=True, bidirectional=True).double()
    for name, weight in model.forwards.named_parameters():
        getattr(reference, name).data.copy_(weight)
    for name, weight in model.backwards.named_parameters():
        getattr(reference, f"{name}_reverse").data.copy_(weight)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        model.source_embedding(source), lengths, batch_first=True, enforce_sorted=False
    )
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    memory = model.encode(source, lengths)[2]
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(memory[row, :length], expected[row, :length], **SAME)


def test_reading_in_parts_equals_reading_at_once(model):
    source, lengths, inputs = a_batch()
    state = model.encode(source, lengths)
    whole, end = model(inputs, state)
    first, between = model(inputs[:, :1], state)
    second, last = model(inputs[:, 1:], detach(between))
    torch.testing.assert_close(whole, torch.cat([first, second], dim=1), **SAME)
    assert largest_difference(detach(end), detach(last)) < 1e-12


def test_selected_rows_go_on_as_they_would_alone(model):
    source, lengths, inputs = a_batch()
    _, state = model(inputs[:, :2], model.encode(source, lengths))
    rows = torch.tensor([2, 0, 2])
    chosen, _ = model(inputs[rows, 2:], model.select_rows(state, rows))
    as_before, _ = model(inputs[:, 2:], state)
    torch.testing.assert_close(chosen, as_before[rows], **SAME)


def test_a_wide_beam_finds_the_most_probable_translation(model):
    """Against all translations of up to three tokens, scored one by one."""
    source = torch.tensor([[3, 1, 4]])
    given = model.given(source)
    with torch.no_grad():
        found = beam_search(given, torch.tensor([END]), 4, width=200, end_id=END)
        best = -math.inf
        for size in range(4):
            for words in itertools.product(range(1, TARGETS), repeat=size):
                inputs = torch.tensor([[END, *words]])
                log_probs = torch.log_softmax(given(inputs)[0], dim=-1)[0]
                targets = torch.tensor([*words, END])
                best = max(best, float(log_probs[torch.arange(size + 1), targets].sum()))
    assert found[0].log_prob == pytest.approx(best, abs=1e-9)


def test_greedy_translation_of_a_batch_is_that_of_each_source(model):
    source, lengths, _ = a_batch()
    prompts = torch.full((3, 1), END)
    together = generate(model.given(source, lengths), prompts, 6, SamplingConfig(temperature=0))
    for row, length in enumerate(lengths.tolist()):
        given = model.given(source[row : row + 1, :length])
        alone = generate(given, prompts[:1], 6, SamplingConfig(temperature=0))
        assert together[row].tolist() == alone[0].tolist()
        beam = beam_search(given, prompts[0], 6, width=1)
        assert beam[0].tokens == alone[0].tolist()


def test_without_attention_the_decoder_reads_only_its_first_state():
    """The memory may be anything; with attention it counts."""
    source, lengths, inputs = a_batch()
    for kind in ("none", "general"):
        model = model_of(kind)
        state = model.encode(source, lengths)
        other = (*state[:2], state[2] + 1, state[3])
        same = torch.equal(model(inputs, state)[0], model(inputs, other)[0])
        assert same == (kind == "none")


@pytest.mark.parametrize(
    ("source", "lengths", "words"),
    [
        (torch.zeros(2, 3).long(), torch.tensor([3, 4]), "between 1 and 3.*got 4"),
        (torch.zeros(2, 3).long(), torch.tensor([3, 0]), "between 1 and 3.*got 0"),
        (torch.zeros(3).long(), torch.tensor([3]), r"shape \(batch, time\)"),
        (torch.zeros(2, 3).long(), torch.tensor([3]), "one length a row"),
        (torch.zeros(2, 0).long(), torch.tensor([0, 0]), "one token or more"),
    ],
)
def test_a_wrong_source_is_refused(source, lengths, words):
    with unchecked(), pytest.raises(ValueError, match=words):
        model_of().encode(source, lengths)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="even, for two directions, got 9"):
        model_of(hidden_size=9)
    with pytest.raises(ValueError, match="attention must be one of dot"):
        model_of("bahdanau")
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\)"):
        model_of(dropout=1.0)
    with pytest.raises(ValueError, match="begins with a source"):
        model_of()(torch.tensor([[0]]))
    with pytest.raises(ValueError, match="no attention weights"):
        model_of("none").attention_weights(*a_batch())
    source, lengths, _ = a_batch()
    with pytest.raises(ValueError, match="3 sources, got 2 prompts"):
        model_of().given(source, lengths)(torch.zeros(2, 1).long())


def test_a_model_of_a_given_source_keeps_its_mode():
    model = model_of()
    assert not model.given(torch.tensor([[1]])).training
    assert model.train().given(torch.tensor([[1]])).training
