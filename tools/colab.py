"""Run chapters as Colab does, and try every picture in them that responds.

`python -m tools.colab PYTHON [book/x.ipynb ...]` runs the named chapters, or all, with the kernel
of the interpreter PYTHON, each in an empty folder, and prints a line for each. Where that
interpreter lacks the companion, the first cell installs it, from what is checked out here: the
repository's address is sent to a copy, so nothing need be published.

The kernel belongs to PYTHON; what drives it is the environment that runs this.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools import chapters, notebooks

#: What the installed package is made of; nothing else need be published.
PACKAGED = ("companion/", "book/results/", "pyproject.toml", "README.md", "LICENSE")

#: A picture draws one frame when its control moves: a second or so.
SECONDS_TO_RESPOND = 60


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a chapter that ran to its end."""

    seconds: float
    """How long it took, moves included."""
    pictures: int
    """How many pictures have both faces and answered a move of each control."""


def publish(folder: Path, also: tuple[str, ...] = ()) -> None:
    """Make `folder` a repository of the package as it is here, on our branch and without a tag.

    also: how further names begin that it shall hold.
    """
    folder.mkdir(parents=True)
    listed = _git("ls-files", "--cached", "--others", "--exclude-standard", cwd=chapters.ROOT)
    for name in listed.splitlines():
        if name.startswith((*PACKAGED, *also)) and (chapters.ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(chapters.ROOT / name, folder / name)
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
    _git("init", "--quiet", "--initial-branch", chapters.BRANCH, cwd=folder)
    _git("add", "--all", cwd=folder)
    _git(*identity, "commit", "--quiet", "--message", "As it is", cwd=folder)


def environment(published: Path, home: Path) -> dict[str, str]:
    """The variables of a stranger's kernel: no path to us, our address sent to `published`."""
    # COMPANION_CACHE stays: a model that this very source has trained before is the same there.
    ours = ("PYTHON", "VIRTUAL_ENV", "JUPYTER", "COMPANION_DATA")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    return {
        **kept,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{published.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": chapters.repository_url(),
        "IPYTHONDIR": str(home),
        "MPLCONFIGDIR": str(home),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # an old debugger's warning at each start
        "OMP_NUM_THREADS": "1",
    }


def run_chapter(chapter: Path, python: str, folder: Path, variables: dict[str, str]) -> Report:
    """Run every cell in `folder` with the kernel of `python`, and move each picture's controls.

    Raises CellExecutionError when a cell does, and ValueError for a warning in an output, a picture
    with one face only, one that does not answer, or fewer pictures than the chapter has stored.
    """
    return asyncio.run(_run_chapter(chapter, python, folder, variables))


async def _run_chapter(
    chapter: Path, python: str, folder: Path, variables: dict[str, str]
) -> Report:
    start = time.monotonic()
    notebook = nbformat.read(chapter, as_version=4)
    stored = len(_pictures(notebook))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    with tempfile.TemporaryDirectory() as kernels:
        spec = {
            "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "Colab",
            "language": "python",
        }
        Path(kernels, "colab").mkdir()
        Path(kernels, "colab", "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
        manager = AsyncKernelManager(
            kernel_name="colab",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[kernels]),
        )
        client = NotebookClient(notebook, km=manager, timeout=900)
        async with client.async_setup_kernel(env=variables, cwd=str(folder), cleanup_kc=True):
            for index, cell in enumerate(notebook.cells):
                await client.async_execute_cell(cell, index)
            pictures = _pictures(notebook)
            if len(pictures) != stored:
                raise ValueError(f"{len(pictures)} pictures that respond, {stored} are stored")
            for picture in pictures:
                await _move_each_control(client, picture)
    notebooks.tidy(copy.deepcopy(notebook))  # ValueError for anything on stderr
    return Report(seconds=time.monotonic() - start, pictures=len(pictures))


def _pictures(notebook: Any) -> list[dict[str, Any]]:
    """The data of each output that is a picture which responds, face by face."""
    return [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if 'class="explore"' in "".join(output.get("data", {}).get("text/html", ""))
    ]


async def _move_each_control(client: Any, picture: dict[str, Any]) -> None:
    """Move each control by one; ValueError unless the live face then shows that frame."""
    name = picture["text/plain"]
    if notebooks.WIDGET_VIEW not in picture:
        raise ValueError(f"{name} has no live face")
    models = client.widget_state
    box = models[picture[notebooks.WIDGET_VIEW]["model_id"]]
    *controls, shown = (child.removeprefix("IPY_MODEL_") for child in box["children"])
    frames = _names_of_frames(picture["text/html"])
    sizes = [len(models[control]["_options_labels"]) for control in controls]
    position = [models[control]["index"] for control in controls]
    for number, control in enumerate(controls):
        position[number] = (position[number] + 1) % sizes[number]
        frame = position[0] if len(sizes) == 1 else position[0] * sizes[1] + position[1]
        value = await _set(client, control, {"index": position[number]}, answer=shown)
        if value is None:
            raise ValueError(f"{name} does not answer a move")
        if _names_of_frames(value) != [frames[frame]]:
            raise ValueError(f"{name} shows {value[-200:]} in place of {frames[frame]}")


def _names_of_frames(html: str) -> list[str]:
    """What a screen reader reads of each frame in the HTML of either face."""
    from bs4 import BeautifulSoup

    found = BeautifulSoup(html, "html.parser").select(".explore-frames > *")
    return [str(frame.get("alt") or frame.get("aria-label")) for frame in found]


async def _set(client: Any, model: str, state: dict[str, Any], *, answer: str) -> str | None:
    """Move a control as a page does; the value that the model `answer` gets then, None if none."""
    content = {"comm_id": model, "data": {"method": "update", "state": state, "buffer_paths": []}}
    message = client.kc.session.msg("comm_msg", content)
    client.kc.shell_channel.send(message)
    value: str | None = None
    while True:
        try:
            reply = await client.kc.iopub_channel.get_msg(timeout=SECONDS_TO_RESPOND)
        except queue.Empty:  # the kernel never came to an end with it
            return None
        if reply["parent_header"].get("msg_id") != message["header"]["msg_id"]:
            continue
        if reply["msg_type"] == "comm_msg" and reply["content"]["comm_id"] == answer:
            value = reply["content"]["data"].get("state", {}).get("value", value)
        if reply["msg_type"] == "status" and reply["content"]["execution_state"] == "idle":
            return value


def _git(*arguments: str, cwd: Path) -> str:
    run = subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return run.stdout


def main() -> int:
    """Command line: the interpreter, and the chapters to run; none means all."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tools.colab")
    parser.add_argument("python", help="the interpreter whose kernel runs the chapters")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="book/x.ipynb")
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        home, published = Path(folder, "home"), Path(folder, "published")
        publish(published)
        for chapter in arguments.notebooks or chapters.toc_notebooks():
            empty = Path(folder, chapter.stem)
            empty.mkdir()
            variables = environment(published, home)
            try:
                report = run_chapter(chapter, arguments.python, empty, variables)
            except (CellExecutionError, ValueError) as error:
                print(f"{chapter.stem}: failed\n{error}", file=sys.stderr, flush=True)
                failed = True
            else:
                print(
                    f"{chapter.stem}: {report.seconds:.0f} s, pictures: {report.pictures}",
                    flush=True,
                )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
