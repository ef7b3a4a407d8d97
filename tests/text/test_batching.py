"""Batching keeps order and count: no token lost, none doubled, none out of place."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.text.batching import (
    IGNORE,
    Batch,
    jittered_cuts,
    num_windows,
    padded,
    scoring_streams,
    streams,
    window,
    windows,
)

# Ids that are all different, so that any misplacement shows.
texts = st.integers(2, 200).map(torch.arange)


@settings(deadline=None)
@given(texts, st.integers(1, 20), st.integers(1, 40))
def test_windows_targets_in_stream_order_give_back_the_text(ids, num_streams, window_length):
    if ids.numel() - 1 < num_streams:
        return
    batches = list(windows(streams(ids, num_streams), window_length))
    targets = torch.cat([batch.targets for batch in batches], dim=1).flatten()
    lost = (ids.numel() - 1) % num_streams  # fewer than num_streams, at the very end
    assert torch.equal(targets, ids[1 : ids.numel() - lost])
    inputs = torch.cat([batch.inputs for batch in batches], dim=1).flatten()
    assert torch.equal(inputs, ids[: ids.numel() - 1 - lost])


@settings(deadline=None)
@given(texts, st.integers(1, 20), st.integers(1, 40))
def test_every_target_is_the_token_after_its_input(ids, num_streams, window_length):
    if ids.numel() - 1 < num_streams:
        return
    for batch in windows(streams(ids, num_streams), window_length):
        assert torch.equal(batch.targets, batch.inputs + 1)  # the ids count up


@settings(deadline=None)
@given(texts, st.integers(1, 20), st.integers(1, 40))
def test_each_window_goes_on_where_the_one_before_it_ended(ids, num_streams, window_length):
    if ids.numel() - 1 < num_streams:
        return
    data = streams(ids, num_streams)
    batches = list(windows(data, window_length))
    assert len(batches) == num_windows(data, window_length)
    for earlier, later in itertools.pairwise(batches):
        assert torch.equal(later.inputs[:, 0], earlier.targets[:, -1])
        assert earlier.inputs.shape[1] == window_length  # only the last may be shorter
    assert 1 <= batches[-1].inputs.shape[1] <= window_length


@settings(deadline=None)
@given(texts, st.integers(1, 20))
def test_each_stream_goes_on_where_the_one_above_it_ended(ids, num_streams):
    if ids.numel() - 1 < num_streams:
        return
    data = streams(ids, num_streams)
    assert torch.equal(data[1:, 0], data[:-1, -1])


def test_streams_of_a_small_text_are_these():
    assert streams(torch.arange(8), 2).tolist() == [[0, 1, 2, 3], [3, 4, 5, 6]]


@settings(deadline=None)
@given(texts, st.integers(1, 300))
def test_scoring_streams_miss_no_target_and_keep_the_order(ids, num_streams):
    batch = scoring_streams(ids, num_streams)
    kept = batch.targets != IGNORE
    assert torch.equal(batch.targets[kept], ids[1:])
    assert torch.equal(batch.inputs[kept], ids[:-1])
    assert batch.num_targets == ids.numel() - 1
    # Padding comes only after a row's last target, so no state read before a target has seen any.
    assert not (kept[:, 1:] & ~kept[:, :-1]).any()


def test_padded_rows_read_the_start_and_predict_the_end():
    batch = padded([torch.tensor([5, 6, 7]), torch.tensor([8])], start_id=1, end_id=2)
    assert batch.inputs.tolist() == [[1, 5, 6, 7], [1, 8, 2, 2]]
    assert batch.targets.tolist() == [[5, 6, 7, 2], [8, 2, IGNORE, IGNORE]]
    assert batch.num_targets == 6


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(3, 9), max_size=7), min_size=1, max_size=6))
def test_padding_masks_exactly_what_is_no_part_of_a_sentence(sentences):
    batch = padded([torch.tensor(s, dtype=torch.long) for s in sentences], start_id=0, end_id=1)
    for row, sentence in enumerate(sentences):
        kept = batch.targets[row] != IGNORE
        assert batch.targets[row][kept].tolist() == [*sentence, 1]
        assert batch.inputs[row][kept].tolist() == [0, *sentence]
    assert batch.num_targets == sum(len(s) + 1 for s in sentences)


@pytest.mark.parametrize("num_streams", [0, -1])
def test_fewer_than_one_stream_is_refused(num_streams):
    for cut in (streams, scoring_streams):
        with pytest.raises(ValueError, match=f"num_streams must be >= 1, got {num_streams}"):
            cut(torch.arange(10), num_streams)


def test_a_text_too_short_for_its_streams_is_refused_with_what_to_do():
    with pytest.raises(
        ValueError, match=r"has 4 tokens, too few for 4 streams; .* a smaller num_streams"
    ):
        streams(torch.arange(4), 4)
    streams(torch.arange(5), 4)
    for short in (0, 1):
        with pytest.raises(ValueError, match=f"at least 2 tokens, got {short}"):
            scoring_streams(torch.arange(short), 3)


def test_windows_that_do_not_exist_are_refused_instead_of_empty():
    data = streams(torch.arange(10), 3)
    for bad_length in (0, -2):
        with pytest.raises(ValueError, match="window_length must be >= 1"):
            list(windows(data, bad_length))
        with pytest.raises(ValueError, match="window_length must be >= 1"):
            window(data, 0, bad_length)
    for bad_index in (-1, 2):
        with pytest.raises(ValueError, match=r"index must be in \[0, 2\)"):
            window(data, bad_index, 2)


@given(st.integers(1, 20), st.integers(2, 200), st.integers(0, 2**32))
def test_no_window_is_empty_however_large_the_jitter(window_length, total, seed):
    generator = torch.Generator().manual_seed(seed)
    edges = jittered_cuts(total, window_length, 1e6, generator)  # all edges move as far as they may
    assert (edges[0], edges[-1]) == (0, total)
    assert len(edges) == -(-total // window_length) + 1
    assert all(left < right for left, right in itertools.pairwise(edges))


def test_all_edges_move_left_by_up_to_half_a_window_and_each_by_the_jitter_besides():
    shared = []
    for seed in range(50):
        edges = jittered_cuts(100_000, 100, 3.0, torch.Generator().manual_seed(seed))
        moves = torch.tensor(edges[1:-1]).double() - 100 * torch.arange(1, 1000)
        # Five standard errors of a deviation over 999 edges are 11 %.
        assert float(moves.std()) == pytest.approx(3, rel=0.11)
        shared.append(float(moves.mean()))
    # Uniform in [-49, 0], seen 50 times, to within the error of a mean.
    assert -49.5 < min(shared) < -40
    assert -9 < max(shared) < 0.5


def test_a_batch_of_no_sentences_is_refused():
    with pytest.raises(ValueError, match="at least one sentence"):
        padded([], start_id=0, end_id=1)


@pytest.mark.usefixtures("annotations_checked")
def test_inputs_and_targets_of_different_shapes_are_no_batch():
    # The run-time check of the annotations: one shape for both fields.
    with pytest.raises(TypeError):
        Batch(
            inputs=torch.zeros(2, 3, dtype=torch.long), targets=torch.zeros(3, 2, dtype=torch.long)
        )
