"""Conversations: what is remembered, where turns end, and that side by side is as alone."""

from __future__ import annotations

import pytest
import torch

from companion.core.seeds import make_generator
from companion.generation.conversation import ChatConfig, Conversations, converse
from companion.generation.decoding import SamplingConfig, generate
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.transformer import TransformerModel
from companion.text.tokenizers import CharacterTokenizer, Tokenizer, WordTokenizer

WORDS = WordTokenizer(["a", "b", "c", "d", "you:", "me:"])
LINES = ChatConfig(user="you: ", bot="me: ", max_tokens=5)


def lstm(tokenizer: Tokenizer) -> LSTMLanguageModel:
    torch.manual_seed(3)
    config = LSTMConfig(vocabulary_size=tokenizer.vocabulary_size, embedding_size=6, hidden_size=7)
    return LSTMLanguageModel(config).double().eval()


def transformer(tokenizer: Tokenizer) -> TransformerModel:
    torch.manual_seed(3)
    made = TransformerModel(
        vocabulary_size=tokenizer.vocabulary_size, width=8, num_heads=2, max_length=80
    )
    return made.double().eval()


def by_hand(model: LanguageModel, tokenizer: Tokenizer, turns: list[str]) -> list[str]:
    """The replies where the whole text so far is read again at every turn."""
    text, replies = [tokenizer.end_id], []
    for turn in turns:
        text += tokenizer.encode(f"you: {turn}\nme: ")
        made = generate(
            model, torch.tensor([text]), 5, SamplingConfig(temperature=0), end_id=tokenizer.end_id
        )[0].tolist()
        if tokenizer.end_id in made:
            made = made[: made.index(tokenizer.end_id) + 1]
        text += made if made[-1] == tokenizer.end_id else [*made, tokenizer.end_id]
        replies.append(tokenizer.decode([i for i in made if i != tokenizer.end_id]))
    return replies


@pytest.mark.parametrize("make", [lstm, transformer])
def test_a_carried_state_replies_as_reading_the_whole_conversation_again_does(make) -> None:  # type: ignore[no-untyped-def]
    model, turns = make(WORDS), ["a b", "c", "d d a", "b"]
    found = converse(Conversations(model, WORDS, LINES), turns)
    assert found == list(zip(turns, by_hand(model, WORDS, turns), strict=True))


@pytest.mark.parametrize("make", [lstm, transformer])
def test_conversations_side_by_side_reply_as_each_alone(make) -> None:  # type: ignore[no-untyped-def]
    model = make(WORDS)
    texts = [["a b", "c", "d"], ["b", "b c d"], ["c", "a", "a a"]]
    together = Conversations(model, WORDS, LINES, count=3)
    for place in range(3):
        here = {row: turns[place] for row, turns in enumerate(texts) if place < len(turns)}
        replies = together.reply(here)
        assert list(replies) == list(here)
        for row, reply in replies.items():
            assert reply == by_hand(model, WORDS, texts[row][: place + 1])[-1]


def test_without_memory_each_turn_is_the_first() -> None:
    model = lstm(WORDS)
    config = ChatConfig(user="you: ", bot="me: ", max_tokens=5, memory=False)
    found = converse(Conversations(model, WORDS, config), ["a b", "c", "a b"])
    assert found[2] == found[0]
    assert found[1][1] == by_hand(model, WORDS, ["c"])[0]


def test_a_replaced_turn_is_what_the_model_remembers() -> None:
    model = lstm(WORDS)
    one, two = (Conversations(model, WORDS, LINES) for _ in range(2))
    one.reply({0: "a"})
    one.replace({0: "d d"})
    found = one.reply({0: "b"})[0]
    made = generate(
        model, torch.tensor([[1, *WORDS.encode("you: a\nme: d d\nyou: b\nme: ")]]), 5,
        SamplingConfig(temperature=0), end_id=1,
    )[0]  # fmt: skip
    assert found == WORDS.decode([i for i in made.tolist() if i != 1])
    with pytest.raises(ValueError, match="in conversation 0 there is no turn to replace yet"):
        two.replace({0: "a"})


def test_a_line_ends_at_the_line_feed_of_a_character_model_and_continued_text_does_not() -> None:
    characters = CharacterTokenizer(["\n", " ", ":", "a", "b"])
    model = lstm(characters)
    with torch.no_grad():
        bias = dict(model.named_parameters())["output.bias"]
        bias[characters.encode("\n")[0]] += 100  # it writes line feeds alone
    lines = Conversations(model, characters, ChatConfig(user="a: ", max_tokens=4))
    assert lines.reply({0: "b"}) == {0: ""}
    text = Conversations(model, characters, ChatConfig(max_tokens=4))
    assert text.reply({0: "b"}) == {0: "\n\n\n\n"}


def test_a_model_can_speak_first() -> None:
    model = lstm(WORDS)
    conversation = Conversations(model, WORDS, LINES, count=2)
    first = conversation.begin([1])[1]
    made = generate(
        model, torch.tensor([[1, *WORDS.encode("me: ")]]), 5, SamplingConfig(temperature=0),
        end_id=1,
    )  # fmt: skip
    assert first == WORDS.decode([i for i in made[0].tolist() if i != 1])
    with pytest.raises(ValueError, match="conversation 1 has begun; reply goes on with it"):
        conversation.begin([1])
    assert conversation.reply({0: "a"})[0] == by_hand(model, WORDS, ["a"])[0]


def test_sampled_replies_repeat_with_the_generator() -> None:
    model = lstm(WORDS)

    def sampled(seed: int) -> list[tuple[str, str]]:
        conversation = Conversations(
            model, WORDS, LINES, sampling=SamplingConfig(), generator=make_generator(seed)
        )
        return converse(conversation, ["a", "b", "c", "d"])

    assert sampled(0) == sampled(0)
    assert len({str(sampled(seed)) for seed in range(5)}) > 1


def test_wrong_input_is_refused_in_one_sentence() -> None:
    model = lstm(WORDS)
    with pytest.raises(ValueError, match="a turn must be one line"):
        Conversations(model, WORDS, LINES).reply({0: "a\nb"})
    with pytest.raises(ValueError, match="conversations are numbered from 0 to 1, got 2"):
        Conversations(model, WORDS, LINES, count=2).reply({2: "a"})
    with pytest.raises(ValueError, match="the model has 8 tokens and the tokenizer 3"):
        Conversations(model, CharacterTokenizer(["a"]))
    with pytest.raises(ValueError, match="training mode"):
        Conversations(lstm(WORDS).train(), WORDS)
    with pytest.raises(ValueError, match="max_tokens must be >= 1, got 0"):
        ChatConfig(max_tokens=0)
    plain = Conversations(model, WORDS, ChatConfig(begins=False))
    with pytest.raises(ValueError, match="a turn must hold a token or more, got none"):
        plain.reply({0: " "})


def test_a_conversation_longer_than_a_model_reads_says_so() -> None:
    torch.manual_seed(0)
    short = TransformerModel(vocabulary_size=8, width=8, num_heads=2, max_length=12).eval()
    conversation = Conversations(short, WORDS, LINES)
    with pytest.raises(ValueError, match="the model has positions for 12 tokens"):
        converse(conversation, ["a", "b", "c", "d"])
