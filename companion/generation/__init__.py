"""Text generation: sampling, beam search, constraints, conversations."""

# fmt: off
from companion.generation.beam import Hypothesis, beam_search
from companion.generation.constraints import TokenAutomaton, allow_only
from companion.generation.conversation import ChatConfig, Conversations, converse
from companion.generation.decoding import SamplingConfig, generate, stream_tokens
from companion.generation.texts import endless, greedy_text, write_texts
from companion.generation.translation import Translation, Translator

__all__ = [
    "ChatConfig", "Conversations", "Hypothesis", "SamplingConfig", "TokenAutomaton",
    "Translation", "Translator", "allow_only", "beam_search", "converse", "endless",
    "generate", "greedy_text", "stream_tokens", "write_texts",
]
