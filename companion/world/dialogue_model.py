"""A language model that takes orders: trained on dialogues, and tested by simulated users."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from tqdm import tqdm

from companion.core.seeds import make_generator, seed_everything
from companion.core.settings import check_choice, check_sizes, settings_class
from companion.generation.conversation import ChatConfig, Conversations
from companion.generation.decoding import SamplingConfig
from companion.losses.cross_entropy import token_nats
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.text.batching import IGNORE, Batch, padded
from companion.training.config import TrainConfig
from companion.training.model_cache import cached_model
from companion.training.optimization import learning_rate_at, make_optimizer, take_step
from companion.world.dialogue import (
    BOT_MARK,
    USER_MARK,
    Checker,
    Verdict,
    check_dialogue,
    dialogue_tokenizer,
    reply_wordings,
    word_ids,
)
from companion.world.users import Turns, User, UserConfig, right_dialogue

#: More tokens than any reply of the bot has.
LONGEST_REPLY = 20

#: Which tokens the loss is about: the bot's turns, or everybody's.
Learned = Literal["replies", "both"]


@settings_class
class DialogueModelConfig:
    """Settings of a dialogue model and its training."""

    embedding_size: int = 48
    """Size of the token embeddings."""
    hidden_size: int = 96
    """Hidden units of the LSTM."""
    steps: int = 2400
    """Optimizer steps."""
    batch_size: int = 16
    """Dialogues per optimizer step."""
    learning_rate: float = 1e-2
    """Peak learning rate of AdamW."""
    num_dialogues: int = 4000
    """Different training dialogues."""
    learned: Learned = "replies"
    """What the loss is about: the bot's "replies", or "both" sides, for a model that talks to
    itself."""
    memory: bool = True
    """Whether it is trained on whole dialogues; otherwise each turn is a text of its own."""
    one_wording: bool = False
    """Whether all training replies use the first wording of each act."""
    user: UserConfig = UserConfig()
    """Users of the training dialogues."""
    other_user: UserConfig | None = None
    """Users of every second training dialogue; None means that all are `user`."""

    def __post_init__(self) -> None:
        check_sizes(
            embedding_size=self.embedding_size, hidden_size=self.hidden_size, steps=self.steps,
            batch_size=self.batch_size, num_dialogues=self.num_dialogues,
        )  # fmt: skip
        check_choice("learned", self.learned, Learned)


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """A text with the places that are learned."""

    ids: Tensor
    """Token ids, of shape (T,)."""
    learned: Tensor
    """Whether each of them, and the end token after them, is a target; of shape (T + 1,)."""


def spoken(turns: Turns, learned: Learned = "replies") -> Spoken:
    """A dialogue as a training text."""
    parts, marks = [], []
    for number, (said, reply) in enumerate(turns):
        feed = "\n" if number else ""
        ours = len(word_ids(f"{feed}{USER_MARK}{said}\n{BOT_MARK}"))
        theirs = len(word_ids(reply)) + 1
        # A line feed is the last target of a reply, and the first token of the next user's turn.
        marks += [learned == "both"] * (ours - bool(number)) + [True] * theirs
        parts.append(f"{USER_MARK}{said}\n{BOT_MARK}{reply}")
    return Spoken(ids=word_ids("\n".join(parts)), learned=torch.tensor(marks))


def spoken_batch(texts: Sequence[Spoken]) -> Batch:
    """Texts side by side, with the learned tokens as targets."""
    end = dialogue_tokenizer().end_id
    batch = padded([text.ids for text in texts], start_id=end, end_id=end)
    targets = torch.full_like(batch.targets, IGNORE)
    for row, text in enumerate(texts):
        length = len(text.learned)
        targets[row, :length] = batch.targets[row, :length].masked_fill(~text.learned, IGNORE)
    return Batch(inputs=batch.inputs, targets=targets)


def new_dialogue_model(config: DialogueModelConfig) -> LSTMLanguageModel:
    """An untrained model for the words of dialogues."""
    return LSTMLanguageModel(
        LSTMConfig(
            vocabulary_size=dialogue_tokenizer().vocabulary_size,
            embedding_size=config.embedding_size,
            hidden_size=config.hidden_size,
            forget_bias=2.0,
        )
    )


def learn_dialogues(
    model: LanguageModel,
    texts: Sequence[Spoken],
    config: DialogueModelConfig,
    *,
    generator: torch.Generator,
    at: Mapping[int, Callable[[LanguageModel], object]] | None = None,
    progress: bool = False,
) -> None:
    """Train `model` in place by AdamW for `config.steps`; it ends in evaluation mode.

    at: what is called with the model, in evaluation mode, after this many steps.

    The texts of a batch have similar lengths. The summed loss is divided by the mean number of
    targets of a batch, so every token has the same weight.
    """
    size = min(config.batch_size, len(texts))
    settings = TrainConfig(steps=config.steps, learning_rate=config.learning_rate, num_streams=size)
    optimizer = make_optimizer(model, settings)
    targets = size * sum(int(text.learned.sum()) for text in texts) / len(texts)
    rows = _rows_of_batches(texts, size, config.steps, generator)
    model.train()
    for step, chosen in enumerate(tqdm(rows, disable=not progress, unit="step", leave=False)):
        batch = spoken_batch([texts[row] for row in chosen])
        features, _ = model.features(batch.inputs)
        kept = batch.targets != IGNORE  # the logits of other places are not needed
        logits = model.logits(features[kept]).unsqueeze(0)
        loss = token_nats(logits, batch.targets[kept].unsqueeze(0)).sum() / targets
        rate = learning_rate_at(step, config.steps, settings)
        take_step(model, optimizer, loss, clip_norm=settings.clip_norm, learning_rate=rate)
        if at is not None and step + 1 in at:
            at[step + 1](model.eval())
            model.train()
    model.eval()


def train_dialogue_model(
    config: DialogueModelConfig,
    *,
    seed: int,
    at: Mapping[int, Callable[[LanguageModel], object]] | None = None,
    progress: bool = False,
) -> LSTMLanguageModel:
    """A model of new dialogues, in evaluation mode. Sets the seed of all generators to `seed`.

    at: as in `learn_dialogues`.
    """
    turns = training_dialogues(config, seed=seed)
    if not config.memory:
        turns = [[turn] for dialogue in turns for turn in dialogue]
    seed_everything(seed)
    model = new_dialogue_model(config)
    learn_dialogues(
        model, [spoken(each, config.learned) for each in turns], config,
        generator=make_generator(seed, "order of dialogues"), at=at, progress=progress,
    )  # fmt: skip
    return model


def trained_further(
    model: LanguageModel, config: DialogueModelConfig, *, seed: int
) -> LanguageModel:
    """A copy of a dialogue model, trained further on new dialogues by `config`."""
    turns = training_dialogues(config, seed=seed, purpose="further dialogues")
    model = copy.deepcopy(model)
    learn_dialogues(
        model, [spoken(each, config.learned) for each in turns], config,
        generator=make_generator(seed, "order of further dialogues"),
    )  # fmt: skip
    return model


def training_dialogues(
    config: DialogueModelConfig, *, seed: int, purpose: str = "training dialogues"
) -> list[Turns]:
    """The training dialogues of one seed, between users and a bot that is always right; another
    `purpose` draws other ones."""
    generator = make_generator(seed, purpose)
    wordings = 1 if config.one_wording else None
    kinds = [config.user, config.other_user or config.user]
    return [
        right_dialogue(
            User(kinds[number % 2], generator=generator), generator=generator, wordings=wordings
        )
        for number in range(config.num_dialogues)
    ]


def trained_dialogue_model(
    config: DialogueModelConfig | None = None, *, seed: int = 0, progress: bool = False
) -> LSTMLanguageModel:
    """The model of `train_dialogue_model`, from the cache if it was trained before."""
    config = config or DialogueModelConfig()
    return cached_model(
        "dialogue", {**dataclasses.asdict(config), "seed": seed},
        lambda: new_dialogue_model(config),
        lambda: train_dialogue_model(config, seed=seed, progress=progress),
    )  # fmt: skip


def bot(
    model: LanguageModel,
    *,
    count: int = 1,
    memory: bool = True,
    sampling: SamplingConfig | None = None,
    generator: torch.Generator | None = None,
) -> Conversations:
    """Conversations in which `model` is the bot; by default it takes the most probable words."""
    return Conversations(
        model, dialogue_tokenizer(),
        chat_config(memory=memory), count=count, sampling=sampling, generator=generator,
    )  # fmt: skip


def chat_config(*, max_tokens: int = LONGEST_REPLY, memory: bool = True) -> ChatConfig:
    """How dialogues are written: a line each for the user and the bot."""
    return ChatConfig(user=USER_MARK, bot=BOT_MARK, max_tokens=max_tokens, memory=memory)


@dataclass(frozen=True, kw_only=True)
class Played:
    """A dialogue that was really held, with the verdict on each reply."""

    turns: Turns
    """The user's sentences and the bot's replies."""
    verdicts: tuple[Verdict, ...]
    """The verdict on each reply."""
    succeeded: bool
    """Whether every order was placed as the user wanted, and none of the restricted kind."""


@runtime_checkable
class Bot(Protocol):
    """Whatever replies to users: conversations with a model, or rules."""

    def reply(self, turns: Mapping[int, str]) -> dict[int, str]:
        """The reply to each user's turn, by number of the dialogue."""


