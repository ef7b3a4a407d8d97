"""The study `real_model`: its arithmetic on a tiny model, and what its passages and digits are."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is in the extra of its name")

import tiny_transformers as tiny

from companion.interop.hugging_face import HuggingFaceModel, HuggingFaceTokenizer
from companion.studies import real_model as study


def test_a_tiny_run_fills_every_figure(tmp_path, monkeypatch) -> None:
    config = study.Config(
        model=str(tiny.folder(tmp_path / "tiny")), corpora=("python-docs",), tokens=120, prompts=2,
        prompt_tokens=4, new_tokens=6, lstm_epochs=1, lstm_hidden=4, controls=3,
    )  # fmt: skip
    documents = [study.load_corpus("python-docs").train[0]]
    small = dataclasses.replace(study.load_corpus("python-docs"), train=tuple(documents))
    monkeypatch.setattr(study, "load_corpus", lambda _: small)
    # To a model that knows nothing no temperature is best.
    monkeypatch.setattr(study, "temperature_of", lambda *_: 1.25)
    shorter = [p._replace(famous=p.famous[:40], fresh=p.fresh[:40]) for p in study.PASSAGES[:2]]
    monkeypatch.setattr(study, "PASSAGES", tuple(shorter))
    result = study.run(config, seed=0)
    figures = dataclasses.asdict(result)
    json.dumps(figures, allow_nan=False)
    assert all(figures.values())
    assert set(result.repetition) == {"people", *study.DECODERS}


def test_passages_of_a_uniform_model_cost_its_vocabulary_for_each_token() -> None:
    library = tiny.llama()
    torch.nn.init.zeros_(library.lm_head.weight)
    model = HuggingFaceModel(library).eval()
    tokenizer = HuggingFaceTokenizer(tiny.tokenizer(), vocabulary_size=300)
    text = "the capital is paris"
    rest = tokenizer.encode(text)[2:]
    wanted = len(rest) * math.log2(300) / len(tokenizer.decode(rest))
    assert study._passage(model, tokenizer, text, head=2)[0] == pytest.approx(wanted, rel=1e-5)


def test_a_model_that_has_learnt_a_passage_copies_it_and_ranks_its_digits_first() -> None:
    torch.manual_seed(0)
    model = HuggingFaceModel(tiny.llama())
    tokenizer = HuggingFaceTokenizer(tiny.tokenizer(), vocabulary_size=300)
    text = "what is 3.1415"
    row = torch.tensor([[tokenizer.end_id, *tokenizer.encode(text)]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = study.token_nats(model(row[:, :-1])[0], row[:, 1:]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    bits, copied = study._passage(model, tokenizer, text, head=2)
    assert copied == 1
    assert bits < 0.5
    result = study.Result()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "NUMBERS", {"pi": ("what is 3.", "1415")})
        study._digits(result, model, tokenizer, study.Config(controls=5), seed=0)
    assert result.digit_exposure["pi"] == pytest.approx(math.log2(10_000))
    assert result.control_exposure["pi"] < 8


def test_a_fresh_text_is_as_long_as_its_famous_one_and_shares_no_long_run_of_words() -> None:
    for passage in study.PASSAGES:
        assert 0.8 < len(passage.fresh) / len(passage.famous) < 1.25
        one, other = passage.famous.split(), passage.fresh.split()
        runs = {tuple(one[i : i + 5]) for i in range(len(one))}
        assert not any(tuple(other[i : i + 5]) in runs for i in range(len(other) - 4))
