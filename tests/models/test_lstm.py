"""The model against nn.LSTM, against its own long run, and at the start of training."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from companion.losses.cross_entropy import token_nats
from companion.losses.training_loss import TrainingLoss
from companion.models.base import detach
from companion.models.lstm import (
    LSTMConfig,
    LSTMLanguageModel,
    VariationalDropout,
    lstm_cell,
    reference_lstm,
)


def small_model(**changes):
    settings = {"vocabulary_size": 11, "embedding_size": 5, "hidden_size": 7} | changes
    return LSTMLanguageModel(LSTMConfig(**settings)).eval()


def random_ids(*shape, vocabulary_size=11):
    return torch.randint(vocabulary_size, shape)


def double_lstm(num_layers):
    """nn.LSTM with inputs and a state that all need gradients, in float64."""
    lstm = nn.LSTM(3, 4, num_layers).double()
    inputs = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    state = tuple(
        torch.randn(num_layers, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    return lstm, inputs, state


# float64 and a few dozen operations a number: the order of sums may differ in the last digits.
SAME = {"rtol": 0, "atol": 1e-12}


def test_one_cell_step_equals_torchs_lstm_cell():
    cell = nn.LSTMCell(3, 4).double()
    x, h, c = (torch.randn(2, size, dtype=torch.float64) for size in (3, 4, 4))
    ours = lstm_cell(x, (h, c), cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh)
    torch.testing.assert_close(ours, cell(x, (h, c)), **SAME)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_reference_lstm_equals_torch_in_outputs_states_and_every_gradient(num_layers):
    lstm, inputs, state = double_lstm(num_layers)
    leaves = [inputs, *state, *lstm.parameters()]
    results = []
    for run in (lstm, lambda x, s: reference_lstm(lstm, x, s)):
        outputs, (h, c) = run(inputs, state)
        # Different weights for every number, so that no error can cancel in the sum.
        scale = torch.linspace(0.5, 2, outputs.numel(), dtype=torch.float64).view_as(outputs)
        loss = (outputs * scale).sum() + (h**2).sum() + (c**3).sum()
        results.append(((outputs, h, c), torch.autograd.grad(loss, leaves)))
    torch.testing.assert_close(results[1][0], results[0][0], **SAME)
    # Gradients reach ~100 here and sum over time and batch.
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("num_layers", [1, 3])
@settings(max_examples=15, deadline=None)
@given(cut=st.integers(1, 11))
def test_state_carried_over_two_windows_equals_one_long_window(num_layers, cut):
    model = small_model(num_layers=num_layers).double()
    ids = random_ids(2, 12)
    whole, whole_state = model(ids)
    first, state = model(ids[:, :cut])
    second, state = model(ids[:, cut:], detach(state))
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, **SAME)
    torch.testing.assert_close(state, whole_state, **SAME)


def test_a_state_of_none_means_zeros():
    model, ids = small_model(num_layers=2), random_ids(3, 4)
    assert torch.equal(model(ids)[0], model(ids, model.initial_state(3))[0])
    assert [part.shape for part in model.initial_state(3)] == [(2, 3, 7), (2, 3, 7)]


def test_no_output_depends_on_a_later_input():
    model, ids = small_model(num_layers=2), random_ids(1, 8)
    changed = ids.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 11
    before, after = model(ids)[0], model(changed)[0]
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("num_layers", [1, 2])
def test_perturbing_one_example_leaves_the_others_unchanged(num_layers):
    # The trap: a (B, T) batch in nn.LSTM's default layout recurs across examples.
    model, ids = small_model(num_layers=num_layers), random_ids(4, 6)
    changed = ids.clone()
    changed[0] = (changed[0] + 1) % 11
    (before, (h, c)), (after, (h2, c2)) = model(ids), model(changed)
    # Not bit for bit: a matrix product may sum rows in another order.
    tolerance = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(after[1:], before[1:], **tolerance)
    torch.testing.assert_close((h2[:, 1:], c2[:, 1:]), (h[:, 1:], c[:, 1:]), **tolerance)
    assert (after[0] - before[0]).abs().max() > 1e-3


def test_a_batch_gives_what_each_row_gives_alone():
    model, ids = small_model(num_layers=2), random_ids(3, 5)
    alone = torch.cat([model(row[None])[0] for row in ids])
    torch.testing.assert_close(model(ids)[0], alone, rtol=0, atol=1e-6)


def test_detach_cuts_both_h_and_c_and_keeps_their_values():
    model = small_model()
    _, state = model(random_ids(2, 3))
    assert all(part.requires_grad for part in state)
    cut = detach(state)
    assert not any(part.requires_grad for part in cut)
    assert all(torch.equal(a, b) for a, b in zip(cut, state, strict=True))


def test_gradients_stop_at_the_edge_of_a_detached_window():
    model = small_model()
    first, second = torch.tensor([[1, 2]]), torch.tensor([[3, 4]])
    for cut, reaches in ((detach, False), (lambda state: state, True)):
        model.zero_grad()
        _, state = model(first)
        model(second, cut(state))[0].sum().backward()
        touched = model.embedding.weight.grad[[1, 2]].abs().sum() > 0
        assert bool(touched) is reaches


@pytest.mark.parametrize("tie_weights", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_first_loss_is_the_log_of_the_vocabulary_size(tie_weights, num_layers):
    model = small_model(
        vocabulary_size=500, embedding_size=64, hidden_size=64,
        num_layers=num_layers, tie_weights=tie_weights,
    )  # fmt: skip
    ids = random_ids(16, 33, vocabulary_size=500)
    with torch.no_grad():
        loss = token_nats(model(ids[:, :-1])[0], ids[:, 1:]).mean()
    # |h| < 1 and output weights below 1/8 keep logits near zero: their spread adds ~var/2 nats.
    assert float(loss) == pytest.approx(math.log(500), abs=0.05)


def test_initial_weights_fill_the_bounds_they_are_drawn_from():
    """Uniform within 1 / sqrt(H): the largest of 7,000 draws is within a tenth of the bound."""
    torch.manual_seed(0)
    model = small_model(vocabulary_size=1000, hidden_size=7, embedding_size=40)
    bound = 1 / math.sqrt(7)
    recurrent = [layer.weight_ih_l0 for layer in model.lstm.modules() if isinstance(layer, nn.LSTM)]
    for weight in (model.output.weight, *recurrent):
        assert 0.9 * bound < weight.abs().max() <= bound
    assert not model.output.bias.any()
    assert abs(model.embedding.weight.std().item() - 1) < 0.05


def test_a_model_of_zeros_is_uniform():
    model = small_model()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    nats = token_nats(model(random_ids(2, 5))[0], random_ids(2, 5))
    torch.testing.assert_close(nats, torch.full((2, 5), math.log(11)))


def test_tied_weights_are_one_matrix_that_counts_once_and_gets_both_gradients():
    tied = small_model(embedding_size=7, tie_weights=True)
    free = small_model(embedding_size=7)
    assert tied.output.weight is tied.embedding.weight
    assert free.output.weight is not free.embedding.weight
    assert free.num_parameters - tied.num_parameters == 11 * 7

    free.load_state_dict(tied.state_dict())
    ids = torch.tensor([[1, 2, 3]])
    for model in (tied, free):
        token_nats(model(ids)[0], ids).sum().backward()
    both = free.embedding.weight.grad + free.output.weight.grad
    torch.testing.assert_close(tied.embedding.weight.grad, both)


def test_tied_weights_stay_tied_in_a_copy():
    model = copy.deepcopy(small_model(embedding_size=7, tie_weights=True))
    assert model.output.weight is model.embedding.weight


@pytest.mark.parametrize(("num_layers", "layer_inputs"), [(1, [5]), (2, [5, 7])])
def test_the_number_of_parameters_is_the_sum_worked_out_by_hand(num_layers, layer_inputs):
    # Per layer: 4 gates of H x (input + H) weights and two biases; nn.LSTM keeps both.
    layers = sum(4 * 7 * (size + 7) + 2 * 4 * 7 for size in layer_inputs)
    expected = 11 * 5 + layers + 11 * 7 + 11
    assert small_model(num_layers=num_layers).num_parameters == expected


def test_the_forget_bias_is_in_the_forget_gate_of_every_layer_and_nowhere_else():
    model = small_model(num_layers=2, forget_bias=3.0)
    for _, _, bias_ih, bias_hh in model.lstm.all_weights:
        gates = (bias_ih + bias_hh).view(4, 7)  # PyTorch's order: input, forget, cell, output
        assert torch.equal(gates, torch.tensor([0.0, 3.0, 0.0, 0.0])[:, None].expand(4, 7))


def test_a_large_forget_bias_makes_the_cell_remember():
    # The claim behind the placement: without input the cell keeps sigmoid(10) of itself a step.
    model = small_model(forget_bias=10.0)
    for name, parameter in model.named_parameters():
        if "bias" not in name:
            nn.init.zeros_(parameter)
    cell = torch.full((1, 1, 7), 0.5)
    _, (_, after) = model(random_ids(1, 20), (torch.zeros(1, 1, 7), cell))
    torch.testing.assert_close(after, cell * torch.sigmoid(torch.tensor(10.0)) ** 20)


def test_dropout_is_active_in_training_and_inert_in_evaluation():
    model, ids = small_model(num_layers=2, dropout=0.5), random_ids(2, 6)
    assert torch.equal(model(ids)[0], model(ids)[0])
    model.train()
    assert not torch.equal(model(ids)[0], model(ids)[0])


def test_dropout_reaches_embedding_layers_and_output_even_with_one_layer():
    # The trap: nn.LSTM's own dropout does nothing with one layer (and would warn).
    model = small_model(embedding_size=200, hidden_size=300, dropout=0.5).train()
    with torch.no_grad():
        features, _ = model.features(random_ids(4, 8))
    share = float((features == 0).float().mean())
    # 9,600 coin flips: standard deviation 0.005, four of them allowed.
    assert share == pytest.approx(0.5, abs=0.02)
    assert model.lstm.dropout == 0
    assert small_model(num_layers=2, dropout=0.5).lstm.dropout == 0.5


def test_the_same_seed_draws_the_same_weights():
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(torch.cat([p.flatten() for p in small_model().parameters()]))
    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


# --- AWD-LSTM's regularisation --------------------------------------------------------------------

REGULARISED = {
    "num_layers": 3, "variational": True, "weight_drop": 0.5, "embedding_dropout": 0.2,
    "dropout": 0.3, "input_dropout": 0.4, "layer_dropout": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_stack_of_layers_equals_torchs_lstm_in_evaluation(num_layers):
    plain = small_model(num_layers=num_layers)
    stacked = small_model(num_layers=num_layers, weight_drop=0.5)
    for index, layer in enumerate(stacked.lstm.layers):
        for name, parameter in layer.named_parameters():
            parameter.data.copy_(getattr(plain.lstm, name.replace("_l0", f"_l{index}")))
    stacked.embedding.load_state_dict(plain.embedding.state_dict())
    stacked.output.load_state_dict(plain.output.state_dict())
    ids = random_ids(3, 9)
    for state in (None, plain(ids)[1]):
        # float32, and another kernel call a layer.
        torch.testing.assert_close(stacked(ids, state), plain(ids, state), rtol=0, atol=1e-6)


@pytest.mark.parametrize("last_size", [None, 5])
def test_a_regularised_model_carries_its_state_as_a_plain_one_does(last_size):
    model = small_model(**REGULARISED, last_size=last_size).double()
    ids = random_ids(2, 12)
    whole, whole_state = model(ids)
    first, state = model(ids[:, :5])
    second, state = model(ids[:, 5:], detach(state))
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole, **SAME)
    torch.testing.assert_close(state, whole_state, **SAME)
    assert [part.shape for part in state] == [(3, 2, 7), (3, 2, 7)]


def test_a_narrow_last_layer_can_be_tied_to_the_embedding():
    model = small_model(**REGULARISED, last_size=5, tie_weights=True)
    assert model.output.weight is model.embedding.weight
    assert model.lstm.layers[-1].hidden_size == 5
    assert model(random_ids(2, 3))[0].shape == (2, 3, 11)


def test_weight_drop_drops_recurrent_weights_and_nothing_else_for_a_whole_call(monkeypatch):
    model = small_model(hidden_size=40, weight_drop=0.5).train()
    seen = []
    run = torch.lstm
    monkeypatch.setattr(torch, "lstm", lambda *args: (seen.append(args[2]), run(*args))[1])
    model(random_ids(2, 6))
    model(random_ids(2, 6))
    layer = model.lstm.layers[0]
    shares = []
    for weight_ih, weight_hh, bias_ih, bias_hh in seen:
        assert torch.equal(weight_ih, layer.weight_ih_l0)
        assert torch.equal(bias_ih, layer.bias_ih_l0)
        assert torch.equal(bias_hh, layer.bias_hh_l0)
        kept = weight_hh != 0
        # Those kept are scaled, so that the expected sum stays.
        torch.testing.assert_close(weight_hh[kept], 2 * layer.weight_hh_l0[kept])
        shares.append(float(kept.float().mean()))
        # cuDNN's fast path: one piece of memory, in its order.
        starts = [part.data_ptr() for part in (weight_ih, weight_hh, bias_ih, bias_hh)]
        sizes = [part.numel() * 4 for part in (weight_ih, weight_hh, bias_ih)]
        assert [b - a for a, b in itertools.pairwise(starts)] == sizes
    # 6,400 flips: standard deviation .006, four of them allowed.
    assert shares == pytest.approx([0.5, 0.5], abs=0.025)
    assert not torch.equal(seen[0][1], seen[1][1])  # one mask a call


def test_weight_drop_gives_gradients_to_the_weights_it_kept_and_only_to_them():
    model = small_model(weight_drop=0.5).train()
    model(random_ids(2, 6))[0].square().sum().backward()
    gradient = model.lstm.layers[0].weight_hh_l0.grad
    assert 0 < int((gradient == 0).sum()) < gradient.numel()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_variational_dropout_drops_the_same_columns_at_every_position():
    dropped = VariationalDropout(0.4)(torch.ones(7, 3, 500))
    assert torch.equal(dropped, dropped[:1].expand(7, 3, 500))
    assert not torch.equal(dropped[0, 0], dropped[0, 1])  # each row its own
    values = sorted(set(dropped.flatten().tolist()))
    assert values == pytest.approx([0.0, 1 / 0.6])
    # 1,500 flips: standard deviation .013, four of them allowed.
    assert float((dropped[0] == 0).float().mean()) == pytest.approx(0.4, abs=0.05)
    assert torch.equal(VariationalDropout(0.4).eval()(dropped), dropped)


def test_embedding_dropout_drops_a_token_everywhere_in_the_window():
    model = small_model(embedding_dropout=0.5, vocabulary_size=400).train()
    seen = []
    model.input_dropout.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    ids = random_ids(4, 300, vocabulary_size=400)
    model(ids)
    dropped = (seen[0] == 0).all(dim=-1).T  # (B, T)
    by_token = [set(dropped[ids == token].tolist()) for token in ids.unique().tolist()]
    assert all(len(kinds) == 1 for kinds in by_token)
    share = sum(kinds == {True} for kinds in by_token) / len(by_token)
    # About 380 flips: standard deviation .026, four of them allowed.
    assert share == pytest.approx(0.5, abs=0.11)


def test_each_dropout_is_inert_in_evaluation_and_active_in_training():
    ids = random_ids(2, 6)
    for name in ("weight_drop", "embedding_dropout", "input_dropout", "layer_dropout", "dropout"):
        model = small_model(num_layers=2, **{name: 0.5})
        assert torch.equal(model(ids)[0], model(ids)[0])
        model.train()
        assert not torch.equal(model(ids)[0], model(ids)[0]), name


def test_an_adaptive_softmax_gives_a_distribution_and_its_own_loss():
    model = small_model(vocabulary_size=50, hidden_size=16, adaptive_cutoffs=(10, 25))
    ids = random_ids(3, 8, vocabulary_size=50)
    log_probs, _ = model(ids)
    assert log_probs.shape == (3, 8, 50)
    torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(3, 8))
    targets = random_ids(3, 8, vocabulary_size=50)
    loss, nats, _ = TrainingLoss(model)(ids, targets, None)
    # log_prob and the training loss go through other operations, all in float32.
    torch.testing.assert_close(nats, token_nats(log_probs, targets).sum(), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(loss.detach(), nats)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocabulary_size": 0}, "vocabulary_size must be >= 1, got 0"),
        ({"embedding_size": -1}, "embedding_size must be >= 1, got -1"),
        ({"hidden_size": 0}, "hidden_size must be >= 1, got 0"),
        ({"num_layers": 0}, "num_layers must be >= 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
        ({"dropout": math.nan}, "dropout"),
        ({"tie_weights": True}, "embedding_size == hidden_size, got 5 and 7"),
        ({"forget_bias": math.nan}, "forget_bias must be finite, got nan"),
        ({"weight_drop": 1.0}, r"weight_drop must be in \[0, 1\), got 1.0"),
        ({"input_dropout": -1.0}, r"input_dropout must be in \[0, 1\), got -1.0"),
        ({"last_size": 8}, "last_size must be at most hidden_size, 7, got 8"),
        ({"last_size": 6, "tie_weights": True}, "embedding_size == last_size, got 5 and 6"),
        ({"adaptive_cutoffs": (5, 5)}, "adaptive_cutoffs must rise"),
        ({"adaptive_cutoffs": (5, 11)}, "adaptive_cutoffs must rise"),
        (
            {"adaptive_cutoffs": (5,), "tie_weights": True, "embedding_size": 7},
            "cannot be combined with tie_weights",
        ),
    ],
)
def test_a_configuration_that_makes_no_model_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_model(**changes)
