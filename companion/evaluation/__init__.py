"""How good a model is, and how sure one can be of it."""

# fmt: off
from companion.evaluation.batch_size import (
    BatchSizeLaw, fit_batch_size_law, gradient_noise_scale,
)
from companion.evaluation.bias import (
    Association, Estimate, GroupRates, Questionnaire, association_test, mean_interval, odds_ratio,
    rates_by_group,
)
from companion.evaluation.calibration import (
    NoTemperatureError, Reliability, exact_calibration_error, fit_temperature, reliability,
    temperature_of,
)
from companion.evaluation.claims import (
    ClaimError, Claims, numbers_by_name, prediction_interval, spread, stored_report,
)
from companion.evaluation.classification import (
    ClassScores, Classification, class_scores, group_counts, group_means, precision_recall_f1,
)
from companion.evaluation.continuous_cache import (
    ContinuousCacheConfig, choose_cache, score_with_cache,
)
from companion.evaluation.cost import (
    PF_DAY, Cost, Hardware, inference_flops, processor_hours, training_flops, utilization,
)
from companion.evaluation.decisions import Decisions, cost_threshold, decide, with_share
from companion.evaluation.dynamic import (
    DivergedError, DynamicConfig, choose_dynamic, score_dynamically,
)
from companion.evaluation.repetition import (
    distinct_n, ngrams, repeated_segments, sequence_repetition,
)
from companion.evaluation.review import (
    Reviewer, agreement, corrected_share, expected_agreement, false_alarm_rate, found_in_queue,
    measured_miss_rate, miss_rate, observed_share, reviewed,
)
from companion.evaluation.scaling import (
    BESIROGLU, HOFFMANN, ScalingFit, ScalingLaw, Split, bootstrap_scaling_law, fit_scaling_law,
)
from companion.evaluation.scoring import (
    Evaluation, Scores, evaluate, joined_scores, score, scored_pieces, standard_error,
    starting_states, summarize, summed_nats_of_rows,
)
from companion.evaluation.significance import (
    Difference, Interval, Units, bootstrap, paired_bootstrap, text_units,
)
from companion.evaluation.texts import (
    LogProbsAndKL, log_probs_and_kl, next_log_probs, text_log_probs,
)
from companion.evaluation.translation import (
    MetricScore, TranslationScores, exact_match, look_up, pair_nats, score_translations,
)

__all__ = [
    "BESIROGLU", "HOFFMANN", "PF_DAY", "Association", "BatchSizeLaw", "ClaimError", "Claims",
    "ClassScores", "Classification", "ContinuousCacheConfig", "Cost", "Decisions", "Difference",
    "DivergedError", "DynamicConfig", "Estimate", "Evaluation", "GroupRates", "Hardware",
    "Interval", "LogProbsAndKL", "MetricScore", "NoTemperatureError", "Questionnaire",
    "Reliability", "Reviewer", "ScalingFit", "ScalingLaw", "Scores", "Split", "TranslationScores",
    "Units", "agreement", "association_test", "bootstrap", "bootstrap_scaling_law", "choose_cache",
    "choose_dynamic", "class_scores", "corrected_share", "cost_threshold", "decide", "distinct_n",
    "evaluate", "exact_calibration_error", "exact_match", "expected_agreement", "false_alarm_rate",
    "fit_batch_size_law", "fit_scaling_law", "fit_temperature", "found_in_queue",
    "gradient_noise_scale", "group_counts", "group_means", "inference_flops", "joined_scores",
    "log_probs_and_kl", "look_up", "mean_interval", "measured_miss_rate", "miss_rate",
    "next_log_probs", "ngrams", "numbers_by_name", "observed_share", "odds_ratio", "pair_nats",
    "paired_bootstrap", "precision_recall_f1", "prediction_interval", "processor_hours",
    "rates_by_group", "reliability", "repeated_segments", "reviewed", "score", "score_dynamically",
    "score_translations", "score_with_cache", "scored_pieces", "sequence_repetition",
    "spread", "standard_error", "starting_states", "stored_report", "summarize",
    "summed_nats_of_rows", "temperature_of", "text_log_probs", "text_units", "training_flops",
    "utilization", "with_share",
]