def play(users: Sequence[User], bots: Bot, *, max_turns: int = 60) -> list[Played]:
    """Each user orders from the bot; a dialogue that is not over after `max_turns` has failed.

    Conversation i of `bots` is with user i.
    """
    check_sizes(max_turns=max_turns)
    checkers = [Checker() for _ in users]
    turns: list[Turns] = [[] for _ in users]
    verdicts: list[list[Verdict]] = [[] for _ in users]
    said = {number: user.speak(None) for number, user in enumerate(users)}
    for _ in range(max_turns):
        heard = {number: text for number, text in said.items() if text is not None}
        if not heard:
            break
        for number, reply in bots.reply(heard).items():
            checkers[number].hear(heard[number])
            verdicts[number].append(checkers[number].judge(reply))
            turns[number].append((heard[number], reply))
            said[number] = users[number].speak(reply)
    return [
        Played(turns=turns[i], verdicts=tuple(verdicts[i]), succeeded=bool(user.succeeded))
        for i, user in enumerate(users)
    ]


@dataclass(frozen=True, kw_only=True)
class SelfChat:
    """A dialogue that a model held with itself."""

    turns: Turns
    """The sentences of its user and the replies of its bot."""
    verdicts: tuple[Verdict, ...]
    """The verdict on each reply, from what its user really said."""
    understood: int
    """How many of its user's sentences are sentences of the users."""


