"""Every language model keeps the interface of `companion.models.base`, and all that speaks to it
gives what the probabilities written out give.

All models compute in float64, where the order of sums moves the last digits alone.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math

import pytest
import torch
from torch import nn

from companion import models
from companion.core.seeds import make_generator
from companion.evaluation.calibration import fit_temperature
from companion.evaluation.continuous_cache import (
    ContinuousCacheConfig,
    choose_cache,
    score_with_cache,
)
from companion.evaluation.dynamic import DynamicConfig, score_dynamically
from companion.evaluation.scoring import evaluate, score, summed_nats_of_rows
from companion.evaluation.texts import text_log_probs
from companion.generalization.canaries import code_log_probs
from companion.generation.beam import beam_search
from companion.generation.decoding import SamplingConfig, generate
from companion.generation.texts import write_texts
from companion.models.base import (
    LanguageModel,
    State,
    detach,
    evaluation_mode,
    largest_difference,
)
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.ngram import NGramModel
from companion.models.recurrent import RecurrentModel
from companion.models.transformer import TransformerModel
from companion.preferences.comparisons import Pairs
from companion.preferences.dpo import DPOConfig, train_dpo
from companion.text.batching import scoring_streams
from companion.text.rows import END_ID
from companion.training.config import TrainConfig
from companion.training.trainer import train

V = 5
SAME = {"rtol": 0, "atol": 1e-10}


def lstm(**changes) -> LSTMLanguageModel:
    settings = {"vocabulary_size": V, "embedding_size": 6, "hidden_size": 8} | changes
    return LSTMLanguageModel(LSTMConfig(**settings))


def recurrent(cell: str) -> RecurrentModel:
    return RecurrentModel(cell, vocabulary_size=V, embedding_size=6, hidden_size=8)


def ngram(order: int, smoothing: str) -> NGramModel:
    text = torch.randint(V, (60,), generator=make_generator(1))
    return NGramModel.fit(text, order=order, vocabulary_size=V, smoothing=smoothing)


MODELS = {
    "LSTM": lstm,
    "LSTM of two layers": lambda: lstm(num_layers=2, dropout=0.3),
    "LSTM with a narrow last layer": lambda: lstm(num_layers=2, last_size=3, weight_drop=0.2),
    "LSTM with adaptive softmax": lambda: lstm(adaptive_cutoffs=(2,)),
    "recurrent LSTM": lambda: recurrent("LSTM"),
    "GRU": lambda: recurrent("GRU"),
    "tanh": lambda: recurrent("tanh RNN"),
    "Transformer": lambda: TransformerModel(vocabulary_size=V, width=8, max_length=64),
    "trigram": lambda: ngram(3, "kneser-ney"),
    "unigram": lambda: ngram(1, "witten-bell"),
}


@pytest.fixture(params=MODELS)
def model(request) -> LanguageModel:
    torch.manual_seed(0)
    model = MODELS[request.param]().double().eval()
    for parameter in model.parameters():  # strong preferences, so that texts differ
        nn.init.normal_(parameter, std=0.5)
    return model


def random_ids(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(V, shape, generator=make_generator(seed))


@torch.no_grad()
def log_probs(model: LanguageModel, text: torch.Tensor) -> torch.Tensor:
    """log p of each token of a text but the first: each from reading all before it alone."""
    return torch.stack(
        [
            torch.log_softmax(model(text[None, :place])[0][0, -1], dim=-1)[text[place]]
            for place in range(1, len(text))
        ]
    )


# --- the state -----------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_reading_in_two_parts_equals_reading_at_once(model, cut):
    ids = random_ids(3, 9)
    whole, end = model(ids)
    first, state = model(ids[:, :cut])
    second, parted_end = model(ids[:, cut:], state)
    assert whole.shape == (3, 9, model.vocabulary_size)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, **SAME)
    torch.testing.assert_close(parted_end, end, **SAME)


@torch.no_grad()
def test_no_state_is_the_initial_state(model):
    ids = random_ids(3, 5)
    torch.testing.assert_close(model(ids, model.initial_state(3)), model(ids), **SAME)


@torch.no_grad()
def test_logits_of_features_are_the_models_logits(model):
    ids = random_ids(3, 5)
    features, _ = model.features(ids)
    torch.testing.assert_close(model.logits(features), model(ids)[0], **SAME)
    torch.testing.assert_close(model.logits(features[:, 1:3]), model(ids)[0][:, 1:3], **SAME)


@torch.no_grad()
def test_a_state_stays_what_it_is_when_the_inputs_are_overwritten(model):
    ids, more = random_ids(3, 5), random_ids(3, 2, seed=3)
    _, state = model(ids)
    before, _ = model(more, state)
    ids.fill_(0)
    torch.testing.assert_close(model(more, state)[0], before, **SAME)


@torch.no_grad()
@pytest.mark.parametrize("rows", [[2, 0, 0, 3, 2, 1], [3, 1], [2], [0, 1, 2, 3]], ids=str)
def test_selected_rows_go_on_as_those_texts_alone(model, rows):
    read, more = random_ids(4, 6), random_ids(len(rows), 3, seed=3)
    state = model.select_rows(model(read)[1], torch.tensor(rows))
    together, end = model(more, state)
    for place, row in enumerate(rows):
        alone, own_end = model(torch.cat([read[row], more[place]])[None])
        torch.testing.assert_close(together[place], alone[0, -3:], **SAME)
        own = model.select_rows(end, torch.tensor([place]))
        torch.testing.assert_close(own, own_end, **SAME)


@torch.no_grad()
def test_joined_rows_are_one_batch_again(model):
    _, state = model(random_ids(4, 6))
    parts = [model.select_rows(state, torch.tensor(rows)) for rows in ([0], [1, 2], [3])]
    assert largest_difference(model.join_rows(parts), state) == 0


def test_a_detached_state_has_the_same_values_and_no_gradient(model):
    _, state = model(random_ids(2, 4))
    cut = detach(state)
    torch.testing.assert_close(cut, state, **SAME)
    parts = cut if isinstance(cut, tuple) else (cut,)
    assert not any(part.requires_grad for part in parts)


def test_evaluation_mode_ends_with_the_block_also_after_an_error(model):
    model.train()
    with evaluation_mode(model):
        assert not model.training
    with contextlib.suppress(KeyError), evaluation_mode(model):
        raise KeyError
    assert model.training


@torch.no_grad()
def test_restarted_rows_are_at_their_initial_state_and_the_others_stay(model):
    if model.state_grows:
        pytest.skip("its state is as long as its text")
    _, state = model(random_ids(4, 6))
    rows = torch.tensor([True, False, False, True])
    mixed = model.restart_rows(state, rows)
    for row, fresh in enumerate(rows):
        own, one = (model.select_rows(each, torch.tensor([row])) for each in (mixed, state))
        assert largest_difference(own, model.initial_state(1) if fresh else one) == 0


class Own(LanguageModel):
    """A model of a reader's own: from each token, whatever came before, to the next."""

    def __init__(self) -> None:
        super().__init__(V)
        self.table = nn.Parameter(torch.zeros(V, V))

    def features(self, inputs, state=None):
        return self.table[inputs], self.initial_state(len(inputs))

    def logits(self, features):
        return features

    def initial_state(self, batch_size):
        return self.table.new_zeros(batch_size, 0)


