"""Training an encoder-decoder on pairs of sentences, with teacher forcing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_sizes, settings_class
from companion.generation.translation import Translator
from companion.losses.cross_entropy import summed_nats
from companion.models.seq2seq import Attention, Seq2Seq, Seq2SeqConfig
from companion.text.parallel import Pair, pair_batch, pair_batches
from companion.text.tokenizers import Tokenizer
from companion.training.config import TrainConfig
from companion.training.optimization import learning_rate_at, take_step


@settings_class
class TranslationConfig:
    """Settings of a translator and its training."""

    embedding_size: int = 64
    """Size of the token embeddings."""
    hidden_size: int = 128
    """Units of the decoder's LSTM, and of both directions of the encoder together."""
    attention: Attention = "general"
    """Kind of attention; see `companion.models.seq2seq.Seq2SeqConfig`."""
    dropout: float = 0.0
    """Probability of dropping an activation."""
    steps: int = 600
    """Optimizer steps."""
    batch_size: int = 64
    """Pairs per optimizer step."""
    learning_rate: float = 5e-3
    """Peak learning rate of Adam."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    clip_norm: float = 1.0
    """Maximum gradient norm."""

    def __post_init__(self) -> None:
        check_sizes(
            embedding_size=self.embedding_size, hidden_size=self.hidden_size,
            steps=self.steps, batch_size=self.batch_size,
        )  # fmt: skip
        check_choice("attention", self.attention, Attention)


def train_translator(
    pairs: Sequence[Pair],
    config: TranslationConfig,
    *,
    source: Tokenizer,
    target: Tokenizer,
    seed: int,
    progress: bool = False,
) -> Translator:
    """A translator trained on these pairs; sets the seed of all generators to `seed`.

    The decoder reads the true target (teacher forcing). The summed loss is divided by a constant,
    the mean number of target tokens of a batch, so every token has the same weight.
    """
    order = make_generator(seed, "order of pairs")
    mean_tokens = sum(len(target.encode(pair.target)) + 1 for pair in pairs) / max(1, len(pairs))
    seed_everything(seed)
    model = Seq2Seq(
        Seq2SeqConfig(
            source_size=source.vocabulary_size, target_size=target.vocabulary_size,
            embedding_size=config.embedding_size, hidden_size=config.hidden_size,
            attention=config.attention, dropout=config.dropout,
        )
    )  # fmt: skip
    schedule = TrainConfig(steps=config.steps, learning_rate=config.learning_rate)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=config.weight_decay)
    batches = pair_batches(pairs, config.batch_size, steps=config.steps, generator=order)
    for step, some in enumerate(
        tqdm(batches, total=config.steps, disable=not progress, unit="step")
    ):
        batch = pair_batch(some, source, target)
        logits = model.translate_logits(batch.source, batch.lengths, batch.inputs)
        loss = summed_nats(logits, batch.targets) / (config.batch_size * mean_tokens)
        rate = learning_rate_at(step, config.steps, schedule)
        take_step(model, optimizer, loss, clip_norm=config.clip_norm, learning_rate=rate)
    return Translator(model=model.eval(), source=source, target=target)
