"""Models of Transformers behind our interface: the same numbers, and every promise of a model."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch.nn.functional import cross_entropy

pytest.importorskip("transformers", reason="transformers is in the extra of its name")

import tiny_transformers as tiny

from companion.evaluation.scoring import evaluate, score
from companion.generalization.canaries import code_log_probs, code_rank
from companion.generation.beam import beam_search
from companion.generation.conversation import ChatConfig, Conversations
from companion.generation.decoding import SamplingConfig, generate
from companion.interop.hugging_face import HuggingFaceModel, HuggingFaceTokenizer

V = 300


@pytest.fixture(scope="module", params=[tiny.llama, tiny.gpt2], ids=["llama", "gpt2"])
def library(request):
    return request.param()


@pytest.fixture
def model(library):
    return HuggingFaceModel(library).eval()


def some_ids(*shape: int) -> torch.Tensor:
    return torch.randint(2, V, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_logits_are_those_of_transformers(library, model) -> None:
    ids = some_ids(3, 11)
    # The same kernels run in the same order.
    torch.testing.assert_close(model(ids)[0], library(input_ids=ids).logits, rtol=0, atol=0)


@torch.no_grad()
def test_a_text_read_in_parts_has_the_logits_of_reading_it_at_once(model) -> None:
    ids = some_ids(2, 12)
    whole, _ = model(ids)
    state, parts = None, []
    for first, last in ((0, 5), (5, 6), (6, 12)):
        logits, state = model(ids[:, first:last], state)
        parts.append(logits)
    # Attention sums in another order: float32 rounding of logits of size about ten.
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-4)
    begun, _ = model(ids, model.initial_state(2))
    torch.testing.assert_close(begun, whole)


@torch.no_grad()
def test_a_state_goes_on_twice_and_its_rows_are_chosen_repeated_and_joined(model) -> None:
    ids = some_ids(3, 7)
    _, state = model(ids[:, :4])
    before = [part.clone() for part in state]
    rows = torch.tensor([2, 0, 2])
    again, _ = model(ids[rows][:, 4:], model.select_rows(state, rows))
    wanted, _ = model(ids[:, 4:], state)  # from the same state a second time
    torch.testing.assert_close(again, wanted[rows], rtol=1e-4, atol=1e-4)
    assert all(map(torch.equal, before, state))
    apart = [model.select_rows(state, torch.tensor([row])) for row in range(3)]
    assert all(map(torch.equal, model.join_rows(apart), state))


@torch.no_grad()
def test_what_fills_a_row_up_on_the_right_changes_nothing_before_it(model) -> None:
    short = some_ids(1, 5)
    filled = torch.cat([short, short.new_ones(1, 4)], dim=1)
    torch.testing.assert_close(model(filled)[0][:, :5], model(short)[0], rtol=1e-4, atol=1e-4)


def test_greedy_texts_are_those_of_generate(library, model) -> None:
    prompt = some_ids(2, 4)
    ours = generate(model, prompt, 12, SamplingConfig(temperature=0), end_id=1)
    theirs = library.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                              max_new_tokens=12)[:, 4:]  # fmt: skip
    assert torch.equal(ours, theirs[:, : ours.shape[1]])


@pytest.mark.parametrize("width", [2, 4])
def test_beams_are_those_of_generate(library, model, width: int) -> None:
    """Without an end, where the two searches stop by different rules."""
    prompt = some_ids(1, 4)
    ours = beam_search(model, prompt[0], 8, width=width)
    library.generation_config.eos_token_id = None
    theirs = library.generate(
        prompt, attention_mask=torch.ones_like(prompt), num_beams=width, do_sample=False,
        max_new_tokens=8, num_return_sequences=width, eos_token_id=None, length_penalty=0.0,
    )  # fmt: skip
    assert [h.tokens for h in ours] == theirs[:, 4:].tolist()
    assert len({tuple(h.tokens) for h in ours}) == width


def test_scores_are_the_cross_entropy_of_transformers_own_loss(library, model) -> None:
    ids = some_ids(40)
    with torch.no_grad():
        logits = library(input_ids=ids[None, :-1]).logits[0]
    scores = score(model, ids, num_streams=1, window_length=7)
    torch.testing.assert_close(
        scores.nats, cross_entropy(logits, ids[1:], reduction="none"), rtol=1e-4, atol=1e-4
    )


def test_a_text_longer_than_the_positions_is_refused_with_what_to_do(model) -> None:
    with pytest.raises(ValueError, match="positions for 96 tokens, got 97; read shorter"):
        model(some_ids(1, 97))
    _, state = model(some_ids(1, 90))
    with pytest.raises(ValueError, match="positions for 96 tokens, got 97"):
        model(some_ids(1, 7), state)
    with pytest.raises(ValueError, match="give num_streams=3 or more"):
        score(model, some_ids(201), num_streams=2)


def test_ranks_of_codes_are_those_by_reading_each_code(model) -> None:
    model.requires_grad_(False)
    prompt, digits = some_ids(3), torch.tensor([5, 9, 11])
    found = code_log_probs(model, prompt, digits, 2)
    for number in range(9):
        code = digits[[number // 3, number % 3]]
        logits, _ = model(torch.cat([prompt, code[:1]])[None])
        wanted = -cross_entropy(logits[0, 2:], code, reduction="sum")
        assert float(found[number]) == pytest.approx(float(wanted), abs=1e-4)
    assert code_rank(model, prompt, digits, divmod(int(found.argmax()), 3)) == 1


def test_it_trains_and_its_gradients_are_those_of_transformers(library, model) -> None:
    ids = some_ids(2, 6)
    model.zero_grad()
    model.requires_grad_(True)
    cross_entropy(model(ids)[0].flatten(0, 1), ids.flatten()).backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    cross_entropy(library(input_ids=ids).logits.flatten(0, 1), ids.flatten()).backward()
    for one, other in zip(ours, library.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad)


def test_logits_that_change_after_the_output_layer_are_kept() -> None:
    """Gemma's soft cap: the output layer alone would give other logits."""
    config = tiny.transformers.Gemma2Config(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, final_logit_softcapping=0.05,
        max_position_embeddings=64, initializer_range=0.5, sliding_window=4,
    )  # fmt: skip
    torch.manual_seed(0)
    library = tiny.transformers.Gemma2ForCausalLM(config).eval()
    model, ids = HuggingFaceModel(library).eval(), some_ids(1, 9)
    with torch.no_grad():
        wanted = library(input_ids=ids).logits
        first, state = model(ids[:, :6])
        rest, _ = model(ids[:, 6:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), wanted, rtol=1e-4, atol=1e-5)
    assert float(wanted.abs().max()) <= 0.0501


