"""What running a chapter costs: minutes of processor time and memory, measured and said the same.

    python -m tools.costs                    measure every chapter, some half an hour
    python -m tools.costs book/x.ipynb ...   measure these again
    python -m tools.costs --say              print the sentence that each chapter's opening may hold

A chapter is run as it is, on one thread and with nothing in the cache; its outputs are not stored.
Counted is the processor time of the kernel and of what it starts, not the time on the clock, which
depends on what else the machine does. Memory is the highest sum of their resident memory. The
figures go to book/results/chapters.json. The landing page shows them, and the tests hold each
opening's "about two minutes and 1 GB of memory" against them. The line below a chapter's title
says what its opening says.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import psutil
from nbclient import NotebookClient

from companion.core.files import read_json
from tools import chapters, results
from tools.chapters import ROOT
from tools.commits import commit

NAME = "chapters"
RECORD = results.RESULTS / f"{NAME}.json"

#: A sentence may differ from the figures by this share, or by what follows where that is more:
#: another processor is slower or faster by as much.
SLACK = 0.3
SLACK_MINUTES = 0.25
SLACK_GIGABYTES = 0.15


class Cost(NamedTuple):
    """What one run took, or is said to take."""

    minutes: float
    """Minutes of processor time."""
    gigabytes: float
    """Peak of the resident memory, in 10^9 bytes."""


class _Watch(threading.Thread):
    """Notes the highest sum of the memory of the processes that this one starts from now on."""

    def __init__(self, seconds: float = 0.1) -> None:
        super().__init__(daemon=True)
        self.seconds = seconds
        self.peak = 0
        self._others = {process.pid for process in psutil.Process().children()}
        self._done = threading.Event()

    def run(self) -> None:
        this = psutil.Process()
        while not self._done.wait(self.seconds):
            total = 0
            for started in this.children():
                if started.pid in self._others:
                    continue
                try:
                    for process in (started, *started.children(recursive=True)):
                        total += process.memory_info().rss
                except psutil.Error:  # it ended in between
                    continue
            self.peak = max(self.peak, total)

    def stop(self) -> int:
        """The peak in bytes."""
        self._done.set()
        self.join()
        return self.peak


CLOCK = "import psutil; print(sum(psutil.Process().cpu_times()[:4]))  # its own and its children's"


def measure(path: Path) -> Cost:
    """Run the notebook at `path`, which is left as it is."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(CLOCK))
    client = NotebookClient(
        notebook,
        timeout=3600,
        kernel_name="python3",
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    watch = _Watch()
    watch.start()
    with tempfile.TemporaryDirectory() as empty:
        try:
            client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", "COMPANION_CACHE": empty})
        finally:
            peak = watch.stop()
    seconds = float(notebook.cells[-1].outputs[0].text)
    return Cost(round(seconds / 60, 2), round(peak / 1e9, 2))


def stored() -> dict[str, Cost]:
    """The stored figures, by the chapter's file name without its ending."""
    found = chapters.measured() if RECORD.exists() else {}
    return {name: Cost(of["cpu_minutes"], of["gigabytes"]) for name, of in found.items()}


def store(path: Path, cost: Cost) -> None:
    """Put the figures of one chapter into the record, with the commit they belong to."""
    from companion.core.runtime import environment

    old: dict[str, Any] = {}
    if RECORD.exists():
        (old,) = read_json(RECORD, "the costs of the chapters")["results"]
    made = commit(path.relative_to(ROOT).as_posix())
    found = {
        **old,
        path.stem: {"cpu_minutes": cost.minutes, "gigabytes": cost.gigabytes, "commit": made},
    }
    ordered = {
        each.stem: found[each.stem] for each in chapters.toc_notebooks() if each.stem in found
    }
    part = {
        "seeds": [0],
        "commit": made,
        "environment": {**environment(), "torch_threads": 1},
        "load_average": round(psutil.getloadavg()[2], 1),
    }
    record = {
        "command": "make costs",
        "measured": [part],
        "seeds": [0],
        "results": [{"seed": 0, **ordered}],
    }
    results.store(NAME, record)


# --- In words ------------------------------------------------------------------------------------

WORDS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
PARTS = {"quarter": 0.25, "half": 0.5, "three quarters": 0.75}
_COUNT = "|".join(WORDS)
_PART = "half|quarter|three quarters"

MINUTES = re.compile(
    r"about (?:"
    r"(?P<digits>\d+(?:\.\d+)?) minutes?"
    rf"|(?P<only>half|three quarters of) a minute|(?P<quarter>a quarter of a minute)"
    rf"|(?P<mixed>{_COUNT}) and (?:a )?(?P<part>{_PART}) minutes"
    rf"|(?P<whole>{_COUNT}) minutes?(?: and (?:a )?(?P<more>{_PART}))?"
    r")"
)
MEMORY = re.compile(
    r"(?P<less>less than )?(?:(?P<digits>\d*\.?\d+) (?:GB|gigabytes?)|(?P<half>half) a gigabyte"
    r"|(?P<one>a) gigabyte)(?: of memory)?"
)


def said(text: str) -> Cost | None:
    """What an opening says of time and memory: the sentence "The chapter takes about ...".

    None when there is no such sentence; ValueError when it has no time or no memory.
    """
    found = re.search(r"The chapter (?:takes|trains|needs|runs)[^\n]*?\bminutes?\b[^\n]*", text)
    if found is None:
        return None
    sentence = re.split(r"(?<=[^.\d])\.(?:\s|$)", found[0])[0]
    time, memory = MINUTES.search(sentence), MEMORY.search(sentence)
    if time is None or memory is None:
        raise ValueError(
            'an opening says "The chapter takes about two minutes and 1 GB of memory ...", '
            f"got {sentence!r}"
        )
    if time["digits"]:
        minutes = float(time["digits"])
    elif time["only"] or time["quarter"]:
        minutes = {"half": 0.5, "three quarters of": 0.75}.get(time["only"], 0.25)
    else:
        part = time["part"] or time["more"]
        minutes = WORDS[time["mixed"] or time["whole"]] + (PARTS[part] if part else 0)
    return Cost(minutes, float(memory["digits"] or (0.5 if memory["half"] else 1)))


def differs(claimed: Cost, measured: Cost) -> str:
    """What of an opening's sentence the figures do not bear out; nothing when all is well."""
    wrong = []
    for name, one, other, least in (
        ("minutes", claimed.minutes, measured.minutes, SLACK_MINUTES),
        ("GB", claimed.gigabytes, measured.gigabytes, SLACK_GIGABYTES),
    ):
        if abs(one - other) > max(SLACK * other, least):
            wrong.append(f"it says {one:g} {name}, measured were {other:g}")
    return "; ".join(wrong)


def in_words(minutes: float) -> str:
    """A time such as "two and a half minutes"; in digits where it is long, or no whole quarters."""
    whole, rest = divmod(minutes, 1)
    names = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
    parts = {0: "", 0.25: "a quarter", 0.5: "a half", 0.75: "three quarters"}
    if rest not in parts or minutes <= 0 or whole > max(names):
        return f"{minutes:g} minutes"
    if whole == 0:
        return "half a minute" if rest == 0.5 else f"{parts[rest]} of a minute"
    more = f" and {parts[rest]}" if rest else ""
    return f"a minute{more}" if whole == 1 else f"{names[int(whole)]}{more} minutes"


def sentence(cost: Cost) -> str:
    """What an opening may say, in quarters of a minute and tenths of a gigabyte."""
    quarters = max(1, round(4 * cost.minutes))
    if quarters > 6:
        quarters = 2 * round(quarters / 2)
    time = in_words(quarters / 4 if quarters < 28 else round(quarters / 4))
    memory = f"{cost.gigabytes:.1f}".removesuffix(".0")
    return f"The chapter takes about {time} of processor time and {memory} GB of memory."


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: the chapters to measure; none means all."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tools.costs",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="book/x.ipynb")
    parser.add_argument("--say", action="store_true")
    chosen = parser.parse_args(arguments)
    if chosen.say:
        for name, cost in stored().items():
            print(f"{name}: {sentence(cost)}")
        return
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"  # the kernel is this environment's own
    for path in [path.resolve() for path in chosen.notebooks] or chapters.toc_notebooks():
        cost = measure(path)
        store(path, cost)
        print(f"{path.stem}: {cost.minutes} minutes, {cost.gigabytes} GB", flush=True)


if __name__ == "__main__":
    main()
