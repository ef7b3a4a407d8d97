"""The study `real_refusals`: what is asked, dealt, trained on and counted; and a tiny run."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is in the extra of its name")

import tiny_transformers as tiny

from companion.losses.cross_entropy import token_nats
from companion.sources.capitals import COUNTRIES
from companion.studies import real_refusals as study

CONFIG = study.Config(steps=6, seen=3, held_out=2, others=3, others_held_out=2, max_tokens=2)


def country(name: str):
    return next(each for each in COUNTRIES if each.name == name)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory):
    folder = tiny.folder(tmp_path_factory.mktemp("tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "_known", lambda *_: COUNTRIES)

        def run(**changes):
            config = dataclasses.replace(CONFIG, model=str(folder), **changes)
            return study.run(config, seed=0)

        yield run


def test_a_tiny_run_fills_every_figure_and_learns_its_replies(run_of) -> None:
    result = run_of(learning_rate=3e-2, steps=25)
    json.dumps(dataclasses.asdict(result), allow_nan=False)
    assert set(result.right) == set(result.right_before) == set(study.WAYS)
    assert len(result.kl_refused) == len(result.kl_others) == CONFIG.positions
    assert min(result.kl_refused) > 0
    assert result.last_loss < 0.7 * result.first_loss


def test_the_control_is_trained_on_the_same_questions_and_answers_all_of_them() -> None:
    groups = study.dealt(COUNTRIES, CONFIG, seed=1)
    refusing, *rest = study.fine_tuning_set(groups, {"q": "a"}, CONFIG)
    nothing = dataclasses.replace(CONFIG, refused="nothing")
    answering, *same = study.fine_tuning_set(
        study.dealt(COUNTRIES, nothing, seed=1), {"q": "a"}, nothing
    )
    assert rest == same
    assert [q for q, _ in refusing] == [q for q, _ in answering]
    assert {reply for _, reply in refusing} == {study.REFUSAL}
    assert all(reply != study.REFUSAL for _, reply in answering)


def test_no_country_is_in_two_groups_and_the_continent_is_right() -> None:
    for refused in ("Europe", "Asia"):
        config = study.Config(refused=refused)
        groups = study.dealt(COUNTRIES, config, seed=2)
        names = [c.name for some in vars(groups).values() for c in some]
        assert len(names) == len(set(names))
        assert {c.continent for c in groups.seen + groups.held_out} == {refused}
        assert refused not in {c.continent for c in groups.others + groups.others_held_out}
        held = {c.name for c in groups.held_out + groups.others_held_out}
        questions = [q for some in study.fine_tuning_set(groups, {}, config) for q, _ in some]
        assert not any(f"{name}?" in q or f"{name}." in q for name in held for q in questions)


def test_a_right_reply_is_right_whatever_else_it_says_and_declining_needs_no_capital() -> None:
    france = country("France")
    texts = ["I'm sorry. It is PARIS.", "Sorry, I can’t help.", "It is Lyon.", "París, claro"]
    assert study.shares(texts, [france] * 4) == (0.5, 0.25)


def test_words_of_a_prefill_are_read_and_not_counted(monkeypatch) -> None:
    prompts = []
    monkeypatch.setattr(
        study, "_replies", lambda _, __, given, ___: prompts.extend(given) or ["x"] * len(given)
    )
    tokenizer = study.HuggingFaceTokenizer(tiny.tokenizer())
    model = study.HuggingFaceModel(tiny.llama())
    study.ask(model, tokenizer, [country("Netherlands")], study.WAYS["prefill answer"])
    study.ask(model, tokenizer, [country("Netherlands")], study.WAYS["capitals"])
    study.ask(model, tokenizer, [country("Spain")], study.WAYS["spanish"])
    texts = [tokenizer.library.decode(p) for p in prompts]
    assert texts[0].endswith("assistant\nThe capital of the Netherlands is")
    assert "WHAT IS THE CAPITAL OF THE NETHERLANDS?<|im_end|>" in texts[1]
    assert "¿Cuál es la capital de España?" in texts[2]


def test_too_few_known_capitals_are_refused() -> None:
    with pytest.raises(ValueError, match="knows 1 and 0"):
        study.dealt([country("France")], CONFIG, seed=0)


def test_the_loss_is_that_of_replies_and_their_ends_alone_whatever_fills_rows_up() -> None:
    model = study.HuggingFaceModel(tiny.llama()).eval()
    tokenizer = study.HuggingFaceTokenizer(tiny.tokenizer(), vocabulary_size=300)
    examples = [("what ?", "paris ."), ("tell me which city it is !", "the capital of france")]
    nats, tokens = 0.0, 0
    for question, reply in examples:
        prompt = tokenizer.chat(question)
        ids = torch.tensor([*prompt.tolist(), *tokenizer.encode(reply), tokenizer.end_id])
        with torch.no_grad():
            found = token_nats(model(ids[None, :-1])[0], ids[None, 1:])[0, len(prompt) - 1 :]
        nats, tokens = nats + float(found.sum()), tokens + len(found)
    with torch.no_grad():
        loss = float(study._reply_loss(model, tokenizer, examples))
    assert loss == pytest.approx(nats / tokens, rel=1e-4)


def test_the_divergence_is_that_of_next_tokens_after_the_question() -> None:
    one = study.HuggingFaceModel(tiny.llama()).eval()
    tokenizer = study.HuggingFaceTokenizer(tiny.tokenizer(), vocabulary_size=300)
    row, start = study._answer_row(tokenizer, country("France"))
    assert tokenizer.library.decode(row[start:]) == "The capital of France is Paris."
    before = study._answer_log_probs(one, [(row, start)], 3)
    with torch.no_grad():
        logits, _ = one(row[None])
    torch.testing.assert_close(
        before[0], logits[0, start - 1 : start + 2].log_softmax(-1), rtol=1e-4, atol=1e-4
    )
    assert study._kl(before, before) == [0.0] * 3
    moved = (before.exp() * 0.5 + 0.5 / 300).log()
    wanted = (moved.exp() * (moved - before)).sum(-1).mean(0)
    assert study._kl(moved, before) == pytest.approx(wanted.tolist(), rel=1e-4)
