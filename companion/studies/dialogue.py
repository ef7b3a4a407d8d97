"""What do perplexity, BLEU and self-chat say about a bot that has to get orders right?

Bots take orders in the invented world (`companion.world.dialogue`), where the right reply at each
turn is computed. They are LSTMs of two sizes, one of them also after fewer steps, and bots that
differ otherwise: trained on single turns, on one wording of each reply, or further on both sides of
the dialogue, and one that samples its words. Each is scored by the perplexity of true replies, by
BLEU against them, by the share of right replies after a true history, and by what counts: simulated
users order, and either get what they wanted or not. Rank correlations say which score ranks the
bots as success does: among bots that differ only in size and training, and among all.

Then the best bot meets users who tell the slots in another order, who change their mind more often,
and who do both, all with the same numbers of orders. Controls are users who never give up, and two
bots that were trained further, on usual users and on both kinds. And a model talks to itself, which
shows what self-chat finds and what it cannot find.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch
from tqdm import tqdm

from companion.core.seeds import draw_below, make_generator
from companion.core.settings import check_sizes, settings_class
from companion.evaluation.translation import score_translations
from companion.generation.conversation import Conversations
from companion.generation.decoding import SamplingConfig
from companion.models.base import LanguageModel
from companion.world.dialogue import (
    USER_WORDINGS,
    VALUES,
    Checker,
    Judgement,
    check_dialogue,
    read_reply,
    reply_wordings,
)
from companion.world.dialogue_model import (
    DialogueModelConfig,
    Played,
    bot,
    play,
    replies_to_history,
    reply_nats,
    self_chat,
    train_dialogue_model,
    trained_further,
    wording_floor,
)
from companion.world.users import Turns, User, UserConfig, new_users, right_dialogues

#: Scores whose ranking of the bots is compared with that of success; all are better when higher.
METRICS = ("perplexity", "bleu", "turn_accuracy", "consistent")


@settings_class
class Config:
    """Settings of the bots, the users and the tests."""

    bot: DialogueModelConfig = DialogueModelConfig()
    """The main bot, "full", and what the others have in common with it."""
    earlier: tuple[int, ...] = (500, 800, 1200)
    """Steps of its training after which it is tested as well."""
    small: int = 32
    """Hidden units of the small bot, and twice its embedding size."""
    small_steps: int = 700
    """Steps of the small bot."""
    wording_steps: int = 1200
    """Steps of the bot that is trained on one wording."""
    single_steps: int = 400
    """Steps of the bot that is trained on single turns."""
    further: DialogueModelConfig = DialogueModelConfig(
        steps=400, learning_rate=5e-3, num_dialogues=2000
    )
    """Further training: of the main bot and of an earlier one on both sides, for self-chat; and of
    the main bot on usual users, and on both kinds of users by turns."""
    both_early: int = 800
    """Steps of the main bot after which the earlier one was taken: one of `earlier`."""
    backwards: UserConfig = UserConfig(backwards=True)
    """Users who tell the day first."""
    corrects: UserConfig = UserConfig(corrects=0.8, interrupts=0.5)
    """Users who change their mind more often, also in the middle of an order."""
    everything: UserConfig = UserConfig(backwards=True, corrects=0.8, interrupts=0.5)
    """Users who do both; the control is trained on them and on the usual ones."""
    orders: tuple[int, ...] = (1, 2, 4)
    """Orders of one dialogue, for users of every kind."""
    many: int = 8
    """Orders of the longest dialogues, which only usual users hold."""
    num_test: int = 100
    """True dialogues, and simulated users of each kind."""
    num_self: int = 100
    """Dialogues that the model holds with itself."""

    def __post_init__(self) -> None:
        check_sizes(
            small=self.small, small_steps=self.small_steps, wording_steps=self.wording_steps,
            single_steps=self.single_steps, many=self.many,
            num_test=self.num_test, num_self=self.num_self,
        )  # fmt: skip
        if any(not 1 <= steps < self.bot.steps for steps in self.earlier):
            raise ValueError(
                f"earlier must be below bot.steps = {self.bot.steps} and above 0, got "
                f"{self.earlier}"
            )
        if self.both_early not in self.earlier:
            raise ValueError(
                f"both_early must be one of earlier, {self.earlier}, got {self.both_early}"
            )
        if not self.orders or any(count < 1 for count in self.orders):
            raise ValueError(f"orders must be one number or more, each >= 1, got {self.orders}")

    @property
    def users(self) -> dict[str, UserConfig]:
        """Kinds of users by name; "usual" are those of the main bot's training."""
        return {
            "usual": self.bot.user, "backwards": self.backwards, "corrects": self.corrects,
            "everything": self.everything,
        }  # fmt: skip


