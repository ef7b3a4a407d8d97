"""Why does a model with a near-optimal loss write wrong or looping text, and what do decoders cost?

An LSTM learns the review grammar, whose every probability is known. Its loss is close to the floor.
Then decoders write with it, and the grammar judges: which reviews are ungrammatical, how much text
repeats, how surprising it is under the truth. The most probable path of the source itself is
exact, so that what is the model's fault and what is the objective's can be told apart.

Texts are written as streams, review after review, each after a few words of true text; a decoder
is judged on the reviews that it began itself, or on the stream when it never begins one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from companion.automata import END_ID, AutomatonSource
from companion.beam import beam_search
from companion.decoding import Decoder, generate
from companion.lstm import LSTMLanguageModel
from companion.runtime import make_generator
from companion.source_models import (
    next_log_probs,
    split_texts,
    surprisals,
    train_on_source,
    true_rows,
)
from companion.sources import GrammarSource
from companion.text_metrics import repeated_segments, sequence_repetition

if TYPE_CHECKING:
    from jaxtyping import Int


@dataclass(frozen=True, kw_only=True)
class Config:
    """The model, the decoders, and how much they write."""

    steps: int = 2500
    """Optimizer steps, each on fresh text."""
    hidden_size: int = 128
    """Of the LSTM."""
    embedding_size: int = 32
    """Of the LSTM."""
    temperatures: tuple[float, ...] = (0.4, 0.7, 1.0, 1.25)
    """Decoders "T=..."; 1 samples the model as it is."""
    top_ks: tuple[int, ...] = (3, 10, 30)
    """Decoders "top-k ..."."""
    top_ps: tuple[float, ...] = (0.7, 0.9, 0.95)
    """Decoders "top-p ...", the nucleus."""
    num_streams: int = 200
    """Streams that each decoder writes."""
    reviews: int = 8
    """Reviews of each stream that are judged at most."""
    num_tokens: int = 400
    """Tokens of each stream."""
    num_searches: int = 16
    """Streams that beam search and the search for the true source's best path write."""
    search_width: int = 8
    """Of the beam that writes streams."""
    beam_widths: tuple[int, ...] = (1, 2, 4, 8, 32, 128)
    """Of the beams that look for the most probable whole review."""
    prompt_tokens: int = 32
    """True tokens before each stream: trained on streams, the model hardly knows an empty state."""
    repetition_tokens: int = 200
    """First tokens of each stream on which repetition is measured; beams write as many."""
    test_tokens: int = 16_000
    """Fresh true tokens on which KL and what a decoder cuts off are measured."""

    def __post_init__(self) -> None:
        if not 1 <= self.repetition_tokens <= self.num_tokens:
            raise ValueError(
                f"repetition_tokens must be between 1 and num_tokens = {self.num_tokens}, "
                f"got {self.repetition_tokens}"
            )
        if not 1 <= self.num_searches <= self.num_streams:
            raise ValueError(
                f"num_searches must be between 1 and num_streams = {self.num_streams}, "
                f"got {self.num_searches}"
            )

    def decoders(self) -> dict[str, Decoder]:
        """The decoders that draw or are greedy, by name."""
        return {
            **{f"T={t:g}": Decoder(temperature=t) for t in self.temperatures},
            **{f"top-k {k}": Decoder(top_k=k) for k in self.top_ks},
            **{f"top-p {p:g}": Decoder(top_p=p) for p in self.top_ps},
            "greedy": Decoder(temperature=0),
        }


@dataclass(kw_only=True)
class Result:
    """Figures by decoder. "source" is the source's own sample, "source best" its likeliest path."""

    entropy_nats_per_token: float
    """The floor, exact."""
    kl_nats_per_token: float
    """KL(p || q), what the model pays above it."""
    illegal_mass_per_token: float
    """Probability that the model gives to words the grammar forbids there, after true prefixes."""
    predicted_ungrammatical: float
    """What that predicts by compounding, 1 - (1 - illegal mass) ** mean length."""
    reverse_kl_legal_nats_per_token: float
    """Mean of log q - log p over the model's own grammatical reviews; over all it is infinite."""
    ungrammatical: dict[str, float] = field(default_factory=dict)
    """Share of reviews with a forbidden word."""
    mean_length: dict[str, float] = field(default_factory=dict)
    """Tokens a review; unfinished reviews count as long as they are."""
    repetition: dict[str, float] = field(default_factory=dict)
    """seq-rep-4 of the streams."""
    repeated_sentences: dict[str, float] = field(default_factory=dict)
    """Share of a stream's sentences that it has had before."""
    cut_mass: dict[str, float] = field(default_factory=dict)
    """True probability of next words that the decoder can never choose."""
    moved_mass: dict[str, float] = field(default_factory=dict)
    """Total variation between the true next-word distribution and the decoder's."""
    surprisal_mean: dict[str, float] = field(default_factory=dict)
    """Under the source, nats per token, over tokens before a forbidden one; left out
    where there is none."""
    surprisal_spread: dict[str, float] = field(default_factory=dict)
    """Standard deviation of that over tokens."""
    model_surprisal_mean: dict[str, float] = field(default_factory=dict)
    """Under the model, over all tokens."""
    beam_tokens: dict[str, int] = field(default_factory=dict)
    """Length of the most probable whole review that a beam finds after true ones, by width."""
    beam_log_prob: dict[str, float] = field(default_factory=dict)
    """Its log-probability under the model."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train a model on the grammar, let every decoder write, and judge by the truth."""
    source = GrammarSource()
    model = train_on_source(
        source,
        seed=seed,
        steps=config.steps,
        hidden_size=config.hidden_size,
        embedding_size=config.embedding_size,
        progress=progress,
    )
    return measure(model, source, config, seed=seed)


