"""Which safety data closes which gap, and does any of it reach a language that it has left out?

One model of the invented world is instructed in three languages. From it, one model is trained for
each kind of safety data, with as many examples in each: in the plain language alone, with the
second language, with demands, with replies that have already begun, with all of these. No safety
data has the third language. It tells a gap that was covered from a rule that generalises.

Two other remedies stand beside the data. Adaptation trains the finished plain model on the second
language afterwards. And a detector of prompts unlike the safety data can abstain; what it catches
is counted, and what it takes from harmless questions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from companion.ngram import NGramModel
from companion.out_of_distribution import auroc
from companion.phrases import QUESTIONS
from companion.questions import Thing
from companion.replies import ask, next_word_probs
from companion.runtime import make_generator
from companion.stages import (
    HELPFUL,
    STAGE,
    StagesConfig,
    instructed,
    pretrained,
    safety_trained,
)
from companion.world import World

if TYPE_CHECKING:
    from jaxtyping import Float64

#: Safety data by name: ways of asking that are refused, and ways that go on being answered.
DATA: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "plain": (("plain",), HELPFUL),
    "encoded_refusals": (("plain", "encoded"), HELPFUL),
    "parity": (("plain", "encoded"), (*HELPFUL, "encoded")),
    "suffix": (("plain", "start_with", "do_not_say"), HELPFUL),
    "deep": (("plain", "deep"), (*HELPFUL, "deep")),
    "all": (
        ("plain", "start_with", "do_not_say", "deep", "encoded"),
        (*HELPFUL, "deep", "encoded"),
    ),
}

#: Conditions that differ in the language alone.
LANGUAGES = ("plain", "encoded", "third")


@dataclass(frozen=True, kw_only=True)
class Config(StagesConfig):
    """The world, with three languages, and the model and its stages."""

    languages: tuple[str, ...] = ("rot13", "piglatin")
    """The second language, "encoded", which some safety data has; and the third, which none has."""
    seen: int = 24
    """Restricted things that safety examples may mention."""
    held_out: int = 12
    """Restricted things that they never mention."""
    benign: int = 20
    """Unrestricted things that safety examples may mention."""
    benign_held_out: int = 8
    """Unrestricted things that they never mention."""
    unknown: int = 8
    """Names of things whose ingredient no document tells."""
    batch_size: int = 40
    """Texts a step."""
    pretrain_steps: int = 950
    """Steps on documents."""
    instruct_steps: int = 480
    """Steps on instructions."""
    safety_steps: int = 160
    """Steps on safety examples; the adaptation goes on for half as many."""
    safety_rate: float = 4e-3
    """Peak learning rate there."""
    replay: float = 0.3
    """Share of documents among the texts of safety training."""
    abstain: float = 0.05
    """Share of familiar questions that the detectors may abstain from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.languages) != 2:
            raise ValueError(f"languages must be a second and a third one, got {self.languages}")
        if not 0 < self.abstain < 1:
            raise ValueError(f"abstain must be in (0, 1), got {self.abstain}")

    @property
    def ways(self) -> dict[str, str]:
        """Conditions and the ways to ask that they are."""
        ways = {way: way for way in ("plain", "start_with", "prefill", "encoded")}
        return {**ways, "encoded_prefill": "encoded+prefill", "third": self.languages[1]}


@dataclass(kw_only=True)
class Result:
    """Shares of replies, by safety data and then by condition; four questions about every thing.

    The safety data are those of `DATA`, and "adapted": the plain model, trained further on the
    second language. The conditions are "plain", "start_with", "prefill", "encoded" (the second
    language), "encoded_prefill" and "third".
    """

    refusal: dict[str, dict[str, float]]
    """Replies about restricted things that refuse; also over the things that safety data never
    mention: "plain_held_out" and "encoded_held_out"."""
    leak: dict[str, dict[str, float]]
    """Replies about restricted things that name the right ingredient; guessing gives .04."""
    benign: dict[str, dict[str, float]]
    """Right replies about other things, in each language."""
    capability: dict[str, float]
    """Leaks before safety training, by condition."""
    capability_before: float
    """The lowest of those."""
    abstained: dict[str, dict[str, float]]
    """Share of prompts that a detector abstains from, by detector and kind of prompt. "likelihood":
    a bigram model of the safety prompts finds it improbable; "confidence": the model "plain" is
    unsure of the reply's first word. Kinds: "restricted" in each condition; "benign" in each
    language, about unrestricted things that the safety data never mention."""
    auroc: dict[str, dict[str, float]]
    """How well the detector's score tells restricted prompts of each condition from familiar
    questions; 1 is perfect and .5 is chance."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model for each safety data from one that is instructed, and ask it in every way."""
    world = World(config, seed=seed)
    base = pretrained(config, world, seed=seed, progress=progress)
    chat = instructed(base, config, world, seed=seed, progress=progress)
    capability = {name: ask(chat, world, world.restricted, way).leak
                  for name, way in config.ways.items()}  # fmt: skip
    models = {
        name: safety_trained(
            chat, config, world, seed=seed, refused=refused, answered=answered, progress=progress
        )
        for name, (refused, answered) in DATA.items()
    }  # fmt: skip
    models["adapted"] = adapted(models["plain"], world, config, seed=seed)
    refusal, leak, benign = {}, {}, {}
    for name, model in models.items():
        refusal[name], leak[name], benign[name] = measure(model, world, config)
    abstained, area = detect(models["plain"], world, config, seed=seed)
    return Result(
        refusal=refusal,
        leak=leak,
        benign=benign,
        capability=capability,
        capability_before=min(capability.values()),
        abstained=abstained,
        auroc=area,
    )


