"""A trained LSTM as a folder that Transformers loads, with weights, tokenizer and source.

companion export RUN --format transformers --out FOLDER
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from companion.core.files import whole_folder
from companion.interop.hugging_face import transformers_library
from companion.models.lstm import LSTMLanguageModel, LSTMStack
from companion.runs.export import ExportError
from companion.runs.pipeline import TrainedModel
from companion.text.tokenizers import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    WordTokenizer,
    byte_of_letter,
)


def export_for_transformers(trained: TrainedModel, out: str | Path) -> Path:
    """Write `trained` to the new folder `out`, from which Transformers loads it without this
    package.

    The folder appears only after its model was read back and gave the model's own logits. A text
    begins with the end token, which is the tokenizer's bos_token, eos_token and pad_token at once.
    Raises ExportError if `out` exists, its folder is missing, or the model has an adaptive softmax;
    ValueError where Transformers is missing; FileError if it cannot be written.
    """
    path = Path(out)
    if path.exists():
        raise ExportError(f"{path} already exists; choose another folder")
    if not path.resolve().parent.is_dir():
        raise ExportError(f"the folder of {path} does not exist; make it first")
    transformers_library()
    model = to_transformers(trained.model, end_id=trained.tokenizer.end_id)
    tokenizer = tokenizer_for_transformers(trained.tokenizer)
    classes = importlib.import_module("companion.interop.lstm_for_transformers")
    classes.TrainedToPredictConfig.register_for_auto_class()
    classes.TrainedToPredictLSTM.register_for_auto_class("AutoModelForCausalLM")
    with whole_folder(path) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        again = classes.TrainedToPredictLSTM.from_pretrained(partial)
        _check_equal(again, trained.model)
    return path


def to_transformers(model: LSTMLanguageModel, *, end_id: int) -> Any:
    """The model as a `TrainedToPredictLSTM` in evaluation mode; ExportError for an adaptive
    softmax, whose output layer Transformers does not know."""
    if not isinstance(model.output, nn.Linear):
        raise ExportError(
            "a model with an adaptive softmax cannot be exported for transformers; train one with "
            "adaptive_cutoffs=() "
        )
    classes = importlib.import_module("companion.interop.lstm_for_transformers")
    config = classes.TrainedToPredictConfig(
        vocab_size=model.vocabulary_size,
        embedding_size=model.config.embedding_size,
        layer_sizes=model.config.layer_sizes,
        tie_word_embeddings=model.config.tie_weights,
        bos_token_id=end_id,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )
    made = classes.TrainedToPredictLSTM(config)
    weights = {
        "embedding.weight": model.embedding.weight,
        "output.weight": model.output.weight,
        "output.bias": model.output.bias,
    }
    stack = isinstance(model.lstm, LSTMStack)
    for index in range(model.config.num_layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            own = f"layers.{index}.{name}_l0" if stack else f"{name}_l{index}"
            weights[f"layers.{index}.{name}_l0"] = model.lstm.get_parameter(own)
    made.load_state_dict({name: each.detach().cpu() for name, each in weights.items()})
    return made.eval()


def tokenizer_for_transformers(tokenizer: Tokenizer) -> Any:
    """One of our tokenizers as one of Transformers, with the same ids.

    Words are joined with single spaces when they are decoded, and the line feed shows as `<eos>`.
    """
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as LibraryTokenizer

    letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
    names: dict[str, str] = {}
    end = "<end>"
    if isinstance(tokenizer, ByteTokenizer):
        made = LibraryTokenizer(models.BPE(byte_of_letter(), []))  # without merges, bytes
        made.pre_tokenizer, made.decoder = letters, decoders.ByteLevel()
    elif isinstance(tokenizer, BPETokenizer):
        fields = tokenizer.to_dict()
        pieces = {piece: place for place, piece in enumerate(fields["pieces"])}
        made = LibraryTokenizer(models.BPE(pieces, list(map(tuple, fields["merges"]))))
        made.pre_tokenizer, made.decoder = letters, decoders.ByteLevel()
    elif isinstance(tokenizer, CharacterTokenizer | WordTokenizer):
        ids = {token: place for place, token in enumerate(tokenizer.tokens)}
        made = LibraryTokenizer(models.WordLevel(ids, unk_token="<unk>"))
        names = {"unk_token": "<unk>"}
        if isinstance(tokenizer, CharacterTokenizer):
            made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
            made.decoder = decoders.Fuse()
        else:
            end = "<eos>"
            made.normalizer = normalizers.Replace("\n", " <eos> ")
            made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        raise ExportError(f"a tokenizer of kind {tokenizer.kind} cannot be exported")
    library = transformers_library().PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=end, eos_token=end, pad_token=end,
        clean_up_tokenization_spaces=False, **names,
    )  # fmt: skip
    if library.eos_token_id != tokenizer.end_id or len(library) != tokenizer.vocabulary_size:
        raise ExportError("the exported tokenizer's ids differ from ours; nothing was written")
    return library


def _check_equal(exported: Any, model: LSTMLanguageModel) -> None:
    """Raise ExportError unless both give the same logits on random tokens."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.vocabulary_size, (2, 9), generator=generator)
    with torch.no_grad():
        made, wanted = exported(input_ids=ids).logits, model(ids.to(model.device))[0].cpu()
    if not torch.allclose(made, wanted, rtol=1e-4, atol=1e-5):
        raise ExportError("the exported model's logits differ from the model's; nothing is written")
