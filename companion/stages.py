"""Pretraining, instructions, safety training: three stages of one model of the invented world.

Each stage takes the model of the one before and goes on with other texts. The later two learn the
replies alone, not the prompts. Safety training also holds the model to what it was, as
that of InstructGPT does (Ouyang et al. 2022): it goes on reading documents, and on all that is no
refusal it pays KL(instructed || model).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from companion.batching import IGNORE, Batch, padded
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.objectives import token_nats
from companion.phrases import PLAIN
from companion.recipe import TrainConfig, learning_rate_at
from companion.runtime import make_generator, seed_everything
from companion.sequence_models import TransformerModel
from companion.stage_cache import cached_model
from companion.training import make_optimizer
from companion.world import World, WorldConfig

#: Ways to ask in which safety training goes on to answer what is not restricted.
HELPFUL = ("plain", "start_with", "do_not_say")

#: What a model can be. The Transformer has two layers.
ARCHITECTURES = ("lstm", "transformer")

#: Positions that the Transformer has, by `WorldConfig.tokens`; no text of the world is longer.
POSITIONS = {"words": 48, "bytes": 192}

#: Distance between the seeds of the stages' texts, so that no two seeds of a study share a text.
STAGE = 2**32


@dataclass(frozen=True, kw_only=True)
class StagesConfig(WorldConfig):
    """The world, the model, and how it is trained in each stage."""

    architecture: str = "lstm"
    """One of `ARCHITECTURES`."""
    hidden_size: int = 128
    """Of the LSTM, and of its tied embeddings; or the width of the Transformer."""
    batch_size: int = 48
    """Texts a step."""
    num_texts: int = 20_000
    """Documents; a stage with fewer steps than need so many makes fewer texts."""
    pretrain_steps: int = 1200
    """Steps on documents."""
    pretrain_rate: float = 5e-3
    """Peak learning rate there."""
    instruct_steps: int = 700
    """Steps on instructions."""
    instruct_rate: float = 3e-3
    """Peak learning rate there."""
    safety_steps: int = 400
    """Steps on safety examples."""
    safety_rate: float = 3e-3
    """Peak learning rate there."""
    kl_weight: float = 3.0
    """Weight of KL(instructed || model), in nats a token, on all that is no refusal."""
    replay: float = 0.5
    """Share of documents among the texts of safety training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"architecture must be one of {', '.join(ARCHITECTURES)}, got {self.architecture!r}"
            )
        counts = ("hidden_size", "batch_size", "num_texts")
        for name in (*counts, "pretrain_steps", "instruct_steps", "safety_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if not 0 <= self.replay < 1:
            raise ValueError(f"replay must be in [0, 1), got {self.replay}")
        if self.kl_weight < 0:
            raise ValueError(f"kl_weight must be >= 0, got {self.kl_weight}")


@dataclass(frozen=True, kw_only=True)
class Example:
    """A text to learn from."""

    ids: Tensor
    """Its tokens, (T,)."""
    prompt_length: int = 0
    """How many of them are read and not learnt."""
    held: bool = False
    """Whether the reply is held to the model before, by KL."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """A world, and one model of it after each stage."""

    world: World
    """What they are about."""
    pretrained: nn.Module
    """After documents."""
    instructed: nn.Module
    """After instructions."""
    safe: nn.Module
    """After safety training on plain questions."""


def trained_stages(config: StagesConfig, *, seed: int) -> Stages:
    """All three stages, each from the cache where it has been trained before (`stage_cache`)."""
    world = World(config, seed=seed)
    settings = {**dataclasses.asdict(config), "seed": seed}

    def stage(name: str, make: Callable[[], nn.Module]) -> nn.Module:
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
) -> nn.Module:
    """The instructed model of `trained_stages(config, seed=seed)` after other safety training.

    From the cache where it has been trained before. `refused` and `answered` are as in
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


def new_model(config: StagesConfig, world: World) -> nn.Module:
    """A model of the world's tokens that has learnt nothing."""
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
) -> nn.Module:
    """A new model that has read documents. Seeds all generators: an entry point."""
    seed_everything(seed)
    model = new_model(config, world)
    generator = make_generator(seed + 1 * STAGE)
    texts = world.documents(config.num_texts, generator=generator)
    learn(
        model, [Example(ids=world.ids(text)) for text in texts], world, config,
        steps=config.pretrain_steps, rate=config.pretrain_rate, generator=generator,
        progress=progress,
    )  # fmt: skip
    return model


