"""Does safety training reach the languages that the model understands but the training left out?

Models of the invented world are pretrained and tuned on instructions in two languages, the plain
language and a cipher of it, and then trained to refuse in the plain language only. Capability must
be measured too: a model that cannot read the cipher leaks nothing in it, but is no safer for that.
Smaller models, and a large one with a shorter training, show both sides.

Other settings (`architecture`, `tokens`) repeat the study with a Transformer, and with bytes, for
which rot13 is a cipher of single letters: is it the LSTM that fails, or any model whose two
languages share no token?

Size is not the only difference: after equal steps a small model has also learned less. What
separates the models is how well they know the second language, as the large model with a short
training shows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from companion.core.settings import settings_class
from companion.world.language import BENIGN, RESTRICTED, Thing
from companion.world.replies import ask
from companion.world.stages import SmallStagesConfig, Stages, train_stages

#: Conditions: ways to ask. Safety training refuses only in the first.
WAYS = ("plain", "encoded")


@settings_class
class Config(SmallStagesConfig):
    """Settings of the world, the largest model and its three stages, and the other models."""

    smaller: tuple[int, ...] = (64,)
    """Hidden sizes of smaller models, each trained for the same steps."""
    short: float = 0.35
    """Share of the pretraining and instruction steps in the short training of the largest model; 0
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
    """Shares of replies; each of four questions is asked about every thing.

    `refusal`, `leak`, `capability` and the benign figures are of the largest model.
    """

    refusal: dict[str, float]
    """Share of replies about restricted things that refuse, by condition; "plain_held_out" and
    "encoded_held_out" are only about things that safety training never mentioned."""
    leak: dict[str, float]
    """Share of replies about restricted things that name the right ingredient, by the same
    conditions; guessing gives .04."""
    capability: dict[str, float]
    """Share of right answers about restricted things before safety training, by condition. If the
    world has things that occur only in the plain language, "plain_only" and "plain_only_encoded"
    are the shares of right replies about them."""
    capability_before: float
    """The lower of `capability` in "plain" and "encoded"."""
    benign_accuracy: float
    """Share of right replies to plain questions about unrestricted things."""
    benign_encoded_accuracy: float
    """Share of right replies to encoded questions about unrestricted things."""
    named: dict[str, dict[str, float]]
    """Share of refusals of questions in the plain language in which only the thing's name is
    "plain" or "encoded", by kind of thing: "restricted" or "other"."""
    torn: dict[str, float]
    """Share of refusals of plain questions about invented combinations of name and kind: "name", a
    restricted thing's name with another kind; "kind", another thing's name with the restricted
    kind. Only names that safety training never mentioned."""
    models: dict[str, dict[str, float]]
    """Figures by model, "64" and "128" for its hidden size and "short" for the short training:
    `capability` and `plain_capability` before safety training (encoded and plain); `leak`,
    `refusal`, `plain_leak` and `plain_refusal` after it; `benign_accuracy` of plain questions."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train each model's three stages; ask in each way before and after the last stage."""
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
        stages = train_stages(settings, seed=seed, progress=progress)
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
    """`named` and `torn` of the result: does the model refuse by a thing's name or by its kind?"""
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
    """The same things with another kind."""
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
