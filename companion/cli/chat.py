"""The command that talks with a trained run, or with the invented world's dialogue model."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from companion.cli.console import AsJson, Device, Seed, TopK, TopP, as_typed, err, say, warn

if TYPE_CHECKING:
    from companion.generation.conversation import Conversations
    from companion.generation.decoding import SamplingConfig
    from companion.text.tokenizers import Tokenizer
    from companion.world.dialogue import Checker

#: What the user sees before a turn of each side in a terminal.
YOU, MODEL = "you> ", "bot> "


def chat(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of a run, as given to train --out.", show_default=False),
    ] = None,
    dialogue: Annotated[
        bool,
        typer.Option(
            "--dialogue",
            help="In place of a run, a small model that takes orders in the book's invented world; "
            "it is trained when it is first used, in a minute or so, and kept.",
        ),
    ] = False,
    user: Annotated[
        str,
        typer.Option(help="Text before each of your turns; \\n in it is a line feed."),
    ] = "",
    bot: Annotated[
        str,
        typer.Option(
            help="Text before each of the model's turns. With it or --user a turn is a line; "
            "without both the model goes on with your text."
        ),
    ] = "",
    tokens: Annotated[int, typer.Option(help="Most tokens of a turn of the model.", min=1)] = 60,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Below 1 is safer, above 1 wilder; 0 is greedy.",
            show_default="1, or 0 with --dialogue",
        ),
    ] = None,
    top_k: TopK = None,
    top_p: TopP = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="With --dialogue, say of each reply whether it is right."),
    ] = False,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Talk with a trained model, turn by turn; it remembers the turns before.

    Write a line and press Enter; Ctrl-D, or the end of a file that is piped in, ends the chat. The
    same lines with the same seed get the same replies. With --json each turn is one line of JSON.
    """
    from companion.core.seeds import make_generator
    from companion.generation.conversation import ChatConfig, Conversations
    from companion.generation.decoding import SamplingConfig

    if (run is None) != dialogue:
        raise ValueError(
            "chat takes the folder of a run, or --dialogue, and not both: companion chat runs/a"
        )
    if dialogue and (user or bot):
        raise ValueError("--user and --bot are for a run; --dialogue has its own marks of turns")
    if check and not dialogue:
        raise ValueError("--check needs --dialogue: only there it is known what is right")
    greedy = 0.0 if dialogue else 1.0
    sampling = SamplingConfig(
        temperature=greedy if temperature is None else temperature, top_k=top_k, top_p=top_p
    )
    if run is not None:
        from companion.runs import pipeline

        trained = pipeline.load_run(run, device=device)
        config = ChatConfig(
            user=_line_feeds(user), bot=_line_feeds(bot), max_tokens=tokens, begins=False
        )
        conversations = Conversations(
            trained.model, trained.tokenizer, config, sampling=sampling,
            generator=make_generator(seed, device=trained.model.device),
        )  # fmt: skip
        checker = None
    else:
        from companion.world.dialogue import Checker

        conversations, checker = _dialogue(sampling, tokens, seed, device), Checker()
    _talk(conversations, checker, check=check, as_json=as_json)


def _talk(
    conversations: Conversations, checker: Checker | None, *, check: bool, as_json: bool
) -> None:
    """Read turns until there are no more, and print the model's."""
    number = 0
    for line in _lines(quiet=as_json):
        turn = line
        if checker is not None:
            from companion.world.dialogue import spaced

            turn = spaced(line)
        if not turn.strip():
            continue
        _warn_of_unknown(conversations.tokenizer, turn)
        number += 1
        reply = conversations.reply({0: turn})[0]
        record: dict[str, Any] = {"turn": number, "user": turn, "bot": reply}
        verdict = None
        if checker is not None:
            from companion.world.dialogue import reply_wordings

            checker.hear(turn)
            verdict = checker.judge(reply)
            right = reply_wordings(verdict.expected)[0]
            record |= {
                "judgement": verdict.judgement, "contradicts": verdict.contradicts, "right": right
            }  # fmt: skip
        if as_json:
            print(json.dumps(record), flush=True)
            continue
        print(f"{MODEL if sys.stdin.isatty() else ''}{reply}", flush=True)
        if check and verdict is not None:
            told = "right" if verdict.right else f"{verdict.judgement}; right is: {right}"
            print(f"  [{told}{', contradicts itself' if verdict.contradicts else ''}]", flush=True)
    if not number:
        err.print("Nothing was said.")


def _lines(*, quiet: bool) -> Iterator[str]:
    """The user's lines, without the line feed, from a terminal or a pipe, to its end."""
    stdin = sys.stdin
    if stdin is None:  # as under pythonw, which has no terminal
        return
    if not stdin.isatty():
        if hasattr(stdin, "reconfigure"):
            stdin.reconfigure(errors="replace")
        for line in stdin:
            yield as_typed(line.rstrip("\r\n"))
        return
    err.print("Write a line and press Enter; Ctrl-D ends the chat.")
    while True:
        try:
            yield as_typed(input("" if quiet else YOU))
        except EOFError:
            print()  # the shell's prompt belongs on a new line
            return


def _dialogue(sampling: SamplingConfig, tokens: int, seed: int, device: str) -> Conversations:
    """A conversation with the dialogue model, which is trained where it is not kept yet."""
    from companion.core.runtime import choose_device
    from companion.core.seeds import make_generator
    from companion.generation.conversation import Conversations
    from companion.world.dialogue import VALUES, dialogue_tokenizer
    from companion.world.dialogue_model import chat_config, trained_dialogue_model

    chosen = choose_device(device)  # before a minute of training is spent
    err.print("The dialogue model; it is trained when it is first used, in a minute or so ...")
    model = trained_dialogue_model(progress=True).to(chosen)
    for slot, values in VALUES.items():
        say(f"  {slot}: {', '.join(values)}")
    err.print('Begin with: "i want a glane of cedar ."', highlight=False)
    return Conversations(
        model, dialogue_tokenizer(), chat_config(max_tokens=tokens), sampling=sampling,
        generator=make_generator(seed, device=model.device),
    )  # fmt: skip


def _line_feeds(text: str) -> str:
    """A prefix as it was meant: a shell passes backslash and n where a line feed is meant."""
    return as_typed(text).replace("\\n", "\n")


def _warn_of_unknown(tokenizer: Tokenizer, turn: str) -> None:
    unknown = sum(token == tokenizer.unknown_id for token in tokenizer.encode(turn))
    if unknown:
        warn(f"tokens of this turn that never occur in the training text: {unknown}")
