"""Our LSTM as a model of Transformers: the same logits, texts and tokens, from its folder alone."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is in the extra of its name")

from companion.generation.beam import beam_search
from companion.generation.decoding import SamplingConfig, generate
from companion.interop import export
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.export import ExportError
from companion.runs.pipeline import TrainedModel
from companion.text.tokenizers import build_tokenizer

TEXT = "To be, or not to be:\nthat is the question. Ünïcode!\n" * 4
KINDS = {
    "plain": {"num_layers": 2},
    "tied": {"hidden_size": 6, "tie_weights": True},
    "narrow last": {"num_layers": 2, "last_size": 6, "tie_weights": True, "weight_drop": 0.2},
}


def lstm(vocabulary_size: int, **settings) -> LSTMLanguageModel:
    torch.manual_seed(0)
    sizes = {"embedding_size": 6, "hidden_size": 8, **settings}
    model = LSTMLanguageModel(LSTMConfig(vocabulary_size=vocabulary_size, **sizes))
    for parameter in model.parameters():  # larger, so that texts are not one token repeated
        parameter.data.mul_(3)
    return model.eval()


def trained(kind: str = "plain", tokens: str = "character") -> TrainedModel:
    tokenizer = build_tokenizer(tokens, [TEXT])
    model = lstm(tokenizer.vocabulary_size, **KINDS[kind])
    made = TrainedModel.__new__(TrainedModel)
    object.__setattr__(made, "model", model)
    object.__setattr__(made, "tokenizer", tokenizer)
    return made


@pytest.fixture(params=KINDS)
def pair(request):
    ours = lstm(20, **KINDS[request.param])
    return ours, export.to_transformers(ours, end_id=1)


def some_ids(*shape: int) -> torch.Tensor:
    return torch.randint(2, 20, shape, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_logits_and_a_carried_state_are_ours(pair) -> None:
    ours, theirs = pair
    ids = some_ids(3, 9)
    wanted, _ = ours(ids)
    torch.testing.assert_close(theirs(input_ids=ids).logits, wanted)
    first = theirs(input_ids=ids[:, :4], use_cache=True)
    cache = first.get("cache", first.get("past_key_values"))
    rest = theirs(input_ids=ids[:, 4:], cache=cache, use_cache=True)
    torch.testing.assert_close(torch.cat([first.logits, rest.logits], 1), wanted)
    assert cache.get_seq_length() == 9


@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_writes_our_greedy_texts_and_beams(pair, use_cache: bool) -> None:
    ours, theirs = pair
    prompt = some_ids(2, 3)
    wanted = generate(ours, prompt, 12, SamplingConfig(temperature=0))
    settings = {"max_new_tokens": 12, "eos_token_id": None, "do_sample": False,
                "use_cache": use_cache, "attention_mask": torch.ones_like(prompt)}  # fmt: skip
    theirs.generation_config.eos_token_id = None
    assert torch.equal(theirs.generate(prompt, **settings)[:, 3:], wanted)
    for row in range(2):
        beams = beam_search(ours, prompt[row], 12, width=3)
        one = {**settings, "attention_mask": torch.ones(1, 3, dtype=torch.long)}
        made = theirs.generate(
            prompt[row : row + 1], num_beams=3, num_return_sequences=3, length_penalty=0.0, **one
        )
        assert made[:, 3:].tolist() == [h.tokens for h in beams]


def test_decoding_that_would_cut_the_state_back_is_refused(pair) -> None:
    """A state cannot forget the last tokens: with a guess taken back the text would be another."""
    _, theirs = pair
    prompt = some_ids(1, 2).repeat(1, 3)  # repeats itself, so that there is something to guess
    with pytest.raises(ValueError, match="stateful"):
        theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False,
            eos_token_id=None, prompt_lookup_num_tokens=3,
        )  # fmt: skip


def test_texts_filled_up_on_the_left_are_read_as_they_are_alone(pair) -> None:
    ours, theirs = pair
    theirs.generation_config.eos_token_id = None
    short, long = some_ids(1, 3), some_ids(1, 6)
    rows = torch.cat([torch.cat([short.new_ones(1, 3), short], 1), long])
    mask = torch.ones_like(rows)
    mask[0, :3] = 0
    made = theirs.generate(rows, attention_mask=mask, max_new_tokens=8, do_sample=False,
                           eos_token_id=None)[:, 6:]  # fmt: skip
    for row, prompt in enumerate((short, long)):
        wanted = generate(ours, prompt, 8, SamplingConfig(temperature=0))
        assert torch.equal(made[row : row + 1], wanted)


@torch.no_grad()
def test_a_harness_that_asks_for_log_likelihoods_gets_our_surprisals(pair) -> None:
    """As lm-evaluation-harness does: context and continuation are read together, the continuation's
    log-probabilities are added up, and greedy means that each was the first guess."""
    ours, theirs = pair
    context, continuation = some_ids(5), some_ids(9)[5:]
    ids = torch.cat([context, continuation])
    log_probs = theirs(input_ids=ids[None, :-1]).logits[0].log_softmax(-1)[len(context) - 1 :]
    total = log_probs.gather(-1, continuation[:, None]).sum()
    nats = torch.nn.functional.cross_entropy(ours(ids[None, :-1])[0][0], ids[1:], reduction="none")
    assert float(total) == pytest.approx(-float(nats[len(context) - 1 :].sum()), rel=1e-5)
    labels = ids[None].masked_fill(torch.arange(len(ids)) < len(context), -100)
    loss = theirs(input_ids=ids[None], labels=labels).loss
    assert float(loss) == pytest.approx(-float(total) / len(continuation), rel=1e-5)


@pytest.mark.parametrize("kind", ["byte", "character", "word", "bpe"])
def test_a_tokenizer_has_our_ids(kind: str) -> None:
    ours = build_tokenizer(kind, [TEXT])
    theirs = export.tokenizer_for_transformers(ours)
    new = "Not to be? Zebra\n\nthe  question Ü"
    for text in (TEXT, new):
        ids = ours.encode(text)
        assert theirs(text, add_special_tokens=False)["input_ids"] == ids
        if kind != "word":
            assert theirs.decode(ids, skip_special_tokens=kind != "character") == (
                ours.decode(ids).replace("\ufffd", "<unk>")
            )
    assert theirs.eos_token_id == theirs.bos_token_id == ours.end_id


def test_the_folder_alone_is_enough(tmp_path) -> None:
    """Another process loads it that cannot import this package."""
    made = trained("tied")
    folder = export.export_for_transformers(made, tmp_path / "exported")
    ids = made.tokenizer.encode("to be")
    wanted = generate(made.model, torch.tensor([ids]), 6, SamplingConfig(temperature=0))
    program = """
