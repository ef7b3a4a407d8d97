"""The invented world for studying refusals: its things, languages, training stages and replies."""

# fmt: off
from companion.world.language import (
    QUESTIONS, REFUSAL, Request, Thing, invented_names, spoken_words, translate,
)
from companion.world.replies import (
    Replies, ask, leaks, next_word_probs, refuses, reply_kl, reply_to,
)
from companion.world.stages import (
    HELPFUL, Example, SmallStagesConfig, Stages, StagesConfig, example, instructed, learn,
    new_model, pretrained, reply_batch, safe_variant, safety_trained, train_stages, trained_stages,
)
from companion.world.world import World, WorldConfig

__all__ = [
    "HELPFUL", "QUESTIONS", "REFUSAL", "Example", "Replies", "Request",
    "SmallStagesConfig", "Stages", "StagesConfig", "Thing", "World", "WorldConfig", "ask",
    "example", "instructed", "invented_names", "leaks", "learn", "new_model",
    "next_word_probs", "pretrained", "refuses", "reply_batch", "reply_kl", "reply_to",
    "safe_variant", "safety_trained", "spoken_words", "train_stages", "trained_stages",
    "translate",
]