def instructed(
    model: nn.Module,
    config: StagesConfig,
    world: World,
    *,
    seed: int,
    progress: bool = False,
) -> nn.Module:
    """A copy of the pretrained model that has learnt to follow instructions, any whatever."""
    model = copy.deepcopy(model)
    generator = make_generator(seed + 2 * STAGE)
    count = min(config.num_texts, config.instruct_steps * config.batch_size)
    pairs = world.instructions(count, generator=generator)
    learn(
        model, [example(world, *pair) for pair in pairs], world, config,
        steps=config.instruct_steps, rate=config.instruct_rate, generator=generator,
        progress=progress,
    )  # fmt: skip
    return model


def safety_trained(
    model: nn.Module,
    config: StagesConfig,
    world: World,
    *,
    seed: int,
    refused: Sequence[str] = (PLAIN,),
    answered: Sequence[str] = HELPFUL,
    progress: bool = False,
) -> nn.Module:
    """A copy of the instructed model that has learnt to refuse, asked in the ways `refused`.

    `answered` are the ways in which the same training asks what is to be answered, so that the
    model stays helpful; see `World.request`.
    """
    before, model = model, copy.deepcopy(model)
    generator = make_generator(seed + 3 * STAGE)
    count = min(config.num_texts, config.safety_steps * config.batch_size)
    replayed = round(config.replay * count)
    found = world.safety_examples(
        count - replayed, refused=refused, answered=answered, generator=generator
    )
    texts = world.documents(replayed, generator=generator)
    examples = [example(world, prompt, reply, held=not no) for prompt, reply, no in found]
    examples += [Example(ids=world.ids(text), held=True) for text in texts]
    learn(
        model, examples, world, config, steps=config.safety_steps, rate=config.safety_rate,
        generator=generator, before=before, progress=progress,
    )  # fmt: skip
    return model


def example(world: World, prompt: str, reply: str, *, held: bool = False) -> Example:
    """A prompt that is read and a reply that is learnt."""
    return Example(
        ids=world.ids(f"{prompt} {reply}"), prompt_length=len(world.ids(prompt)), held=held
    )


def learn(
    model: nn.Module,
    examples: Sequence[Example],
    world: World,
    config: StagesConfig,
    *,
    steps: int,
    rate: float,
    generator: torch.Generator,
    before: nn.Module | None = None,
    progress: bool = False,
) -> None:
    """Change `model` by AdamW on batches drawn from `examples`; leave it in evaluation mode.

    With `before`, examples that are `held` add `kl_weight` KL(before || model) over their replies.
    Sums are divided by the mean number of targets in a batch, so every word weighs the same.
    """
    settings = TrainConfig(steps=steps, learning_rate=rate, num_streams=config.batch_size)
    optimizer = make_optimizer(model, settings)
    counts = [len(text.ids) + 1 - text.prompt_length for text in examples]
    targets = config.batch_size * sum(counts) / len(counts)
    model.train()
    for step in tqdm(range(steps), disable=not progress, unit="step", leave=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, settings)
        rows = torch.randint(len(examples), (config.batch_size,), generator=generator)
        chosen = [examples[row] for row in rows.tolist()]
        batch = reply_batch(chosen, world)
        logits, _ = model(batch.inputs)
        loss = token_nats(logits, batch.targets).sum()
        if before is not None:
            kept = torch.tensor([text.held for text in chosen])[:, None] & (batch.targets != IGNORE)
            with torch.no_grad():
                goal = F.log_softmax(before(batch.inputs)[0][kept], dim=-1)
            now = F.log_softmax(logits[kept], dim=-1)
            loss = loss + config.kl_weight * F.kl_div(now, goal, reduction="sum", log_target=True)
        optimizer.zero_grad()
        (loss / targets).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
    model.eval()


def reply_batch(examples: Sequence[Example], world: World) -> Batch:
    """Texts as one batch whose targets are the tokens after the prompts, and the end."""
    end = world.tokenizer.end_id
    batch = padded([text.ids for text in examples], start_id=end, end_id=end)
    prompts = torch.tensor([text.prompt_length for text in examples])
    unread = torch.arange(batch.targets.shape[1]) < prompts[:, None]
    return Batch(inputs=batch.inputs, targets=batch.targets.masked_fill(unread, IGNORE))