@dataclass(kw_only=True)
class Result:
    """Scores by bot: "full", "500" to "1200" (the same after this many steps), "small", "single
    turns", "one wording", "both sides" and "sampled"; and by kind of user (see `Config.users`) and
    number of orders: "usual 1", and with "patient" behind it where these users never give up."""

    nats_per_token: dict[str, float] = field(default_factory=dict)
    """Mean surprisal of the true replies to usual users, in nats per token."""
    floor_nats_per_token: float = 0.0
    """The entropy of these replies given the dialogue: nobody knows which wording is drawn."""
    perplexity: dict[str, float] = field(default_factory=dict)
    """exp of `nats_per_token`."""
    bleu: dict[str, float] = field(default_factory=dict)
    """BLEU of the replies after a true history, against the true ones, 0 to 100."""
    turn_accuracy: dict[str, float] = field(default_factory=dict)
    """Share of these replies that are right, in any wording."""
    success: dict[str, float] = field(default_factory=dict)
    """Share of simulated usual users who got what they ordered."""
    right: dict[str, float] = field(default_factory=dict)
    """Share of right replies to these users."""
    consistent: dict[str, float] = field(default_factory=dict)
    """Share of these dialogues without a reply that contradicts an earlier one of the bot."""
    judgements: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share of these replies by judgement (see `companion.world.dialogue.Verdict`)."""
    replies: dict[str, int] = field(default_factory=dict)
    """Number of these replies."""
    rank_correlation: dict[str, dict[str, float]] = field(default_factory=dict)
    """Spearman's correlation of each of `METRICS` with success, over the bots that differ only in
    size and steps, "alike", over all bots, "all", and over all but the one of one wording, "without
    one wording"; 0 where a score or success is constant. Lower perplexity counts as better."""
    planted_bleu: dict[str, float] = field(default_factory=dict)
    """BLEU against the true replies of replies that are all right: in wordings that are drawn
    again, "drawn again", or in another wording each, "right"; and of the true replies with one
    wrong value wherever they have one, "wrong value"."""
    by_user: dict[str, dict[str, float]] = field(default_factory=dict)
    """Success by kind of user and number of orders: of "full", and of two bots that were trained
    further from it for as many steps, "more usual" on usual users, and "both users" on usual ones
    and on those who do everything, by turns."""
    right_by_user: dict[str, dict[str, float]] = field(default_factory=dict)
    """Share of right replies of the same."""
    turns_by_user: dict[str, dict[str, float]] = field(default_factory=dict)
    """Mean turns of a dialogue of the same."""
    self_chat: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of two models that were trained further on both sides, from the main bot after
    `Config.both_early` steps, "early", and from the finished one, "late":
    "placed", the share of dialogues with itself in which an order is placed within 16 turns;
    "placed right", the share in which it is what its user had told; "understood", the share of its
    user's sentences that users say; "accepted" and "accepted right", the shares of wrong and of
    right repetitions of an order to which its user says yes, 0 where there is none; "wrong orders",
    how many wrong ones. For comparison, with simulated users of one order: "success" and "success
    everything"."""


@dataclass(frozen=True, kw_only=True)
class Tests:
    """What every bot is tested on."""

    dialogues: list[Turns]
    """True dialogues with usual users."""
    seed: int
    """The seed of the simulated users."""
    count: int
    """Number of users of each kind."""


