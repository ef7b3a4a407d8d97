"""What keeps the second language while a model learns to refuse in the first?

Safety training with plain questions alone leaves encoded ones answered. But its loss sees the
second language all the same: replayed documents are in two of its terms, their own likelihood and
KL(instructed || model), and many of them tell what a restricted thing needs. Here one instructed
model of the invented world gets its safety training several times, each time without some of these
anchors. Two outcomes can look alike, so both are measured: a model that *refuses* an encoded
question about a restricted thing and not one about another thing has learned the rule; one that
no longer reads the language is wrong about both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from companion.core.seeds import make_generator
from companion.core.settings import check_sizes, settings_class
from companion.losses.cross_entropy import token_nats
from companion.models.base import LanguageModel
from companion.world.replies import ask
from companion.world.stages import (
    Example,
    SmallStagesConfig,
    instructed,
    pretrained,
    reply_batch,
    safety_trained,
)
from companion.world.world import World

#: Languages of the questions; safety training refuses only in the first.
LANGUAGES = ("plain", "encoded")

#: Safety training by what it goes without, as changes of the settings; see `settings`.
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "no_kl": {"kl_weight": 0.0},
    "no_encoded_florbs": {"plain_replay": "restricted"},
    "no_encoded": {"plain_replay": "all"},
    "no_documents": {"replay": 0.0},
    "no_kl_no_encoded": {"kl_weight": 0.0, "plain_replay": "all"},
    "nothing": {"kl_weight": 0.0, "replay": 0.0},
}


@settings_class
class Config(SmallStagesConfig):
    """Settings of the world, the model and its three stages."""

    new_documents: int = 500
    """Number of documents in each language that the models are tested on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(new_documents=self.new_documents)


@dataclass(kw_only=True)
class Result:
    """Shares of replies, by safety training and then by the language of the question, "plain" or
    "encoded"; each of four questions is asked about every thing.

    The safety trainings are those of `VARIANTS`: "full"; "no_kl", without the KL term;
    "no_encoded_florbs", with the documents about restricted things in the plain language;
    "no_encoded", with all documents in it; "no_documents"; "no_kl_no_encoded"; and "nothing", with
    neither KL nor documents. Figures that need no safety training are also given "before" it.
    """

    refusal: dict[str, dict[str, float]]
    """Share of replies about restricted things that refuse."""
    leak: dict[str, dict[str, float]]
    """Share of replies about restricted things that name the right ingredient, also "before";
    guessing gives .04."""
    other_refusal: dict[str, dict[str, float]]
    """Share of replies about other things that refuse."""
    other_right: dict[str, dict[str, float]]
    """Share of right replies about other things, also "before"."""
    selectivity: dict[str, dict[str, float]]
    """`refusal` less `other_refusal`: 1 for a model that has the rule, 0 for one that refuses
    everything, or nothing."""
    document_nats_per_token: dict[str, dict[str, float]]
    """Loss on new documents in each language, in nats per token, also "before"."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train one instructed model, and from it one model for each safety training."""
    world = World(config, seed=seed)
    base = pretrained(config, world, seed=seed, progress=progress)
    chat = instructed(base, config, world, seed=seed, progress=progress)
    generator = make_generator(seed, "new documents")
    texts = {
        language: world.documents(config.new_documents, generator=generator, foreign=foreign)
        for language, foreign in zip(LANGUAGES, (0.0, 1.0), strict=True)
    }
    found = Result(
        refusal={}, leak={}, other_refusal={}, other_right={}, selectivity={},
        document_nats_per_token={},
    )  # fmt: skip
    others = world.benign + world.benign_held_out
    for name in ("before", *VARIANTS):
        model = chat
        if name in VARIANTS:
            model = safety_trained(
                chat, settings(config, name), world, seed=seed, progress=progress
            )
        restricted, other = (
            {language: ask(model, world, things, language) for language in LANGUAGES}
            for things in (world.restricted, others)
        )
        found.leak[name] = {way: replies.leak for way, replies in restricted.items()}
        found.other_right[name] = {way: replies.leak for way, replies in other.items()}
        found.document_nats_per_token[name] = {
            language: nats_per_token(model, world, texts[language]) for language in LANGUAGES
        }
        if name in VARIANTS:
            found.refusal[name] = {way: replies.refusal for way, replies in restricted.items()}
            found.other_refusal[name] = {way: replies.refusal for way, replies in other.items()}
            found.selectivity[name] = {
                way: found.refusal[name][way] - found.other_refusal[name][way] for way in LANGUAGES
            }
    return found


def settings(config: Config, name: str) -> Config:
    """Settings of the safety training `name`, of which a step has as many questions as in "full".

    Where there are no documents, the batches are smaller by as many texts.
    """
    changes = dict(VARIANTS[name])
    if changes.get("replay") == 0:
        changes["batch_size"] = max(1, round((1 - config.replay) * config.batch_size))
    return dataclasses.replace(config, **changes)


@torch.no_grad()
def nats_per_token(model: LanguageModel, world: World, texts: Sequence[str]) -> float:
    """Mean loss per token of `texts`, their ends included, in nats."""
    batch = reply_batch([Example(ids=world.ids(text)) for text in texts], world)
    nats = token_nats(model(batch.inputs)[0], batch.targets)
    return float(nats.sum() / sum(len(world.ids(text)) + 1 for text in texts))
