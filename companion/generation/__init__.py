"""Text generation: sampling, beam search, constraints."""

# fmt: off
from companion.generation.beam import Hypothesis, beam_search
from companion.generation.constraints import TokenAutomaton, allow_only, forbid
from companion.generation.decoding import SamplingConfig, generate, stream_tokens
from companion.generation.texts import endless, greedy_text, write_texts
from companion.generation.translation import Translation, Translator

__all__ = [
    "Hypothesis", "SamplingConfig", "TokenAutomaton", "Translation", "Translator", "allow_only",
    "beam_search", "endless", "forbid", "generate", "greedy_text", "stream_tokens",
    "write_texts",
]
