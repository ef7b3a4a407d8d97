"""Beyond the training text: distribution shift, out-of-distribution detection, memorization."""

# fmt: off
from companion.generalization.canaries import (
    Canaries, Canary, chance_exposure, code_log_probs, code_rank, exposure, greedy_code,
    likeliest_codes,
)
from companion.generalization.out_of_distribution import (
    auroc, byte_pieces, repetitive_texts, strangeness_scores, zlib_bits_per_byte,
)
from companion.generalization.shift import (
    Bins, SplitLoss, by_context_count, by_true_probability, carried_by_rarest, context_counts,
    rarer_pairs, split_loss, token_terms,
)

__all__ = [
    "Bins", "Canaries", "Canary", "SplitLoss", "auroc", "by_context_count",
    "by_true_probability", "byte_pieces", "carried_by_rarest", "chance_exposure",
    "code_log_probs", "code_rank", "context_counts", "exposure", "greedy_code",
    "likeliest_codes", "rarer_pairs", "repetitive_texts", "split_loss", "strangeness_scores",
    "token_terms", "zlib_bits_per_byte",
]
