"""Training: the loop, its settings, checkpoints, and training with other losses and texts."""

# fmt: off
from companion.training.benchmark import (
    BenchmarkModel, Speed, matmul_flops_per_second, measure, median_interval, take_turns,
    textbook_step, training_flops_per_token,
)
from companion.training.checkpoints import (
    Checkpoint, RunFolder, optimizer_tensors, restore_optimizer,
)
from companion.training.classification import FineTuningConfig, train_classifier
from companion.training.config import TrainConfig
from companion.training.continued import mixed_text, train_and_measure
from companion.training.from_source import (
    steps_of, train_on_source, train_on_texts, training_text,
)
from companion.training.group_dro import GroupDRO, group_weights, raised_weights
from companion.training.model_cache import cache_folder, cached_model, package_digest
from companion.training.optimization import learning_rate_at, make_optimizer, take_step
from companion.training.running_metrics import RunningMetrics
from companion.training.trainer import (
    Progress, TrainResult, Trainer, TrainingError, share_of_streams, train,
)
from companion.training.translation import TranslationConfig, train_translator
from companion.training.unlikelihood import (
    UnlikelihoodConfig, own_unlikelihood, tune_against_repetition,
)
from companion.training.weighted import train_on_rows

__all__ = [
    "BenchmarkModel", "Checkpoint", "FineTuningConfig", "GroupDRO", "Progress", "RunFolder",
    "RunningMetrics", "Speed", "TrainConfig", "TrainResult", "Trainer", "TrainingError",
    "TranslationConfig", "UnlikelihoodConfig", "cache_folder", "cached_model", "group_weights",
    "learning_rate_at", "make_optimizer", "matmul_flops_per_second", "measure", "median_interval",
    "mixed_text", "optimizer_tensors", "own_unlikelihood", "package_digest", "raised_weights",
    "restore_optimizer", "share_of_streams", "steps_of", "take_step", "take_turns", "textbook_step",
    "train", "train_and_measure", "train_classifier", "train_on_rows", "train_on_source",
    "train_on_texts", "train_translator", "training_flops_per_token", "training_text",
    "tune_against_repetition",
]
