"""A tiny model of Transformers with random weights, and a tokenizer for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason="transformers is in the extra of its name"
)

TEXT = "the capital of france is paris . what is it ? tell me which city it is ! " * 3


def llama(vocabulary_size: int = 300, **settings: Any) -> Any:
    """Two layers, with fewer heads for keys than for queries."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    config = transformers.LlamaConfig(
        vocab_size=vocabulary_size, max_position_embeddings=96, bos_token_id=0, eos_token_id=1,
        pad_token_id=1, initializer_range=0.5, **{**sizes, **settings},
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


def gpt2() -> Any:
    """A GPT-2 of two layers, which learns its positions."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=96, bos_token_id=0,
        eos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config).eval()


def tokenizer() -> Any:
    """Bytes, and two special tokens with ids 0 and 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from companion.interop.smollm2 import CHAT_TEMPLATE

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    made.train_from_iterator([TEXT], trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|im_start|>", eos_token="<|im_end|>",
        pad_token="<|im_end|>", chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def folder(path: Path) -> Path:
    """A folder with both, as `save_pretrained` writes it."""
    llama().save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path
