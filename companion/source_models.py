"""A language model of a source whose truth is known: endless text, training on it, judging its own.

Several studies begin with such a model. The recipe is that of the study `known_floor`: every token
of training is fresh, texts follow each other in streams, and the state is carried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from tqdm import tqdm

from companion.automata import END_ID, AutomatonSource
from companion.batching import padded
from companion.lstm import LSTMConfig, LSTMLanguageModel
from companion.objectives import summed_nats
from companion.recipe import learning_rate_at
from companion.runtime import make_generator, seed_everything
from companion.training import TrainConfig, Trainer

if TYPE_CHECKING:
    from jaxtyping import Float64, Int


@runtime_checkable
class TextSource(Protocol):
    """What writes independent texts that end with token 0."""

    @property
    def vocabulary_size(self) -> int:
        """Number of tokens, the end token included."""

    def mean_length(self) -> float:
        """Expected tokens in a text, its end token included."""

    def sample(self, n: int, *, generator: torch.Generator) -> list[torch.Tensor]:
        """`n` texts, each a 1-D tensor of ids that ends with the end token."""


def endless_text(
    source: TextSource, num_tokens: int, *, generator: torch.Generator
) -> Int[torch.Tensor, " tokens"]:
    """An end token, then text after text of the source; cut off after `num_tokens` tokens."""
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be >= 1, got {num_tokens}")
    texts = [torch.tensor([END_ID])]
    have = 1
    while have < num_tokens:
        more = source.sample(
            int((num_tokens - have) / source.mean_length()) + 1, generator=generator
        )
        texts += more
        have += sum(map(len, more))
    return torch.cat(texts)[:num_tokens]


def train_on_source(
    source: TextSource,
    *,
    seed: int,
    steps: int,
    hidden_size: int = 128,
    embedding_size: int = 32,
    num_streams: int = 16,
    window_length: int = 64,
    learning_rate: float = 1e-2,
    progress: bool = False,
) -> LSTMLanguageModel:
    """A one-layer LSTM, in evaluation mode, after `steps` steps on text it has never seen before.

    Seeds all generators with `seed`, so it is an entry point: the text and the weights follow.
    """
    text = endless_text(
        source, (steps * window_length + 1) * num_streams, generator=make_generator(seed)
    )
    seed_everything(seed)
    model = LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=source.vocabulary_size,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
        )
    )
    settings = TrainConfig(
        steps=steps,
        num_streams=num_streams,
        window_length=window_length,
        learning_rate=learning_rate,
    )
    trainer = Trainer(model, text, settings, device="cpu")
    model.train()
    for _ in tqdm(range(steps), disable=not progress, unit="step"):
        trainer.train_step()
    return model.eval()


def train_on_texts(
    source: TextSource,
    *,
    seed: int,
    steps: int,
    hidden_size: int = 128,
    embedding_size: int = 64,
    batch_size: int = 32,
    learning_rate: float = 8e-3,
    progress: bool = False,
) -> LSTMLanguageModel:
    """A one-layer LSTM, in evaluation mode, that has read whole texts, each from an empty state.

    One that was trained on streams has met an empty state only at their beginnings, and starts its
    texts badly from there. All texts are fresh. Batches hold texts alike in length, so little is
    padding; the summed loss is divided by a constant, or short texts would count more.

    Seeds all generators with `seed`, so it is an entry point.
    """
    texts = source.sample(steps * batch_size, generator=make_generator(seed))
    seed_everything(seed)
    config = LSTMConfig(
        vocabulary_size=source.vocabulary_size,
        embedding_size=embedding_size,
        hidden_size=hidden_size,
    )
    model = LSTMLanguageModel(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = TrainConfig(steps=steps, learning_rate=learning_rate)
    batches = _alike_in_length(texts, batch_size)
    for step, rows in enumerate(tqdm(batches, disable=not progress, unit="step")):
        batch = padded([text[:-1] for text in rows], start_id=END_ID, end_id=END_ID)
        logits, _ = model(batch.inputs)
        loss = summed_nats(logits, batch.targets) / (batch_size * source.mean_length())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, steps, schedule)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def _alike_in_length(texts: list[torch.Tensor], batch_size: int) -> list[list[torch.Tensor]]:
    """Batches of `batch_size` texts: in each 16 batches the texts are sorted, the batches mixed."""
    batches = []
    for start in range(0, len(texts), 16 * batch_size):
        pool = sorted(texts[start : start + 16 * batch_size], key=len)
        some = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        batches += [some[i] for i in torch.randperm(len(some)).tolist()]
    return batches


def true_rows(
    source: TextSource, rows: int, length: int, generator: torch.Generator
) -> Int[torch.Tensor, "rows tokens"]:
    """Rows of true text: an end token, then `length` tokens of texts."""
    return torch.stack([endless_text(source, length + 1, generator=generator) for _ in range(rows)])


@torch.no_grad()
def next_log_probs(
    model: LSTMLanguageModel, rows: Int[torch.Tensor, "rows tokens"]
) -> Float64[torch.Tensor, "rows time vocab"]:
    """The model's log-probabilities of what follows each token of the rows but the last."""
    logits, _ = model(rows[:, :-1])
    return torch.log_softmax(logits.double(), dim=-1)


def surprisals(
    source: AutomatonSource, rows: Int[torch.Tensor, "rows tokens"]
) -> Float64[torch.Tensor, "rows time"]:
    """Surprisal of rows[:, 1:] under the source, in nats, a new text beginning after each end.

    Infinite at the first forbidden token of a text, and NaN from there to the text's end, where
    the source says nothing.
    """
    out = torch.empty(rows.shape[0], rows.shape[1] - 1, dtype=torch.float64)
    state = torch.zeros(rows.shape[0], dtype=torch.long)
    for t in range(1, rows.shape[1]):
        token = rows[:, t]
        p = source.transition_probs[state.clamp(min=0), token]
        out[:, t - 1] = torch.where(state >= 0, -p.log(), torch.nan)
        after = source.transition_states[state.clamp(min=0), token]
        state = torch.where(token == END_ID, 0, torch.where(state >= 0, after, -1))
    return out


def split_texts(
    row: Int[torch.Tensor, " tokens"], nats: Float64[torch.Tensor, " time"], skip: int, most: int
) -> list[tuple[Int[torch.Tensor, " text"], Float64[torch.Tensor, " text"]]]:
    """The first `most` texts of a row that begin after its token `skip`, with their surprisals.

    The last may be unfinished. Where no text begins there, the one that goes on instead.
    """
    ends = [int(place) for place in (row[:-1] == END_ID).nonzero().flatten() if place >= skip]
    begins = [place + 1 for place in ends] or [1]
    pieces = []
    for begin, stop in zip(begins, [*begins[1:], len(row)], strict=True):
        pieces.append((row[begin:stop], nats[begin - 1 : stop - 1]))
    return pieces[:most]