def run(config: Config, *, seed: int, progress: bool = False) -> Result:
    """Train every bot, test it, and let users and itself talk to it."""
    result, main = Result(), config.bot
    bar = tqdm(total=8, disable=not progress, unit="bot")
    generator = make_generator(seed, "true dialogues")
    tests = Tests(
        dialogues=right_dialogues(config.num_test, main.user, generator=generator),
        seed=seed, count=config.num_test,
    )  # fmt: skip

    def learnt(
        settings: DialogueModelConfig,
        at: Mapping[int, Callable[[LanguageModel], object]] | None = None,
    ) -> LanguageModel:
        model = train_dialogue_model(settings, seed=seed, at=at)
        bar.update()
        return model

    def judged(name: str, memory: bool = True) -> Callable[[LanguageModel], None]:
        def judge(model: LanguageModel) -> None:
            _judge(result, name, model, tests, main.user, memory=memory)

        return judge

    kept: dict[int, LanguageModel] = {}

    def after(steps: int) -> Callable[[LanguageModel], None]:
        def look(model: LanguageModel) -> None:
            if steps == config.both_early:
                kept[steps] = copy.deepcopy(model)
            judged(str(steps))(model)

        return look

    full = learnt(main, {steps: after(steps) for steps in config.earlier})
    judged("full")(full)
    small = learnt(
        dataclasses.replace(
            main, hidden_size=config.small, embedding_size=max(1, config.small // 2),
            steps=config.small_steps,
        )
    )  # fmt: skip
    judged("small")(small)
    # A single turn has a few of the tokens of a dialogue, so a batch has more of them.
    single = learnt(
        dataclasses.replace(
            main, memory=False, steps=config.single_steps, batch_size=4 * main.batch_size
        )
    )
    judged("single turns", memory=False)(single)
    judged("one wording")(
        learnt(dataclasses.replace(main, steps=config.wording_steps, one_wording=True))
    )
    both, both_sides = full, dataclasses.replace(config.further, learned="both")
    for when, model in (("early", kept[config.both_early]), ("late", full)):
        both = trained_further(model, both_sides, seed=seed)
        result.self_chat[when] = _self_chat(both, config, seed=seed)
        bar.update()
    judged("both sides")(both)
    _judge(
        result, "sampled", full, tests, main.user, sampling=SamplingConfig(),
        generator=make_generator(seed, "sampled words"),
    )  # fmt: skip
    alike = [*map(str, config.earlier), "full", "small"]
    result.rank_correlation = {
        "alike": rank_correlations(result, alike),
        "all": rank_correlations(result, list(result.success)),
        "without one wording": rank_correlations(
            result, [name for name in result.success if name != "one wording"]
        ),
    }
    result.planted_bleu = planted_bleu(tests.dialogues, seed=seed)
    _meet(result, "full", full, config, config.users, config.orders, seed=seed)
    _meet(result, "full", full, config, ["usual"], [config.many], seed=seed)
    _meet(result, "full", full, config, config.users, [max(config.orders)], seed=seed, patient=True)
    mixed = dataclasses.replace(config.further, other_user=config.everything)
    for name, settings in (("more usual", config.further), ("both users", mixed)):
        control = trained_further(full, settings, seed=seed)
        _meet(result, name, control, config, ["usual", "everything"], config.orders, seed=seed)
        bar.update()
    tokens = reply_nats(full, tests.dialogues)[1]
    result.floor_nats_per_token = wording_floor(tests.dialogues) / tokens
    bar.close()
    return result


def rank_correlations(result: Result, bots: Sequence[str]) -> dict[str, float]:
    """Spearman's correlation of each of `METRICS` with success over `bots`, by metric.

    Perplexity is taken with a minus sign. 0 where a score, or success, is the same for all.
    """
    from scipy import stats

    success = [result.success[name] for name in bots]
    found = {}
    for metric in METRICS:
        sign = -1 if metric == "perplexity" else 1
        scores = [sign * getattr(result, metric)[name] for name in bots]
        constant = len({*scores}) < 2 or len({*success}) < 2
        found[metric] = 0.0 if constant else float(stats.spearmanr(scores, success).statistic)
    return found


def planted_bleu(dialogues: Sequence[Turns], *, seed: int) -> dict[str, float]:
    """BLEU of right replies in other wordings, and of wrong ones in the same wording.

    "drawn again": each reply in a wording of its act, drawn as the true one was. "right": in one of
    the others. "wrong value": each reply as it is,
    but for one value, which is another of its slot; replies without a value stay as they are.
    """
    generator = make_generator(seed, "planted replies")
    true = [reply for turns in dialogues for _, reply in turns]
    again, others, wrong = [], [], []
    for turns in dialogues:
        for verdict, (_, reply) in zip(check_dialogue(turns), turns, strict=True):
            wordings = reply_wordings(verdict.expected)
            again.append(wordings[draw_below(len(wordings), generator)])
            choices = [text for text in wordings if text != reply]
            others.append(choices[draw_below(len(choices), generator)])
            told = verdict.expected.order
            if told:
                slot = list(told)[draw_below(len(told), generator)]
                values = [value for value in VALUES[slot] if value != told[slot]]
                reply = " ".join(
                    values[draw_below(len(values), generator)] if word == told[slot] else word
                    for word in reply.split()
                )
            wrong.append(reply)
    return {
        name: _bleu(texts, true)
        for name, texts in (("drawn again", again), ("right", others), ("wrong value", wrong))
    }


def history_accuracy(dialogues: Sequence[Turns], replies: Sequence[Sequence[str]]) -> float:
    """Share of replies that are right in place of the true ones, each after the true history."""
    right: list[bool] = []
    for turns, written in zip(dialogues, replies, strict=True):
        checker = Checker()
        for (said, true), reply in zip(turns, written, strict=True):
            checker.hear(said)
            right.append(read_reply(reply) == checker.state.reply())
            checker.judge(true)
    return sum(right) / len(right)


def agreement(dialogues: Iterable[Turns]) -> dict[bool, list[bool]]:
    """Whether the user's next sentence is a yes, for each time that the bot repeats a whole order:
    under True where that is the right reply, under False where it is not."""
    found: dict[bool, list[bool]] = {True: [], False: []}
    for turns in dialogues:
        for verdict, (answer, _) in zip(check_dialogue(turns), turns[1:], strict=False):
            if verdict.said is not None and verdict.said.name == "confirm":
                found[verdict.right].append(answer in USER_WORDINGS["yes"])
    return found


def _judge(
    result: Result,
    name: str,
    model: LanguageModel,
    tests: Tests,
    users: UserConfig,
    *,
    memory: bool = True,
    sampling: SamplingConfig | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """All scores of one bot."""

    def bots(count: int) -> Conversations:
        return bot(model, count=count, memory=memory, sampling=sampling, generator=generator)

    nats, tokens = reply_nats(model, tests.dialogues, memory=memory)
    result.nats_per_token[name] = nats / tokens
    result.perplexity[name] = math.exp(nats / tokens)
    replies = replies_to_history(tests.dialogues, bots(len(tests.dialogues)))
    result.bleu[name] = _bleu(
        [reply for written in replies for reply in written],
        [reply for turns in tests.dialogues for _, reply in turns],
    )
    result.turn_accuracy[name] = history_accuracy(tests.dialogues, replies)
    played = play(_users(users, tests.count, seed=tests.seed), bots(tests.count))
    result.success[name], result.right[name] = _shares(played)
    result.consistent[name] = 1 - sum(
        any(verdict.contradicts for verdict in each.verdicts) for each in played
    ) / len(played)
    counts = Counter(verdict.judgement for each in played for verdict in each.verdicts)
    result.replies[name] = counts.total()
    result.judgements[name] = {kind: counts[kind] / counts.total() for kind in get_args(Judgement)}


def _users(users: UserConfig, count: int, *, seed: int) -> list[User]:
    """Every bot meets the same users of a kind."""
    return new_users(count, users, generator=make_generator(seed, "simulated users"))


def _shares(played: Sequence[Played]) -> tuple[float, float]:
    """Share of dialogues that succeeded, and share of right replies."""
    verdicts = [verdict for each in played for verdict in each.verdicts]
    return (
        sum(each.succeeded for each in played) / len(played),
        sum(verdict.right for verdict in verdicts) / len(verdicts),
    )


def _meet(
    result: Result,
    name: str,
    model: LanguageModel,
    config: Config,
    kinds: Iterable[str],
    orders: Sequence[int],
    *,
    seed: int,
    patient: bool = False,
) -> None:
    """Users of these kinds, with each of these numbers of orders, order from one bot; where they
    are patient, none of them gives up."""
    tables = result.by_user, result.right_by_user, result.turns_by_user
    for kind in kinds:
        for count in orders:
            users = dataclasses.replace(config.users[kind], orders=(count, count))
            if patient:
                users = dataclasses.replace(users, patience=None)
            played = play(
                _users(users, config.num_test, seed=seed), bot(model, count=config.num_test),
                max_turns=20 * count,
            )  # fmt: skip
            turns = sum(len(each.turns) for each in played) / len(played)
            for table, value in zip(tables, (*_shares(played), turns), strict=True):
                table.setdefault(name, {})[f"{kind} {count}" + " patient" * patient] = value


def _self_chat(model: LanguageModel, config: Config, *, seed: int) -> dict[str, float]:
    """What `Result.self_chat` has of one model."""
    chats = self_chat(model, config.num_self, generator=make_generator(seed, "self-chat"))
    placed = [
        verdict for *_, verdict in (chat.verdicts for chat in chats)
        if verdict.said is not None and verdict.said.name == "done"
    ]  # fmt: skip
    agreed = agreement([chat.turns for chat in chats])

    def success(users: UserConfig) -> float:
        users = dataclasses.replace(users, orders=(1, 1))
        some = _users(users, config.num_test, seed=seed)
        return _shares(play(some, bot(model, count=config.num_test)))[0]

    return {
        "placed": len(placed) / len(chats),
        "placed right": sum(verdict.right for verdict in placed) / len(chats),
        "understood": sum(chat.understood for chat in chats)
        / sum(len(chat.turns) for chat in chats),
        "accepted": sum(agreed[False]) / max(1, len(agreed[False])),
        "accepted right": sum(agreed[True]) / max(1, len(agreed[True])),
        "wrong orders": float(len(agreed[False])),
        "success": success(config.bot.user),
        "success everything": success(config.everything),
    }


def _bleu(texts: Sequence[str], true: Sequence[str]) -> float:
    """BLEU, 0 to 100. Words and signs stand apart already, so nothing more is cut."""
    return score_translations(texts, true, tokenize="none", resamples=1).bleu.score