def measure(
    model: LSTMLanguageModel, source: AutomatonSource, config: Config, *, seed: int
) -> Result:
    """All figures for a model that is already trained on `source`, at fresh text by `seed`."""
    generator = make_generator(seed + 2**31)  # not the text that the model was trained on
    rows = true_rows(source, 16, config.test_tokens // 16, generator)
    log_q = next_log_probs(model, rows)
    states = source.walk(rows[:, 1:])
    illegal = float(source.illegal_mass(log_q.exp(), states).mean())
    result = Result(
        entropy_nats_per_token=source.entropy_rate(),
        kl_nats_per_token=float(source.kl_from(log_q, states).mean()),
        illegal_mass_per_token=illegal,
        predicted_ungrammatical=1 - (1 - illegal) ** source.mean_length(),
        reverse_kl_legal_nats_per_token=0.0,
    )
    whole = true_rows(
        source, config.num_streams, config.prompt_tokens + config.num_tokens, generator
    )
    prompts = whole[:, : config.prompt_tokens + 1]
    _judge(result, "source", model, source, whole, config)
    truth = source.transition_probs[states]
    for name, decoder in config.decoders().items():
        chosen = decoder.probs(log_q.float()).double()
        result.cut_mass[name] = float((truth * (chosen == 0)).sum(-1).mean())
        result.moved_mass[name] = float((truth - chosen).abs().sum(-1).mean() / 2)
        count = config.num_streams if decoder.temperature > 0 else config.num_searches
        written = generate(model, prompts[:count], config.num_tokens, decoder, generator=generator)
        rows = torch.cat([prompts[:count], written], dim=1)
        _judge(result, name, model, source, rows, config)
        if decoder == Decoder():
            result.reverse_kl_legal_nats_per_token = _reverse_kl(model, source, rows, config)
    best, searched = [], []
    for prompt in prompts[: config.num_searches]:
        found = beam_search(model, prompt, config.repetition_tokens, width=config.search_width)
        searched.append(torch.cat([prompt, torch.tensor(found[0].tokens)]))
        path = source.most_probable(config.repetition_tokens, prefix=prompt[1:])
        best.append(torch.cat([prompt[:1], torch.tensor(path.tokens)]))
    _judge(result, f"beam {config.search_width}", model, source, torch.stack(searched), config)
    _judge(result, "source best", model, source, torch.stack(best), config)
    before = int((whole[0, : config.prompt_tokens + 100] == END_ID).nonzero()[-1])
    start = whole[0, : before + 1]  # true reviews, the last one ended
    for width in config.beam_widths:
        review = beam_search(model, start, 100, width=width, end_id=END_ID)[0]
        result.beam_tokens[str(width)] = len(review.tokens)
        result.beam_log_prob[str(width)] = review.log_prob
    return result


def _judge(
    result: Result,
    name: str,
    model: LSTMLanguageModel,
    source: AutomatonSource,
    rows: Int[torch.Tensor, "rows tokens"],
    config: Config,
) -> None:
    """Fill in what can be said of rows that begin with the prompts."""
    nats = surprisals(source, rows)
    pieces = [
        piece
        for row, row_nats in zip(rows, nats, strict=True)
        for piece in split_texts(row, row_nats, config.prompt_tokens, config.reviews)
    ]
    wrong = [not bool(review_nats.isfinite().all()) for _, review_nats in pieces]
    result.ungrammatical[name] = sum(wrong) / len(wrong)
    result.mean_length[name] = sum(len(review) for review, _ in pieces) / len(pieces)
    first = config.prompt_tokens + 1
    streams = rows[:, first : first + config.repetition_tokens].tolist()
    stops = [END_ID, *(i for i, word in enumerate(source.vocabulary) if word == ".")]
    result.repetition[name] = _mean([sequence_repetition(stream, 4) for stream in streams])
    result.repeated_sentences[name] = _mean([repeated_segments(s, stops) for s in streams])
    written = nats[:, first - 1 :]
    legal = written[written.isfinite()]
    if legal.numel():
        result.surprisal_mean[name] = float(legal.mean())
        result.surprisal_spread[name] = float(legal.std(correction=0))
    own = -next_log_probs(model, rows).gather(-1, rows[:, 1:, None]).squeeze(-1)
    result.model_surprisal_mean[name] = float(own[:, first - 1 :].mean())


def _reverse_kl(
    model: LSTMLanguageModel,
    source: AutomatonSource,
    rows: Int[torch.Tensor, "rows tokens"],
    config: Config,
) -> float:
    """Mean of log q - log p per token, over the grammatical reviews of rows the model sampled."""
    own = -next_log_probs(model, rows).gather(-1, rows[:, 1:, None]).squeeze(-1)
    total, tokens = 0.0, 0
    for row, nats, own_nats in zip(rows, surprisals(source, rows), own, strict=True):
        pieces = split_texts(row, nats, config.prompt_tokens, config.reviews)
        theirs = split_texts(row, own_nats, config.prompt_tokens, config.reviews)
        for (review, p_nats), (_, q_nats) in zip(pieces, theirs, strict=True):
            if bool(p_nats.isfinite().all()):
                total += float((p_nats - q_nats).sum())
                tokens += len(review)
    return total / max(1, tokens)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
