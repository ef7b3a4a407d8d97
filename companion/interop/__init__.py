"""Models of other libraries behind our interface, and ours for theirs.

Nothing here needs Transformers until it is called. `lstm_for_transformers` is the source that
exported models carry: it needs torch and transformers alone, and is imported by them.
"""

# fmt: off
from companion.interop.export import (
    export_for_transformers, to_transformers, tokenizer_for_transformers,
)
from companion.interop.hugging_face import (
    HuggingFaceModel, HuggingFaceTokenizer, transformers_library,
)
from companion.interop.smollm2 import END_OF_TEXT, load_pretrained, missing_for_smollm2
from companion.interop.smollm2 import load_smollm2

__all__ = [
    "END_OF_TEXT", "HuggingFaceModel", "HuggingFaceTokenizer", "export_for_transformers",
    "load_pretrained", "load_smollm2", "missing_for_smollm2", "to_transformers",
    "tokenizer_for_transformers", "transformers_library",
]