def test_a_model_that_keeps_the_contract_is_trained_scored_and_generated_from():
    ids = torch.arange(201) % V  # each token is followed by the next one
    model = Own()
    settings = TrainConfig(steps=60, num_streams=4, window_length=10, learning_rate=0.3)
    assert train(model, ids, settings, device="cpu").steps == 60
    assert float(score(model, ids).nats.mean()) < 0.05  # ln 5 = 1.6 before
    greedy = SamplingConfig(temperature=0)
    assert generate(model, torch.tensor([[3]]), 4, greedy).tolist() == [[4, 0, 1, 2]]
    assert beam_search(model, torch.tensor([3]), 4, width=2)[0].tokens == [4, 0, 1, 2]
    assert State is models.State


# --- generation ----------------------------------------------------------------------------------


class DrawsOfRow(SamplingConfig):
    """Draws for a text alone what it would be drawn as row `row` of a batch of `rows` texts."""

    row, rows = 0, 0

    def choose(self, logits, generator):
        return super().choose(logits.expand(self.rows, -1), generator)[self.row, None]


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_texts_written_together_are_those_written_alone(model, temperature):
    prompts = random_ids(5, 3)
    settings = {"temperature": temperature, "repetition_penalty": 1.3}
    together = generate(model, prompts, 12, SamplingConfig(**settings), generator=make_generator(4))
    assert temperature == 0 or len({tuple(row) for row in together.tolist()}) > 1
    for row in range(5):
        decoder = type("One", (DrawsOfRow,), {"row": row, "rows": 5})(**settings)
        alone = generate(model, prompts[row, None], 12, decoder, generator=make_generator(4))
        assert alone[0].tolist() == together[row].tolist()


