"""Conversations with a language model: it reads a turn, writes the next one, and remembers both.

A turn is a line. The model's state is carried from turn to turn through the interface of
`companion.models.base`, so nothing is read twice, and any model of the package can converse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from companion.core.settings import check_sizes, check_type, settings_class
from companion.generation.decoding import SamplingConfig
from companion.models.base import LanguageModel, State
from companion.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from jaxtyping import Float


@settings_class
class ChatConfig:
    """How a conversation is written as text, and how the model's turns are chosen."""

    user: str = ""
    """Text before each of the user's turns."""
    bot: str = ""
    """Text before each of the model's turns. Where it or `user` is given, turns are lines, and the
    model's turn ends with its line; otherwise the model goes on with the user's text, and its turn
    ends after `max_tokens`."""
    max_tokens: int = 60
    """Most tokens of a model's turn."""
    begins: bool = True
    """Whether a conversation begins with the end token, as each document of a corpus does. A corpus
    of one document shows a model too few of them."""
    memory: bool = True
    """Whether the model remembers the turns before; otherwise it reads each turn as the first."""

    def __post_init__(self) -> None:
        check_sizes(max_tokens=self.max_tokens)

    @property
    def lines(self) -> bool:
        """Whether each turn is a line."""
        return bool(self.user or self.bot)


