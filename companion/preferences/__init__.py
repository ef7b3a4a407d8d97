"""Preferences: gold and proxy rewards, and tuning a model by them."""

# fmt: off
from companion.preferences.best_of_n import (
    GoldFit, best_of_n_kl, best_of_n_values, best_of_n_weights, fit_gold_curves,
)
from companion.preferences.comparisons import (
    Pairs, bradley_terry_nats, noisy_pairs, pairwise_accuracy,
)
from companion.preferences.dpo import DPOConfig, DPORecord, dpo_loss, train_dpo
from companion.preferences.gold_reward import (
    QualityParts, quality_parts, quality_terms, review_quality,
)
from companion.preferences.judged_reviews import JudgedReviewsConfig
from companion.preferences.policy_gradient import PolicyGradientConfig, policy_loss, train_policy
from companion.preferences.reward_models import (
    BagOfWordsReward, GoldFormReward, LSTMReward, fit_bag_of_words, fit_gold_form,
    fit_lstm_reward, token_counts,
)
from companion.preferences.tuning_costs import TuningCosts, whole_sentences

__all__ = [
    "BagOfWordsReward", "DPOConfig", "DPORecord", "GoldFit", "GoldFormReward",
    "JudgedReviewsConfig", "LSTMReward", "Pairs", "PolicyGradientConfig", "QualityParts",
    "TuningCosts", "best_of_n_kl", "best_of_n_values", "best_of_n_weights",
    "bradley_terry_nats", "dpo_loss", "fit_bag_of_words", "fit_gold_curves", "fit_gold_form",
    "fit_lstm_reward", "noisy_pairs", "pairwise_accuracy", "policy_loss", "quality_parts",
    "quality_terms", "review_quality", "token_counts", "train_dpo", "train_policy",
    "whole_sentences",
]
