"""Pretraining, instruction tuning, safety training: three stages of a model of the invented world.

Each stage continues from the model of the stage before, on other texts. The later two learn only
the replies, not the prompts. As in InstructGPT (Ouyang et al. 2022), safety training also keeps the
model close to the instructed one: it mixes in documents, and penalises KL(instructed || model) on
every text that is not a refusal.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, settings_class
from companion.losses.cross_entropy import token_nats
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.transformer import TransformerModel
from companion.text.batching import IGNORE, Batch, padded
from companion.training.config import TrainConfig
from companion.training.model_cache import cached_model
from companion.training.optimization import learning_rate_at, make_optimizer, take_step
from companion.world.language import PLAIN, REFUSAL
from companion.world.world import World, WorldConfig

#: Ways of asking in which safety training has examples that are answered.
HELPFUL = ("plain", "start_with", "do_not_say")

#: Kinds of network; the LSTM has one layer, the Transformer two.
Architecture = Literal["lstm", "transformer"]

#: Things of which replayed documents are all in the plain language.
PlainReplay = Literal["none", "restricted", "all"]

#: Maximum length of the Transformer, by `WorldConfig.tokens`; no text of the world is longer.
POSITIONS = {"words": 48, "bytes": 192}


@settings_class
class StagesConfig(WorldConfig):
    """Settings of the world, the model, and its three stages of training."""

    architecture: Architecture = "lstm"
    """Kind of network: "lstm" or "transformer"."""
    hidden_size: int = 128
    """Hidden units of the LSTM and size of its tied embeddings; or the Transformer's width."""
    batch_size: int = 48
    """Texts per optimizer step."""
    num_texts: int = 20_000
    """Maximum number of texts made for each stage; fewer if its steps need fewer."""
    pretrain_steps: int = 1200
    """Optimizer steps of pretraining, on documents."""
    pretrain_rate: float = 5e-3
    """Peak learning rate of pretraining."""
    instruct_steps: int = 700
    """Optimizer steps of instruction tuning."""
    instruct_rate: float = 3e-3
    """Peak learning rate of instruction tuning."""
    demanding: float = 0.4
    """Share of the instructions in which the user asks for a word to start with or to avoid."""
    safety_steps: int = 400
    """Optimizer steps of safety training."""
    safety_rate: float = 3e-3
    """Peak learning rate of safety training."""
    kl_weight: float = 3.0
    """Weight of KL(instructed || model), in nats per token, on texts that are not refusals."""
    replay: float = 0.5
    """Share of documents among the texts of safety training."""
    plain_replay: PlainReplay = "none"
    """Things of which these documents are all in the plain language: "none" of them, the
    "restricted" ones, or "all"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("architecture", self.architecture, Architecture)
        check_choice("plain_replay", self.plain_replay, PlainReplay)
        counts = ("hidden_size", "batch_size", "num_texts")
        for name in (*counts, "pretrain_steps", "instruct_steps", "safety_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.demanding <= 1:
            raise ValueError(f"demanding must be in [0, 1], got {self.demanding}")
        if not 0 <= self.replay < 1:
            raise ValueError(f"replay must be in [0, 1), got {self.replay}")
        if self.kl_weight < 0:
            raise ValueError(f"kl_weight must be >= 0, got {self.kl_weight}")


@settings_class
class SmallStagesConfig(StagesConfig):
    """Settings of a smaller world and shorter stages, for studies that train several models."""

    seen: int = 28
    held_out: int = 12
    benign: int = 24
    benign_held_out: int = 8
    unknown: int = 8
    pretrain_steps: int = 850
    instruct_steps: int = 420
    safety_steps: int = 200
    replay: float = 0.4


@dataclass(frozen=True, kw_only=True)
class Example:
    """A training text."""

    ids: Tensor
    """Token ids, of shape (T,)."""
    prompt_length: int = 0
    """Number of tokens of the prompt, which are read but are not targets."""
    kl_anchored: bool = False
    """Whether to penalise the KL from the previous model on this text."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """A world, and one model of it after each stage."""

    world: World
    """The world that the models learned."""
    pretrained: LanguageModel
    """The model after pretraining on documents."""
    instructed: LanguageModel
    """The model after instruction tuning."""
    safe: LanguageModel
    """The model after safety training on plain questions."""


def train_stages(config: StagesConfig, *, seed: int, progress: bool = False) -> Stages:
    """A world and its model after each stage, trained without the cache, so that studies can be
    timed."""
    world = World(config, seed=seed)
    base = pretrained(config, world, seed=seed, progress=progress)
    chat = instructed(base, config, world, seed=seed, progress=progress)
    safe = safety_trained(chat, config, world, seed=seed, progress=progress)
    return Stages(world=world, pretrained=base, instructed=chat, safe=safe)


def trained_stages(config: StagesConfig, *, seed: int) -> Stages:
    """A world and its model after each stage, from the cache if it was trained before."""
    world = World(config, seed=seed)
    settings = {**dataclasses.asdict(config), "seed": seed}

    def stage(name: str, make: Callable[[], LanguageModel]) -> LanguageModel:
        return cached_model(name, settings, lambda: new_model(config, world), make)

    base = stage("pretrained", lambda: pretrained(config, world, seed=seed))
    chat = stage("instructed", lambda: instructed(base, config, world, seed=seed))
    safe = stage("safe", lambda: safety_trained(chat, config, world, seed=seed))
    return Stages(world=world, pretrained=base, instructed=chat, safe=safe)


def safe_variant(
    stages: Stages,
    config: StagesConfig,
    *,
    seed: int,
    refused: Sequence[str],
    answered: Sequence[str] = HELPFUL,
) -> LanguageModel:
    """The instructed model of `trained_stages(config, seed=seed)` after other safety training.

    It comes from the cache if it was trained before. `refused` and `answered` are as in
    `safety_trained`.
    """
    settings = {
        **dataclasses.asdict(config), "seed": seed, "refused": refused, "answered": answered
    }  # fmt: skip
    return cached_model(
        "safe_variant", settings, lambda: new_model(config, stages.world),
        lambda: safety_trained(
            stages.instructed, config, stages.world, seed=seed, refused=refused, answered=answered
        ),
    )  # fmt: skip


def new_model(config: StagesConfig, world: World) -> LanguageModel:
    """An untrained model for the world's vocabulary."""
    vocabulary_size = world.tokenizer.vocabulary_size
    if config.architecture == "transformer":
        return TransformerModel(
            vocabulary_size=vocabulary_size,
            width=config.hidden_size,
            max_length=POSITIONS[config.tokens],
        )
    return LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=vocabulary_size,
            embedding_size=config.hidden_size,
            hidden_size=config.hidden_size,
            tie_weights=True,
            forget_bias=2.0,
        )
    )


