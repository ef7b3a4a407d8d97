"""Devices, seeds, files and information: what all other packages use."""

# fmt: off
from companion.core.deprecation import renamed, renamed_arguments
from companion.core.files import (
    FileError, only_writer, read_json, whole_file, write_json, write_text,
)
from companion.core.information import (
    as_distribution, bits_per_byte, cross_entropy, entropy, kl_divergence, log_softmax,
    nats_to_bits, per_unit, perplexity,
)
from companion.core.runtime import (
    check_precision, choose_device, cpu_seconds, cpu_threads, environment, interruptible,
    make_accelerator, memory_bytes, out_of_memory, peak_memory_bytes, sum_over_processes,
    synchronize, warn_of_missing_processes,
)
from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import changed, check_choice

__all__ = [
    "FileError", "as_distribution", "bits_per_byte", "changed", "check_choice",
    "check_precision", "choose_device", "cpu_seconds", "cpu_threads", "cross_entropy",
    "entropy", "environment", "interruptible", "kl_divergence", "log_softmax",
    "make_accelerator", "make_generator", "memory_bytes", "nats_to_bits", "only_writer",
    "out_of_memory", "peak_memory_bytes", "per_unit", "perplexity", "read_json", "renamed",
    "renamed_arguments", "seed_everything", "sum_over_processes", "synchronize",
    "warn_of_missing_processes", "whole_file", "write_json", "write_text",
]