def self_chat(
    model: LanguageModel, count: int, *, generator: torch.Generator, max_turns: int = 16
) -> list[SelfChat]:
    """`model`, trained on both sides, as user and as bot, until an order is placed.

    The user's words are sampled, so that the dialogues differ; the bot takes the most probable
    ones. A dialogue ends with the first "done", right or wrong, or after `max_turns`.
    """
    check_sizes(count=count, max_turns=max_turns)
    bots = bot(model, count=count)
    users = Conversations(
        model, dialogue_tokenizer(),
        ChatConfig(user=BOT_MARK, bot=USER_MARK, max_tokens=LONGEST_REPLY),
        count=count, sampling=SamplingConfig(), generator=generator,
    )  # fmt: skip
    checkers = [Checker() for _ in range(count)]
    turns: list[Turns] = [[] for _ in range(count)]
    verdicts: list[list[Verdict]] = [[] for _ in range(count)]
    understood = [0] * count
    said = users.begin(range(count))
    for _ in range(max_turns):
        replies = bots.reply(said)
        for number, reply in replies.items():
            understood[number] += checkers[number].hear(said[number]) is not None
            verdict = checkers[number].judge(reply)
            verdicts[number].append(verdict)
            turns[number].append((said[number], reply))
            if verdict.said is not None and verdict.said.name == "done":
                del said[number]
        if not said:
            break
        said = users.reply({number: replies[number] for number in said})
    return [
        SelfChat(turns=turns[i], verdicts=tuple(verdicts[i]), understood=understood[i])
        for i in range(count)
    ]


def replies_to_history(dialogues: Sequence[Turns], bots: Conversations) -> list[list[str]]:
    """The bot's reply at each turn of true dialogues, whose earlier replies were the true ones."""
    replies: list[list[str]] = [[] for _ in dialogues]
    for place in range(max(map(len, dialogues))):
        here = {row: turns[place] for row, turns in enumerate(dialogues) if place < len(turns)}
        for row, reply in bots.reply({row: said for row, (said, _) in here.items()}).items():
            replies[row].append(reply)
        bots.replace({row: true for row, (_, true) in here.items()})
    return replies


@torch.no_grad()
def reply_nats(
    model: LanguageModel, dialogues: Sequence[Turns], *, memory: bool = True
) -> tuple[float, int]:
    """-log p of the true replies given the true turns before them, in nats, and their tokens.

    Each reply's end counts as a token. Without `memory` each reply is given the last turn alone.
    """
    model.require_evaluation_mode()
    texts = [
        spoken(turns)
        for dialogue in dialogues
        for turns in ([dialogue] if memory else [[turn] for turn in dialogue])
    ]
    nats, tokens = 0.0, 0
    for start in range(0, len(texts), 100):
        batch = spoken_batch(texts[start : start + 100])
        logits, _ = model(batch.inputs)
        nats += float(token_nats(logits, batch.targets).double().sum())
        tokens += batch.num_targets
    return nats, tokens


def wording_floor(dialogues: Sequence[Turns]) -> float:
    """The entropy of the true replies given all that was said, in nats, summed: the bot that is
    always right draws one of k wordings, which costs log k each."""
    return sum(
        math.log(len(reply_wordings(verdict.expected)))
        for turns in dialogues
        for verdict in check_dialogue(turns)
    )


def _rows_of_batches(
    texts: Sequence[Spoken], size: int, steps: int, generator: torch.Generator
) -> list[list[int]]:
    """Rows of each step's batch: texts of similar length together, every text once in an epoch."""
    batches: list[list[int]] = []
    while len(batches) < steps:
        order = torch.randperm(len(texts), generator=generator).tolist()
        for start in range(0, len(order) - size + 1, 8 * size):
            pool = sorted(order[start : start + 8 * size], key=lambda row: len(texts[row].ids))
            some = [pool[i : i + size] for i in range(0, len(pool) - size + 1, size)]
            batches += [some[i] for i in torch.randperm(len(some), generator=generator).tolist()]
    return batches[:steps]