import json, sys
sys.modules["companion"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer("to be", return_tensors="pt", add_special_tokens=False)
made = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"],
                      do_sample=False, max_new_tokens=6, eos_token_id=None)
print("TOKENS", json.dumps(made[0, inputs["input_ids"].shape[1]:].tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=tmp_path, capture_output=True, text=True,
        env={"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.split("TOKENS")[1]) == wanted[0].tolist()


def test_nothing_is_overwritten_and_what_cannot_be_exported_is_refused(tmp_path) -> None:
    with pytest.raises(ExportError, match="already exists"):
        export.export_for_transformers(trained(), tmp_path)
    with pytest.raises(ExportError, match="does not exist; make it first"):
        export.export_for_transformers(trained(), tmp_path / "a" / "b")
    adaptive = lstm(20, adaptive_cutoffs=(5,))
    with pytest.raises(ExportError, match="adaptive softmax"):
        export.to_transformers(adaptive, end_id=0)
    assert not list(tmp_path.iterdir())


def test_a_model_that_reads_back_differently_is_not_written(tmp_path, monkeypatch) -> None:
    def scaled(self, *arguments, **named):
        return original(self, *arguments, **named) * 2

    made = trained()
    original = type(made.model).logits
    monkeypatch.setattr(type(made.model), "logits", scaled)
    with pytest.raises(ExportError, match="differ from the model's"):
        export.export_for_transformers(made, tmp_path / "exported")
    assert not list(tmp_path.iterdir())
