"""Training losses, in nats."""

# fmt: off
from companion.losses.cross_entropy import divergence_limit, summed_nats, token_nats
from companion.losses.large_vocabulary import NoiseSampler, chunked_nats, sampled_nats
from companion.losses.training_loss import TrainingLoss
from companion.losses.unlikelihood import (
    repeated_ngram_mask, sequence_unlikelihood, token_unlikelihood,
)

__all__ = [
    "NoiseSampler", "TrainingLoss", "chunked_nats", "divergence_limit",
    "repeated_ngram_mask", "sampled_nats", "sequence_unlikelihood", "summed_nats", "token_nats",
    "token_unlikelihood",
]
