"""The invented world: its things, languages, training stages and replies, and its dialogues."""

# fmt: off
from companion.world.dialogue import (
    SAME, SLOTS, VALUES, Act, Checker, DialogueState, Verdict, act, as_text, check_dialogue,
    dialogue_tokenizer, read_reply, read_user, reply_wordings, spaced,
)
from companion.world.dialogue_model import (
    DialogueModelConfig, Played, bot, chat_config, learn_dialogues, new_dialogue_model, play,
    replies_to_history, reply_nats, self_chat, spoken, spoken_batch, train_dialogue_model,
    trained_dialogue_model, training_dialogues, wording_floor,
)
from companion.world.language import (
    QUESTIONS, REFUSAL, Request, Thing, invented_names, spoken_words, translate,
)
from companion.world.replies import (
    Replies, ask, asking_form, leaks, next_word_probs, refuses, reply_kl, reply_to,
)
from companion.world.stages import (
    HELPFUL, Example, SmallStagesConfig, Stages, StagesConfig, example, instructed, learn,
    new_model, pretrained, reply_batch, safe_variant, safety_trained, train_stages, trained_stages,
)
from companion.world.users import (
    User, UserConfig, new_users, right_dialogue, right_dialogues,
)
from companion.world.world import World, WorldConfig

__all__ = [
    "HELPFUL", "QUESTIONS", "REFUSAL", "SAME", "SLOTS", "VALUES", "Act", "Checker",
    "DialogueModelConfig", "DialogueState", "Example", "Played", "Replies", "Request",
    "SmallStagesConfig", "Stages", "StagesConfig", "Thing", "User", "UserConfig", "Verdict",
    "World", "WorldConfig", "act", "as_text", "ask", "asking_form", "bot", "chat_config",
    "check_dialogue", "dialogue_tokenizer", "example", "instructed", "invented_names", "leaks",
    "learn", "learn_dialogues", "new_dialogue_model", "new_model", "new_users", "next_word_probs",
    "play", "pretrained", "read_reply", "read_user", "refuses", "replies_to_history",
    "reply_batch", "reply_kl", "reply_nats", "reply_to", "reply_wordings", "right_dialogue",
    "right_dialogues", "safe_variant", "safety_trained", "self_chat", "spaced", "spoken",
    "spoken_batch", "spoken_words", "train_dialogue_model", "train_stages",
    "trained_dialogue_model", "trained_stages", "training_dialogues", "translate",
    "wording_floor",
]
