"""Smaller models: quantization, pruning, low rank, distillation, and how they are stored."""

# fmt: off
from companion.compression.distillation import (
    DistillationLoss, check_distillation, distill,
)
from companion.compression.low_rank import (
    factors, highest_rank, in_factors, output_name, truncated,
)
from companion.compression.packed import (
    fill, low_rank_tensors, num_bytes, plain_tensors, quantized_tensors, sparse_tensors,
)
from companion.compression.pruning import (
    Masks, Scope, apply_masks, check_share, from_sparse, magnitude_masks, matrices, pruned,
    random_masks, repair, to_sparse,
)
from companion.compression.quantization import (
    Quantized, check_bits, int8_kernels, pack_codes, quantize, quantized, unpack_codes,
)

__all__ = [
    "DistillationLoss", "Masks", "Quantized", "Scope", "apply_masks", "check_bits",
    "check_distillation", "check_share", "distill", "factors", "fill", "from_sparse",
    "highest_rank", "in_factors", "int8_kernels", "low_rank_tensors", "magnitude_masks",
    "matrices", "num_bytes", "output_name", "pack_codes", "plain_tensors", "pruned", "quantize",
    "quantized", "quantized_tensors", "random_masks", "repair", "sparse_tensors", "to_sparse",
    "truncated", "unpack_codes",
]