def test_a_soft_cap_that_does_not_show_at_first_is_kept_when_training_has_made_it_show() -> None:
    config = tiny.transformers.Gemma2Config(
        vocab_size=V, hidden_size=16, intermediate_size=24, num_hidden_layers=2, head_dim=8,
        num_attention_heads=2, num_key_value_heads=1, final_logit_softcapping=5.0,
        max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(0)
    library = tiny.transformers.Gemma2ForCausalLM(config).eval()
    model, ids = HuggingFaceModel(library).eval(), some_ids(1, 9)
    library.get_output_embeddings().weight.data.mul_(200)  # as if by training
    with torch.no_grad():
        wanted, found = library(input_ids=ids).logits, model(ids)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert float(wanted.abs().max()) > 4  # the cap bites


def test_what_is_no_causal_model_is_refused_with_the_reason() -> None:
    with pytest.raises(TypeError, match="must be a model of transformers"):
        HuggingFaceModel(torch.nn.Linear(2, 2))
    lonely = tiny.transformers.LlamaModel(tiny.llama().config)
    with pytest.raises(ValueError, match="must predict the next token"):
        HuggingFaceModel(lonely)
    config = tiny.transformers.MambaConfig(
        vocab_size=V, hidden_size=8, num_hidden_layers=1, state_size=4
    )
    with pytest.raises(ValueError, match="remembers something else"):
        HuggingFaceModel(tiny.transformers.MambaForCausalLM(config))


def test_a_missing_transformers_is_one_sentence(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"python -m pip install transformers$"):
        HuggingFaceModel(None)


def test_a_tokenizer_reads_special_tokens_as_letters_and_writes_a_chat() -> None:
    library = tiny.tokenizer()
    tokenizer = HuggingFaceTokenizer(library, vocabulary_size=V)
    text = "paris <|im_end|> été\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.end_id not in tokenizer.encode(text)
    assert (tokenizer.end_id, tokenizer.vocabulary_size) == (1, V)
    ids = tokenizer.chat("what ?", "paris", "is it ?", prefill="it")
    assert library.decode(ids) == (
        "<|im_start|>user\nwhat ?<|im_end|>\n<|im_start|>assistant\nparis<|im_end|>\n"
        "<|im_start|>user\nis it ?<|im_end|>\n<|im_start|>assistant\nit"
    )
    assert tokenizer.decode([299]) == ""
    with pytest.raises(ValueError, match="odd in number"):
        tokenizer.chat("a", "b")
    with pytest.raises(ValueError, match="vocabulary_size must be at least"):
        HuggingFaceTokenizer(library, vocabulary_size=3)
    with pytest.raises(ValueError, match="end must be a token"):
        HuggingFaceTokenizer(library, end="nothing")
    with pytest.raises(TypeError, match="must be a tokenizer of transformers"):
        HuggingFaceTokenizer("a folder")


def test_conversations_and_bits_per_byte_work_unchanged() -> None:
    model = HuggingFaceModel(tiny.llama()).eval()
    tokenizer = HuggingFaceTokenizer(tiny.tokenizer(), vocabulary_size=V)
    chat = Conversations(model, tokenizer, ChatConfig(max_tokens=3), count=2)
    assert set(chat.reply({0: "what is it ?", 1: "paris"})) == {0, 1}
    torch.nn.init.zeros_(model.library.lm_head.weight)
    text = "the capital of france"
    ids = torch.tensor([tokenizer.end_id, *tokenizer.encode(text)])
    found = evaluate(model, ids, num_bytes=len(text), num_streams=1).bits_per_byte
    assert found == pytest.approx((len(ids) - 1) * math.log2(V) / len(text), rel=1e-5)