@torch.no_grad()
def test_texts_that_go_on_are_the_same_whoever_ended_beside_them(model):
    """`write_texts` drops ended texts from the state; here each text is read anew every time."""
    generator = make_generator(5)
    texts, going = [[] for _ in range(30)], list(range(30))
    while going and len(texts[going[0]]) < 6:
        prefixes = torch.tensor([[END_ID, *texts[row]] for row in going])
        logits = torch.cat([model(prefix[None])[0][:, -1] for prefix in prefixes])
        tokens = SamplingConfig().choose(logits, generator).tolist()
        for row, token in zip(going, tokens, strict=True):
            texts[row].append(token)
        going = [row for row in going if texts[row][-1] != END_ID]
    assert len({len(text) for text in texts}) > 2
    written = write_texts(model, 30, 6, generator=make_generator(5))
    width = max(len(text) for text in texts)
    assert written.tolist() == [text + [END_ID] * (width - len(text)) for text in texts]


# --- beam search ---------------------------------------------------------------------------------


def test_a_beam_that_drops_nothing_finds_every_text_best_first(model):
    prompt = torch.tensor([0, 2])
    truth = {
        text: float(log_probs(model, torch.tensor([0, 2, *text]))[1:].sum())
        for text in itertools.product(range(V), repeat=3)
    }
    found = beam_search(model, prompt, 3, width=V**3)
    assert {tuple(h.tokens) for h in found} == set(truth)
    assert found[0].log_prob == pytest.approx(max(truth.values()), abs=1e-9)
    for h in found:
        assert h.log_prob == pytest.approx(truth[tuple(h.tokens)], abs=1e-9)
    assert [h.log_prob for h in found] == sorted((h.log_prob for h in found), reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_beam_with_an_end_finds_every_text_that_ends_best_first(model, alpha):
    prompt = torch.tensor([0, 2])
    texts = [
        (*body, END_ID) for size in range(4) for body in itertools.product(range(1, V), repeat=size)
    ]
    truth = {text: float(log_probs(model, torch.tensor([0, 2, *text]))[1:].sum()) for text in texts}
    found = beam_search(model, prompt, 4, width=V**4, end_id=END_ID, length_penalty=alpha)
    assert {tuple(h.tokens) for h in found} == set(truth)
    best = max(truth[text] / len(text) ** alpha for text in texts)
    assert found[0].score == pytest.approx(best, abs=1e-9)
    for h in found:
        assert h.log_prob == pytest.approx(truth[tuple(h.tokens)], abs=1e-9)


# --- scores --------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_length", [1, 4, 100])
def test_scores_are_the_log_probabilities_written_out_whatever_the_window(model, window_length):
    ids = random_ids(31)
    found = score(model, ids, num_streams=1, window_length=window_length)
    # Scores are float32: 24 bits of surprisals of a few nats.
    torch.testing.assert_close(found.nats.double(), -log_probs(model, ids), rtol=1e-6, atol=1e-6)
    pieces = [log_probs(model, ids[first : first + 11]) for first in (0, 10, 20)]
    total = summed_nats_of_rows(model, scoring_streams(ids, 3), window_length=window_length)
    assert float(total) == pytest.approx(-float(torch.cat(pieces).sum()), abs=1e-9)


def test_as_one_text_it_does_not_matter_in_how_many_streams_it_is_read(model):
    ids = random_ids(31)
    if isinstance(model, TransformerModel):  # its state grows with what it has read
        with pytest.raises(ValueError, match="different lengths cannot be joined"):
            score(model, ids, num_streams=5, as_one=True)
        return
    one, five = score(model, ids, num_streams=1), score(model, ids, num_streams=5, as_one=True)
    # A state may be STATE_TOLERANCE from where it would be, and the logits a few times that.
    torch.testing.assert_close(five.nats, one.nats, rtol=0, atol=1e-4)


def test_whole_texts_have_the_log_probability_written_out(model):
    texts = torch.tensor([[1, 2, END_ID, END_ID], [3, 1, 4, END_ID], [END_ID] * 4])
    with torch.no_grad():
        found = text_log_probs(model, texts)
    for text, length, log_p in zip(texts, (3, 4, 1), found, strict=True):
        start = torch.tensor([END_ID])
        truth = log_probs(model, torch.cat([start, text[:length]])).sum()
        torch.testing.assert_close(log_p, truth, **SAME)


def test_a_tree_of_codes_has_the_log_probabilities_written_out(model):
    digits, prompt = torch.tensor([1, 3, 4]), torch.tensor([END_ID, 2])
    found = code_log_probs(model, prompt, digits, 3)
    for number, code in enumerate(itertools.product(digits.tolist(), repeat=3)):
        truth = log_probs(model, torch.tensor([END_ID, 2, *code]))[1:].sum()
        torch.testing.assert_close(found[number], truth, **SAME)


def test_a_cache_without_weight_and_a_learner_without_steps_score_as_the_model_does(model):
    ids = random_ids(31)
    plain = score(model, ids, num_streams=1).nats
    cache, config = ContinuousCacheConfig(weight=0.0), DynamicConfig(learning_rate=0.0, segment=7)
    if isinstance(model, NGramModel):
        with pytest.raises(ValueError, match="compares hidden states"):
            score_with_cache(model, ids, cache)
        with pytest.raises(ValueError, match="needs weights that require gradients"):
            score_dynamically(model, ids, config)
    else:
        cached = score_with_cache(model, ids, cache, window_length=7)
        torch.testing.assert_close(cached.nats, plain, rtol=1e-5, atol=1e-5)  # float32 mixtures
        learner = score_dynamically(model, ids, config).nats
        torch.testing.assert_close(learner.float(), plain, rtol=1e-5, atol=1e-5)


# --- tuning --------------------------------------------------------------------------------------


def test_every_model_with_weights_can_learn_from_pairs(model):
    if isinstance(model, NGramModel):
        pytest.skip("an n-gram model has no weights")
    chosen = torch.tensor([[1, 2, END_ID], [3, END_ID, END_ID]])
    pairs = Pairs(chosen=chosen, rejected=chosen.flip(0))
    reference = copy.deepcopy(model)
    records = train_dpo(model, reference, pairs, DPOConfig(), generator=make_generator(6))
    assert records[0].loss == pytest.approx(math.log(2))  # the policy is the reference
    same = zip(model.parameters(), reference.parameters(), strict=True)
    assert not all(torch.equal(new, old) for new, old in same)


@pytest.mark.parametrize(
    "name", ["vocabulary_size", "width", "num_layers", "num_heads", "max_length"]
)
def test_a_transformer_without_any_of_something_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        TransformerModel(**{"vocabulary_size": V, "width": 8, name: 0})


def test_the_heads_of_a_transformer_must_divide_its_width():
    with pytest.raises(ValueError, match="divisible by num_heads, got width 6 and num_heads 4"):
        TransformerModel(vocabulary_size=V, width=6)


@pytest.mark.parametrize("name", ["vocabulary_size", "embedding_size", "hidden_size"])
def test_a_recurrent_model_without_any_of_something_is_refused(name):
    sizes = {"vocabulary_size": V, "embedding_size": 6, "hidden_size": 8, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        RecurrentModel("GRU", **sizes)


def test_a_text_longer_than_a_model_reads_is_refused_with_the_streams_that_are_enough():
    model, ids = TransformerModel(vocabulary_size=V, width=8, max_length=10).eval(), random_ids(98)
    words = r"at most 10 tokens of a text, and each of 2 pieces has 49; give num_streams=10 or more"
    for refused in (
        lambda: score(model, ids, num_streams=2),
        lambda: evaluate(model, ids, num_streams=2),
        lambda: score_with_cache(model, ids, ContinuousCacheConfig(), num_streams=2),
        lambda: fit_temperature(model, ids, num_streams=2),
    ):
        with pytest.raises(ValueError, match=words):
            refused()
    assert len(score(model, ids, num_streams=10).nats) == 97
    with pytest.raises(ValueError, match="give num_streams=10 or more"):
        score(model, ids, num_streams=9)
    with pytest.raises(ValueError, match="in one stream, and TransformerModel reads at most 10"):
        choose_cache(model, ids)