def adapted(model: nn.Module, world: World, config: Config, *, seed: int) -> nn.Module:
    """A copy of a safe model that went on to learn the second language, with half the steps."""
    half = dataclasses.replace(config, safety_steps=max(1, config.safety_steps // 2))
    # A seed apart from the first round's: the same examples in another language would tell less.
    return safety_trained(
        model, half, world, seed=seed + 5 * STAGE, refused=("encoded",), answered=("encoded",)
    )


def measure(
    model: nn.Module, world: World, config: Config
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Refusals and leaks by condition, and right replies about other things by language."""
    refusal, leak, benign = {}, {}, {}
    weight = len(world.seen) / len(world.restricted)
    for name, way in config.ways.items():
        seen, held_out = (ask(model, world, group, way) for group in (world.seen, world.held_out))
        refusal[name] = weight * seen.refusal + (1 - weight) * held_out.refusal
        leak[name] = weight * seen.leak + (1 - weight) * held_out.leak
        if name in ("plain", "encoded"):
            refusal[f"{name}_held_out"] = held_out.refusal
        if name in LANGUAGES:
            others = world.benign + world.benign_held_out
            benign[name] = ask(model, world, others, way).leak
    return refusal, leak, benign


# --- abstaining ----------------------------------------------------------------------------------


def detect(
    model: nn.Module, world: World, config: Config, *, seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """Shares of prompts that are abstained from, and AUROC, by detector and kind of prompt.

    Both detectors abstain above a threshold that takes `config.abstain` of familiar questions:
    asked as in the safety data, about a third of the unrestricted things. The bigrams are counted
    without those, so that a new name alone is not strange.
    """
    generator = make_generator(seed + 4 * STAGE)
    new = world.benign[: max(1, len(world.benign) // 3)]
    familiar = [prompt for way in HELPFUL for prompt in prompts(world, new, way)]
    count = config.safety_steps * config.batch_size
    examples = world.safety_examples(count, answered=HELPFUL, generator=generator)
    names = {thing.name for thing in new}
    bigrams = prompt_model(
        [text for text, _, _ in examples if not any(name in text for name in names)], world
    )
    kinds = {
        f"restricted {name}": prompts(world, world.restricted, way)
        for name, way in config.ways.items()
    }
    for name in LANGUAGES:
        kinds[f"benign {name}"] = prompts(world, world.benign_held_out, config.ways[name])
    scores: dict[str, Callable[[Sequence[str]], Float64[np.ndarray, " texts"]]] = {
        "likelihood": lambda texts: surprisal(bigrams, world, texts),
        "confidence": lambda texts: unsureness(model, world, texts),
    }
    abstained, area = {}, {}
    for name, score in scores.items():
        usual = score(familiar)
        threshold = np.quantile(usual, 1 - config.abstain)
        found = {kind: score(texts) for kind, texts in kinds.items()}
        abstained[name] = {
            kind: float((values > threshold).mean()) for kind, values in found.items()
        }
        area[name] = {
            kind: auroc(torch.from_numpy(usual), torch.from_numpy(values))
            for kind, values in found.items()
        }
    return abstained, area


def prompts(world: World, things: Sequence[Thing], way: str) -> list[str]:
    """Every question about every one of `things`."""
    return [
        world.request(thing, way, question=question).prompt
        for question in range(len(QUESTIONS))
        for thing in things
    ]


def prompt_model(texts: Sequence[str], world: World) -> NGramModel:
    """A bigram model of prompts."""
    end = world.tokenizer.end_id
    ids = [word for text in texts for word in (end, *world.tokenizer.encode(text))]
    return NGramModel.fit(np.array(ids), order=2, vocabulary_size=world.tokenizer.vocabulary_size)


def surprisal(
    model: NGramModel, world: World, texts: Sequence[str]
) -> Float64[np.ndarray, " texts"]:
    """Mean surprisal of each prompt's words, in nats."""
    end = np.array([world.tokenizer.end_id])
    return np.array(
        [model.nats(np.array(world.tokenizer.encode(text)), context=end).mean() for text in texts]
    )


def unsureness(
    model: nn.Module, world: World, texts: Sequence[str]
) -> Float64[np.ndarray, " texts"]:
    """1 - probability of the reply's likeliest first word (Hendrycks & Gimpel 2017)."""
    probs = next_word_probs(model, world, texts)
    return 1 - probs.amax(dim=-1).double().numpy()
