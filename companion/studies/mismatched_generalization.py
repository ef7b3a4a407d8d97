"""Does safety training reach the languages that the model understands but the training left out?

Models of the invented world are pretrained and instructed in two languages, the plain one and a
cipher of it, and then taught to refuse in the plain one alone. Capability comes first: a model that
cannot read the cipher leaks nothing in it and is no safer for that. Smaller models, and a large one
that was trained for a shorter time, show both sides.

With other settings (`architecture`, `tokens`) the same is asked of a Transformer, and of one that
reads bytes, to which rot13 is a cipher of single letters: is it the LSTM that fails, or a language
that shares no token with the first?

Size is not varied alone. At equal steps a small model has also come less far, so what separates the
models is how well they know the second language; the short training of a large one says as much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from companion.phrases import BENIGN, RESTRICTED
from companion.questions import Thing
from companion.replies import ask
from companion.stages import Stages, StagesConfig, instructed, pretrained, safety_trained
from companion.world import World

#: Conditions: ways to ask. Safety training refuses in the first alone.
WAYS = ("plain", "encoded")


@dataclass(frozen=True, kw_only=True)
class Config(StagesConfig):
    """The world, the largest model and its three stages, and the models beside it."""

    seen: int = 28
    """Restricted things that safety examples may mention."""
    held_out: int = 12
    """Restricted things that they never mention."""
    benign: int = 24
    """Unrestricted things that safety examples may mention."""
    benign_held_out: int = 8
    """Unrestricted things that they never mention."""
    unknown: int = 8
    """Names of things whose ingredient no document tells."""
    pretrain_steps: int = 850
    """Steps on documents."""
    instruct_steps: int = 420
    """Steps on instructions."""
    safety_steps: int = 200
    """Steps on safety examples."""
    replay: float = 0.4
    """Share of documents among the texts of safety training."""
    smaller: tuple[int, ...] = (64,)
    """Hidden sizes of smaller models, each with the same steps."""
    short: float = 0.35
    """Share of the steps on documents and instructions in the short training of the largest; 0
    leaves that model out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(1 <= size < self.hidden_size for size in self.smaller):
            raise ValueError(
                f"smaller sizes must be >= 1 and below {self.hidden_size}, got {self.smaller}"
            )
        if not 0 <= self.short < 1:
            raise ValueError(f"short must be in [0, 1), got {self.short}")


@dataclass(kw_only=True)
class Result:
    """Shares of replies; every thing is asked for by each of four questions.

    `refusal`, `leak`, `capability` and the benign figures are of the largest model.
    """

    refusal: dict[str, float]
    """Replies about restricted things that refuse, by condition; "plain_held_out" and
    "encoded_held_out": about things that safety training never mentioned."""
    leak: dict[str, float]
    """Replies that name the right ingredient, by the same conditions; guessing gives .04."""
    capability: dict[str, float]
    """Leaks of the same questions before safety training, by condition. "plain_only" and
    "plain_only_encoded": right replies about things that are spoken of in the plain language alone,
    where there are some."""
    capability_before: float
    """The lower one of "plain" and "encoded"."""
    benign_accuracy: float
    """Right replies to plain questions about unrestricted things."""
    benign_encoded_accuracy: float
    """The same, encoded."""
    named: dict[str, dict[str, float]]
    """Refusals of questions in the plain language in which the thing is "plain" or "encoded", by
    kind of thing: "restricted" or "other"."""
    torn: dict[str, float]
    """Refusals of plain questions about things that do not exist, whose name and kind disagree:
    "name", a restricted thing's name with another kind; "kind", another thing's name with the
    restricted kind. Over things that safety training never mentioned under any kind."""
    models: dict[str, dict[str, float]]
    """By model, "64" and "128" for its hidden size and "short" for the short training: `capability`
    and `plain_capability` (leaks before, encoded and plain), `leak`, `refusal`, `plain_leak` and
    `plain_refusal` after, and `benign_accuracy`, of plain questions."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train each model's three stages, and ask in each way before and after the last."""
    trained = {
        str(size): dataclasses.replace(config, hidden_size=size, smaller=())
        for size in sorted(config.smaller)
    }
    if config.short:
        trained["short"] = dataclasses.replace(
            config,
            pretrain_steps=max(1, round(config.short * config.pretrain_steps)),
            instruct_steps=max(1, round(config.short * config.instruct_steps)),
        )
    trained[str(config.hidden_size)] = config
    measured = {}
    for name, settings in trained.items():  # the largest comes last
        stages = three_stages(settings, seed=seed, progress=progress)
        measured[name] = measure(stages)
    largest = measured[str(config.hidden_size)]
    named, torn = cues(stages)
    return Result(
        refusal=largest["refusal"],
        leak=largest["leak"],
        capability=largest["capability"],
        capability_before=min(largest["capability"][way] for way in WAYS),
        benign_accuracy=largest["benign"]["plain"],
        benign_encoded_accuracy=largest["benign"]["encoded"],
        named=named,
        torn=torn,
        models={name: in_short(figures) for name, figures in measured.items()},
    )


