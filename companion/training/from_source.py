"""Training a language model on fresh text from a source with known probabilities.

Several studies begin with such a model. No training text is repeated. The text and the order of the
batches have random generators of their own; the weights are drawn after `seed_everything(seed)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.losses.cross_entropy import summed_nats
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.sources.streams import TextSource, endless_text
from companion.text.batching import padded
from companion.text.rows import END_ID
from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at, take_step
from companion.training.trainer import Trainer

if TYPE_CHECKING:
    from jaxtyping import Int

#: The configuration of an LSTM, or what makes a model when it is called.
Architecture = LSTMConfig | Callable[[], LanguageModel]


def train_on_source(
    source: TextSource,
    *,
    seed: int,
    training: TrainConfig,
    model: Architecture | None = None,
    progress: bool = False,
) -> LanguageModel:
    """A model, in evaluation mode, trained on `training_text(source, training, seed=seed)`.

    Texts follow each other in streams, and the state is carried from window to window. The default
    `model` is an LSTM of one layer of 128 hidden units and embeddings of size 32. Sets the seed of
    all generators to `seed`. Raises ValueError if `training` has epochs instead of steps, or if the
    vocabulary size of `model` is not the source's.
    """
    text = training_text(source, training, seed=seed)
    seed_everything(seed)
    trained = _new_model(source, model, embedding_size=32)
    trainer = Trainer(trained, text, training, device="cpu")
    for _ in tqdm(trainer.steps(), total=trainer.total_steps, disable=not progress, unit="step"):
        pass
    return trained.eval()


def training_text(
    source: TextSource, training: TrainConfig, *, seed: int
) -> Int[torch.Tensor, " tokens"]:
    """Just enough text of the source to fill the streams of `training` for all its steps."""
    tokens = training.num_streams * training.window_length * training.accumulation
    generator = make_generator(seed, "training text")
    return endless_text(source, steps_of(training) * tokens + 1, generator=generator)


def train_on_texts(
    source: TextSource,
    *,
    seed: int,
    training: TrainConfig,
    model: Architecture | None = None,
    progress: bool = False,
) -> LanguageModel:
    """A model, in evaluation mode, trained on whole texts, each from an empty state.

    A model trained on streams sees an empty state only at the start of each stream, and begins
    texts badly. Texts are never repeated. The texts of a batch have similar lengths, so there is
    little padding; the summed loss is divided by a constant, or tokens of short texts would count
    more.

    Of `training`, only the steps, the learning rate with its schedule, the clip_norm and
    num_streams, the number of texts in a batch, are used; the optimizer is Adam. The default
    `model` has one layer of 128 hidden units and embeddings of size 64. Sets the seed of all
    generators to `seed`. Raises ValueError as `train_on_source` does, and if `training` sets
    anything else.
    """
    steps, batch_size = steps_of(training), training.num_streams
    _refuse_unread(training)
    texts = source.sample(steps * batch_size, generator=make_generator(seed, "training text"))
    batches = _alike_in_length(texts, batch_size, make_generator(seed, "order"))
    seed_everything(seed)
    trained = _new_model(source, model, embedding_size=64)
    optimizer = torch.optim.Adam(trained.parameters())
    for step, rows in enumerate(tqdm(batches, disable=not progress, unit="step")):
        batch = padded([text[:-1] for text in rows], start_id=END_ID, end_id=END_ID)
        logits, _ = trained(batch.inputs)
        loss = summed_nats(logits, batch.targets) / (batch_size * source.mean_length())
        rate = learning_rate_at(step, steps, training)
        take_step(trained, optimizer, loss, clip_norm=training.clip_norm, learning_rate=rate)
    return trained.eval()


def _refuse_unread(training: TrainConfig) -> None:
    """ValueError where `training` sets what `train_on_texts` does not read."""
    read = {"steps", "num_streams", "clip_norm", "warmup", "learning_rate", "final_learning_rate"}
    set_in_vain = [
        field.name
        for field in dataclasses.fields(training)
        if field.name not in read and getattr(training, field.name) != field.default
    ]
    if set_in_vain:
        raise ValueError(f"{', '.join(set_in_vain)} mean nothing for whole texts; leave them out")


def steps_of(training: TrainConfig) -> int:
    """The number of steps of `training`; ValueError if it has epochs: fresh text has no epochs."""
    if training.steps is None:
        raise ValueError(f"give steps, got epochs={training.epochs}: fresh text has no epochs")
    return training.steps


def _new_model(
    source: TextSource, model: Architecture | None, *, embedding_size: int
) -> LanguageModel:
    size = source.vocabulary_size
    model = model or LSTMConfig(vocabulary_size=size, embedding_size=embedding_size)
    made = LSTMLanguageModel(model) if isinstance(model, LSTMConfig) else model()
    if made.vocabulary_size != size:
        raise ValueError(f"the source has {size} tokens, the model {made.vocabulary_size}")
    return made


def _alike_in_length(
    texts: list[torch.Tensor], batch_size: int, generator: torch.Generator
) -> list[list[torch.Tensor]]:
    """Batches of texts of similar length: each 16 batches are sorted by length, then shuffled."""
    batches = []
    for start in range(0, len(texts), 16 * batch_size):
        pool = sorted(texts[start : start + 16 * batch_size], key=len)
        some = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        batches += [some[i] for i in torch.randperm(len(some), generator=generator).tolist()]
    return batches