def pretrained(
    config: StagesConfig, world: World, *, seed: int, progress: bool = False
) -> LanguageModel:
    """A new model, pretrained on documents. Sets the seed of all generators."""
    seed_everything(seed)
    model = new_model(config, world)
    generator = make_generator(seed, "documents")
    count = min(config.num_texts, config.pretrain_steps * config.batch_size)
    texts = world.documents(count, generator=generator)
    learn(
        model, [Example(ids=world.ids(text)) for text in texts], world, config,
        steps=config.pretrain_steps, rate=config.pretrain_rate, generator=generator,
        progress=progress,
    )  # fmt: skip
    return model


def instructed(
    model: LanguageModel,
    config: StagesConfig,
    world: World,
    *,
    seed: int,
    progress: bool = False,
) -> LanguageModel:
    """A copy of the pretrained model, fine-tuned to follow every instruction, restricted too."""
    model = copy.deepcopy(model)
    generator = make_generator(seed, "instructions")
    count = min(config.num_texts, config.instruct_steps * config.batch_size)
    pairs = world.instructions(count, generator=generator, demanding=config.demanding)
    learn(
        model, [example(world, *pair) for pair in pairs], world, config,
        steps=config.instruct_steps, rate=config.instruct_rate, generator=generator,
        progress=progress,
    )  # fmt: skip
    return model


