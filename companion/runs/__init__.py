"""Runs: train on a corpus with a preset, search for settings, evaluate, compare, export."""

# fmt: off
from companion.runs.card import as_code, card_of, write_card
from companion.runs.classifier import (
    ClassifyConfig, TrainedClassifier, evaluate_on, load_classifier, positive_class,
    train_on_file,
)
from companion.runs.compress import (
    METHODS, Distill, LowRank, Method, Prune, Quantize, compress_run, method_settings,
)
from companion.runs.export import ExportError, check_equal, export_model, export_program
from companion.runs.pipeline import (
    TrainedModel, another_text, compressed_from, corpus_at, load_run, place_of, recorded_preset,
    resume_run, train_run,
)
from companion.runs.presets import Preset, Setting, get_preset, is_setting, override, settings_of
from companion.runs.report import (
    Assessment, ComparisonError, assess, compare, dynamically, in_one_stream, standard_measures,
    with_cache, with_temperature,
)
from companion.runs.search import (
    PrunedError, Range, SearchConfig, SearchResult, SearchSpace, Trial, create_study,
    import_optuna, in_words,
)
from companion.runs.tuning import recorded, train_command, tune

__all__ = [
    "METHODS", "Assessment", "ClassifyConfig", "ComparisonError", "Distill", "ExportError",
    "LowRank", "Method", "Preset", "Prune", "PrunedError", "Quantize", "Range", "SearchConfig",
    "SearchResult", "SearchSpace", "Setting", "TrainedClassifier", "TrainedModel", "Trial",
    "another_text", "as_code", "assess", "card_of", "check_equal", "compare", "compress_run",
    "compressed_from", "corpus_at", "create_study", "dynamically", "evaluate_on", "export_model",
    "export_program", "get_preset", "import_optuna", "in_one_stream", "in_words", "is_setting",
    "load_classifier", "load_run", "method_settings", "override", "place_of", "positive_class",
    "recorded", "recorded_preset", "resume_run", "settings_of", "standard_measures",
    "train_command", "train_on_file", "train_run", "tune", "with_cache", "with_temperature",
    "write_card",
]
