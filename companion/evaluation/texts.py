"""Log-probabilities of whole texts under a model, and of what may follow each of their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from companion.losses.cross_entropy import token_nats
from companion.models.base import LanguageModel
from companion.text.rows import END_ID, rows_by_length, text_batch, tokens_through_end

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int


class LogProbsAndKL(NamedTuple):
    """Log-probabilities of texts under two models, in nats, summed up to and including the end
    token."""

    log_p: Float[Tensor, " texts"]
    """Log-probability under the policy, with gradients."""
    log_q: Float[Tensor, " texts"]
    """Log-probability under the reference, without gradients."""
    kl: Float[Tensor, " texts"]
    """The exact KL(policy || reference) of the next token, summed over the text's prefixes."""


def log_probs_and_kl(
    policy: LanguageModel, reference: LanguageModel, texts: Int[Tensor, "texts time"]
) -> LogProbsAndKL:
    """Log-probabilities and divergences of texts that were written from an empty state.

    Over the policy's own texts, the mean of `kl` estimates the KL between the two models of whole
    texts, without bias (the chain rule) and with less noise than the mean log-ratio has: only the
    prefixes are sampled.

    texts: one a row, filled up with the end token. Raises ValueError for token ids outside the
    models' vocabulary, for models of different vocabularies, and for one in training mode.
    """
    if policy.vocabulary_size != reference.vocabulary_size:
        raise ValueError(
            f"policy and reference must have one vocabulary, got {policy.vocabulary_size} and "
            f"{reference.vocabulary_size} tokens"
        )
    for model in (policy, reference):
        model.require_tokens(texts, "texts", ndim=2, on_device=True)
        model.require_evaluation_mode()
    kept = tokens_through_end(texts)
    start = torch.full_like(texts[:, :1], END_ID)
    inputs = torch.cat([start, texts[:, :-1]], dim=1)
    log_p = torch.log_softmax(policy(inputs)[0], dim=-1)
    with torch.no_grad():
        log_q = torch.log_softmax(reference(inputs)[0], dim=-1)
        kl = ((log_p.exp() * (log_p - log_q)).sum(dim=-1) * kept).sum(dim=1)
    own, others = (
        (log.gather(-1, texts.unsqueeze(-1)).squeeze(-1) * kept).sum(dim=1)
        for log in (log_p, log_q)
    )
    return LogProbsAndKL(log_p=own, log_q=others, kl=kl)


def text_log_probs(
    model: LanguageModel, texts: Int[torch.Tensor, "texts time"]
) -> Float[torch.Tensor, " texts"]:
    """log q of each text, in nats, with gradients: summed over the tokens of a `text_batch`.

    Raises ValueError for token ids outside the model's vocabulary.
    """
    model.require_tokens(texts, "texts", ndim=2, on_device=True)
    pieces = rows_by_length(texts)
    found = []
    for rows in pieces:
        batch = text_batch(texts[rows])
        logits, _ = model(batch.inputs)
        found.append(-token_nats(logits, batch.targets).sum(dim=1))
    return torch.cat(found)[torch.cat(pieces).argsort()]


@torch.no_grad()
def next_log_probs(
    model: LanguageModel, rows: Int[torch.Tensor, "rows tokens"]
) -> Float64[torch.Tensor, "rows time vocab"]:
    """The model's log-probabilities, in nats, of what follows each token of the rows but the last.

    Raises ValueError for rows of fewer than two tokens, and for token ids outside the model's
    vocabulary.
    """
    model.require_tokens(rows, "rows", ndim=2, on_device=True)
    if rows.shape[1] < 2:
        raise ValueError(f"rows must have two tokens or more each, got shape {tuple(rows.shape)}")
    logits, _ = model(rows[:, :-1])
    return torch.log_softmax(logits.cpu().double(), dim=-1)