def safety_trained(
    model: LanguageModel,
    config: StagesConfig,
    world: World,
    *,
    seed: int,
    refused: Sequence[str] = (PLAIN,),
    answered: Sequence[str] = HELPFUL,
    refusals: Sequence[str] = (REFUSAL,),
    purpose: str = "safety training",
    progress: bool = False,
) -> LanguageModel:
    """A copy of the instructed model, fine-tuned to refuse restricted requests.

    refused: ways of asking (see `World.request`) in which restricted things are asked for and
    refused. answered: ways in which other things are asked for and answered, so that the model
    stays helpful. refusals: the replies that refuse, equally often. purpose: another name draws
    other examples.
    """
    before, model = model, copy.deepcopy(model)
    generator = make_generator(seed, purpose)
    count = min(config.num_texts, config.safety_steps * config.batch_size)
    replayed = round(config.replay * count)
    found = world.safety_examples(
        count - replayed, refused=refused, answered=answered, refusals=refusals,
        generator=generator,
    )  # fmt: skip
    plain = {"none": (), "restricted": world.restricted, "all": world.known + world.unknown}
    texts = world.documents(replayed, generator=generator, plain=plain[config.plain_replay])
    examples = [example(world, prompt, reply, kl_anchored=not no) for prompt, reply, no in found]
    examples += [Example(ids=world.ids(text), kl_anchored=True) for text in texts]
    learn(
        model, examples, world, config, steps=config.safety_steps, rate=config.safety_rate,
        generator=generator, before=before, progress=progress,
    )  # fmt: skip
    return model


def example(world: World, prompt: str, reply: str, *, kl_anchored: bool = False) -> Example:
    """A training text of a prompt and a reply, of which only the reply is learned."""
    return Example(
        ids=world.ids(f"{prompt} {reply}"),
        prompt_length=len(world.ids(prompt)),
        kl_anchored=kl_anchored,
    )


def learn(
    model: LanguageModel,
    examples: Sequence[Example],
    world: World,
    config: StagesConfig,
    *,
    steps: int,
    rate: float,
    generator: torch.Generator,
    before: LanguageModel | None = None,
    progress: bool = False,
) -> None:
    """Train `model` in place by AdamW on batches drawn from `examples`; it ends in evaluation mode.

    With `before`, `kl_anchored` examples add `config.kl_weight` times KL(before || model) at their
    targets. The summed loss is divided by the mean number of targets in a batch, so every token
    has the same weight.
    """
    settings = TrainConfig(steps=steps, learning_rate=rate, num_streams=config.batch_size)
    optimizer = make_optimizer(model, settings)
    counts = [len(text.ids) + 1 - text.prompt_length for text in examples]
    targets = config.batch_size * sum(counts) / len(counts)
    model.train()
    for step in tqdm(range(steps), disable=not progress, unit="step", leave=False):
        rows = torch.randint(len(examples), (config.batch_size,), generator=generator)
        chosen = [examples[row] for row in rows.tolist()]
        batch = reply_batch(chosen, world)
        logits, _ = model(batch.inputs)
        loss = token_nats(logits, batch.targets).sum()
        if before is not None:
            kept = torch.tensor([text.kl_anchored for text in chosen])[:, None] & (
                batch.targets != IGNORE
            )
            with torch.no_grad():
                goal = F.log_softmax(before(batch.inputs)[0][kept], dim=-1)
            now = F.log_softmax(logits[kept], dim=-1)
            loss = loss + config.kl_weight * F.kl_div(now, goal, reduction="sum", log_target=True)
        rate = learning_rate_at(step, steps, settings)
        take_step(
            model, optimizer, loss / targets, clip_norm=settings.clip_norm, learning_rate=rate
        )
    model.eval()


def reply_batch(examples: Sequence[Example], world: World) -> Batch:
    """A batch of texts whose targets are the tokens after the prompts, and the end token."""
    end = world.tokenizer.end_id
    batch = padded([text.ids for text in examples], start_id=end, end_id=end)
    prompts = torch.tensor([text.prompt_length for text in examples])
    unread = torch.arange(batch.targets.shape[1]) < prompts[:, None]
    return Batch(inputs=batch.inputs, targets=batch.targets.masked_fill(unread, IGNORE))
