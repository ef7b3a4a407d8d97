"""What the study of what keeps the second language changes, and what it measures."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch

from companion.studies import anchors
from companion.world import stages
from companion.world.replies import Replies
from companion.world.world import World

TINY: dict[str, Any] = {
    "seen": 2, "held_out": 1, "benign": 2, "benign_held_out": 1, "unknown": 1, "hidden_size": 12,
    "batch_size": 5, "num_texts": 64, "pretrain_steps": 3, "instruct_steps": 3, "safety_steps": 2,
    "new_documents": 8,
}  # fmt: skip


def tiny() -> anchors.Config:
    return anchors.Config(**TINY)


def test_every_safety_training_is_measured_in_both_languages() -> None:
    result = dataclasses.asdict(anchors.run(tiny(), seed=1))
    assert json.loads(json.dumps(result)) == result
    after = set(anchors.VARIANTS)
    for key, by_variant in result.items():
        whole = key in ("leak", "other_right", "document_nats_per_token")
        assert set(by_variant) == (after | {"before"} if whole else after)
        assert all(set(figures) == {"plain", "encoded"} for figures in by_variant.values())


def test_each_safety_training_goes_without_what_its_name_says() -> None:
    config = dataclasses.replace(tiny(), batch_size=50)
    changed = {
        name: {
            field: value
            for field, value in dataclasses.asdict(anchors.settings(config, name)).items()
            if value != getattr(config, field)
        }
        for name in anchors.VARIANTS
    }
    assert changed == {
        "full": {},
        "no_kl": {"kl_weight": 0},
        "no_encoded_florbs": {"plain_replay": "restricted"},
        "no_encoded": {"plain_replay": "all"},
        "no_documents": {"replay": 0, "batch_size": 30},  # as many questions as of 50 with 40 %
        "no_kl_no_encoded": {"kl_weight": 0, "plain_replay": "all"},
        "nothing": {"kl_weight": 0, "replay": 0, "batch_size": 30},
    }


def test_a_model_with_the_rule_in_one_language_is_told_from_one_that_refuses_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Plainly it refuses florbs; encoded, everything."""

    def by_kind(_: Any, __: World, things: Any, way: str) -> Replies:
        share = sum(thing.name.endswith(" florb") for thing in things) / len(things)
        refusal = share if way == "plain" else 1.0
        return Replies(refusal=refusal, leak=1 - refusal, texts=())

    monkeypatch.setattr(anchors, "ask", by_kind)
    found = anchors.run(tiny(), seed=0)
    for name in anchors.VARIANTS:
        assert found.selectivity[name] == {"plain": 1, "encoded": 0}
        assert found.other_right[name] == {"plain": 1, "encoded": 0}


def test_the_loss_on_documents_is_the_mean_over_their_words_and_ends() -> None:
    world = World(tiny(), seed=0)
    torch.manual_seed(0)
    model = stages.new_model(tiny(), world).eval()
    texts = ["i saw a", "you need"]
    expected = []
    for text in texts:
        end = world.tokenizer.end_id
        ids = [end, *world.ids(text).tolist(), end]
        with torch.no_grad():
            logs = model(torch.tensor([ids[:-1]]))[0][0].log_softmax(dim=-1)
        expected += [-float(logs[place, word]) for place, word in enumerate(ids[1:])]
    assert len(expected) == 3 + 1 + 2 + 1
    # Summed in another order, in single precision.
    mean = math.fsum(expected) / len(expected)
    assert anchors.nats_per_token(model, world, texts) == pytest.approx(mean, abs=1e-5)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="new_documents must be >= 1, got 0"):
        dataclasses.replace(tiny(), new_documents=0)