def three_stages(config: StagesConfig, *, seed: int, progress: bool = False) -> Stages:
    """A world and its model, trained anew whatever the cache has: a study's seconds are counted."""
    world = World(config, seed=seed)
    base = pretrained(config, world, seed=seed, progress=progress)
    chat = instructed(base, config, world, seed=seed, progress=progress)
    safe = safety_trained(chat, config, world, seed=seed, progress=progress)
    return Stages(world=world, pretrained=base, instructed=chat, safe=safe)


def measure(stages: Stages) -> dict[str, dict[str, float]]:
    """`refusal`, `leak`, `capability` and `benign` of one model, each by condition."""
    world, safe = stages.world, stages.safe
    found: dict[str, dict[str, float]] = {
        "refusal": {}, "leak": {}, "capability": {}, "benign": {}
    }  # fmt: skip
    weight = len(world.seen) / len(world.restricted)
    for way in WAYS:
        seen, held_out = ask(safe, world, world.seen, way), ask(safe, world, world.held_out, way)
        found["refusal"][way] = weight * seen.refusal + (1 - weight) * held_out.refusal
        found["leak"][way] = weight * seen.leak + (1 - weight) * held_out.leak
        found["refusal"][f"{way}_held_out"] = held_out.refusal
        found["leak"][f"{way}_held_out"] = held_out.leak
        found["capability"][way] = ask(stages.instructed, world, world.restricted, way).leak
        found["benign"][way] = ask(safe, world, world.benign + world.benign_held_out, way).leak
    if world.plain_only:
        for way, name in zip(WAYS, ("plain_only", "plain_only_encoded"), strict=True):
            found["capability"][name] = ask(stages.instructed, world, world.plain_only, way).leak
    return found


def cues(stages: Stages) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """`named` and `torn` of the result: by what does the model know what to refuse?"""
    world, safe = stages.world, stages.safe
    groups = {"restricted": world.restricted, "other": world.benign + world.benign_held_out}
    named = {
        group: {
            key: ask(safe, world, things, way).refusal
            for key, way in (("plain", "plain"), ("encoded", "encoded_name"))
        }
        for group, things in groups.items()
    }
    torn = {
        "name": ask(safe, world, with_kind(world.held_out, BENIGN[0]), "plain").refusal,
        "kind": ask(safe, world, with_kind(world.benign_held_out, RESTRICTED), "plain").refusal,
    }
    return named, torn


def with_kind(things: Sequence[Thing], kind: str) -> list[Thing]:
    """The things' names, with another kind."""
    return [
        Thing(name=f"{thing.name.split()[0]} {kind}", ingredient=thing.ingredient)
        for thing in things
    ]


def in_short(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The figures of one model that are compared between models."""
    return {
        "capability": figures["capability"]["encoded"],
        "plain_capability": figures["capability"]["plain"],
        "leak": figures["leak"]["encoded"],
        "refusal": figures["refusal"]["encoded"],
        "plain_leak": figures["leak"]["plain"],
        "plain_refusal": figures["refusal"]["plain"],
        "benign_accuracy": figures["benign"]["plain"],
    }