class Conversations:
    """`count` conversations with one model side by side; each remembers its own turns.

    A model's line ends with the end
    token, or with a line feed where the tokenizer has one that is not its end token. The model is
    in evaluation mode; with greedy decoding no generator is needed, and None takes torch's own.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: ChatConfig | None = None,
        *,
        count: int = 1,
        sampling: SamplingConfig | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_sizes(count=count)
        check_type("model", model, LanguageModel, "load_run(path).model is one")
        model.require_evaluation_mode()
        if model.vocabulary_size != tokenizer.vocabulary_size:
            raise ValueError(
                f"the model has {model.vocabulary_size} tokens and the tokenizer "
                f"{tokenizer.vocabulary_size}; give the tokenizer that it was trained with"
            )
        self.model, self.tokenizer = model, tokenizer
        self.config = config or ChatConfig()
        self.sampling = sampling or SamplingConfig(temperature=0)
        self.generator = generator
        self._line_feed = tokenizer.encode("\n")
        # After all that was said, and before the model's last turn; None before the first turn.
        self._states: list[State | None] = [None] * count
        self._asked: list[State | None] = [None] * count

    def reply(self, turns: Mapping[int, str]) -> dict[int, str]:
        """The model's turn after each user's turn, by number of the conversation.

        Raises ValueError for an unknown conversation number, or a turn of more than one line
        where turns are lines; and where the conversation is longer than the model can read.
        """
        for number, turn in turns.items():
            self._check(number)
            if self.config.lines and "\n" in turn:
                raise ValueError(f"a turn must be one line, got {turn!r:.99}")
        before, after = self.config.user, f"\n{self.config.bot}"
        return self._answers(
            {
                number: self.tokenizer.encode(before + turn + after if self.config.lines else turn)
                for number, turn in turns.items()
            }
        )

    def begin(self, numbers: Iterable[int]) -> dict[int, str]:
        """The model's turn before any of the user's, by number of the conversation.

        ValueError for an unknown conversation number, or that has begun, and where conversations
        begin with nothing to read.
        """
        numbers = list(numbers)
        for number in numbers:
            self._check(number)
            if self._states[number] is not None:
                raise ValueError(f"conversation {number} has begun; reply goes on with it")
        return self._answers(dict.fromkeys(numbers, self.tokenizer.encode(self.config.bot)))

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self._states):
            raise ValueError(
                f"conversations are numbered from 0 to {len(self._states) - 1}, got {number}"
            )

    def _answers(self, asked: Mapping[int, Sequence[int]]) -> dict[int, str]:
        """The model's turns after reading these tokens."""
        prompts: dict[int, list[int]] = {}
        for number, ids in asked.items():
            first = self._states[number] is None or not self.config.memory
            prompts[number] = [self.tokenizer.end_id] * (first and self.config.begins) + [*ids]
            if not prompts[number]:
                raise ValueError("a turn must hold a token or more, got none; write something")
            if first:
                self._states[number] = None
        replies: dict[int, str] = {}
        for rows in self._groups(prompts):
            logits = self._read(rows, [prompts[row] for row in rows])
            for row in rows:
                self._asked[row] = self._states[row]
            replies |= self._write(rows, logits)
        return {number: replies[number] for number in asked}

    def replace(self, turns: Mapping[int, str]) -> None:
        """Let the model's last turn have been another, by number of the conversation.

        It remembers these, and no longer what it wrote. ValueError where it has written nothing.
        """
        ids: dict[int, list[int]] = {}
        for number, text in turns.items():
            if not 0 <= number < len(self._asked) or self._asked[number] is None:
                raise ValueError(f"in conversation {number} there is no turn to replace yet")
            self._states[number] = self._asked[number]
            written = self.tokenizer.encode(f"{text}\n" if self.config.lines else text)
            if written:
                ids[number] = written
        for rows in self._groups(ids):
            self._read(rows, [ids[row] for row in rows])

    def _groups(self, prompts: Mapping[int, Sequence[int]]) -> list[list[int]]:
        """Conversations whose turns can be read together: as long as each other. States that grow
        differ in length too, so such a model has one at a time."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, ids in prompts.items():
            own = (row,) if self.model.state_grows else ()
            fresh = int(self._states[row] is None)
            groups.setdefault((len(ids), fresh, *own), []).append(row)
        return list(groups.values())

    @torch.no_grad()
    def _read(
        self, rows: Sequence[int], ids: Sequence[Sequence[int]]
    ) -> Float[torch.Tensor, "rows vocab"]:
        """Logits after reading; the states are those after it."""
        inputs = torch.tensor(ids, device=self.model.device)
        states = [self._states[row] for row in rows]
        state = None if states[0] is None else self.model.join_rows(states)
        logits, state = self.model(inputs, state)
        self._keep(rows, state)
        last: torch.Tensor = logits[:, -1]
        return last

    def _keep(self, rows: Sequence[int], state: State) -> None:
        for place, row in enumerate(rows):
            self._states[row] = self.model.select_rows(state, torch.tensor([place]))

    @torch.no_grad()
    def _write(
        self, rows: Sequence[int], logits: Float[torch.Tensor, "rows vocab"]
    ) -> dict[int, str]:
        """Write a turn in each of `rows` until it ends; the states are those after it."""
        state = self.model.join_rows([self._states[row] for row in rows])
        written: dict[int, list[int]] = {row: [] for row in rows}
        going_on = list(rows)
        for number in range(self.config.max_tokens):
            tokens = self.sampling.choose(logits, self.generator)
            full = number == self.config.max_tokens - 1
            kept: list[int] = []
            for place, (row, token) in enumerate(zip(going_on, tokens.tolist(), strict=True)):
                written[row].append(token)
                if not self._ended(written[row]) and not full:
                    kept.append(place)
            logits, after = self.model(tokens.unsqueeze(1), state)
            logits = logits[:, -1]
            for place, row in enumerate(going_on):
                if place not in kept:
                    self._states[row] = self.model.select_rows(after, torch.tensor([place]))
            if not kept:
                break
            chosen = torch.tensor(kept)
            state, logits = self.model.select_rows(after, chosen), logits[chosen]
            going_on = [going_on[place] for place in kept]
        if self.config.lines:  # the next turn begins a new line
            for row in rows:
                if not self._ended(written[row]):
                    self._read([row], [self._line_feed or [self.tokenizer.end_id]])
        return {row: self._text(written[row]) for row in rows}

    def _ended(self, ids: Sequence[int]) -> bool:
        if ids[-1] == self.tokenizer.end_id:
            return True
        return self.config.lines and "\n" in self.tokenizer.decode(ids[-1:])

    def _text(self, ids: Sequence[int]) -> str:
        text = self.tokenizer.decode([i for i in ids if i != self.tokenizer.end_id])
        return text.partition("\n")[0].strip() if self.config.lines else text


def converse(conversations: Conversations, turns: Sequence[str]) -> list[tuple[str, str]]:
    """The first of `conversations` with the user's `turns`: pairs of a turn and the reply.

    Raises ValueError where `conversations` refuses a turn.
    """
    return [(turn, conversations.reply({0: turn})[0]) for turn in turns]
