"""Execute chapters in place and store their outputs, free of noise.

`python -m tools.notebooks [book/x.ipynb ...]` runs the named chapters, or all in _toc.yml. A second
run changes nothing but what training made: no time stamps, no interpreter version, no widget state.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from companion.evaluation.claims import RECORD
from tools import chapters

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

#: What editors and servers write into a cell's metadata and no reader needs.
EDITOR_METADATA = {
    "collapsed", "colab", "execution", "ExecuteTime", "id", "outputId", "scrolled", "vscode"
}  # fmt: skip

#: How a cell says that something optional is not installed; its stored output is then kept.
NOT_HERE = "Not here:"

#: A progress bar as tqdm draws it; the same pattern is in tests/nbval_sanitize.cfg.
PROGRESS = re.compile(r"[^\n\r]*\d+%\|[^\n\r]*")


def tidy(notebook: Any) -> None:
    """Keep what a reader or nbval needs, and nothing that differs from run to run.

    Raises ValueError when a cell wrote to stderr anything but a progress bar: a warning belongs
    mended, not stored.
    """
    kept = {key: notebook.metadata[key] for key in ("myst", "mystnb") if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
            **kept,
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    used: set[str] = set()
    for number, cell in enumerate(notebook.cells):
        if not cell.get("id") or cell["id"] in used:
            cell["id"] = f"cell-{number}"
        used.add(cell["id"])
        for key in EDITOR_METADATA & set(cell.metadata):
            del cell.metadata[key]
        if cell.cell_type == "code":
            cell.outputs = _tidy_outputs(cell.outputs, number)


def _tidy_outputs(outputs: list[Any], number: int) -> list[Any]:
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            rest = PROGRESS.sub("", output.text).strip()
            if rest:
                raise ValueError(f"cell {number} wrote to stderr: {rest}")
            continue
        if "data" in output:
            data = dict(output.data)
            if WIDGET_VIEW in data and "text/html" in data:
                # The site shows the HTML; the view names a model that died with the kernel.
                del data[WIDGET_VIEW]
            output.data = nbformat.from_dict(data)
        if kept and output.output_type == kept[-1].output_type == "stream":
            kept[-1].text += output.text  # one print after another; where it broke was chance
            continue
        kept.append(output)
    return kept


def execute(path: Path) -> float:
    """Run the notebook at `path` in its folder, store it, and return the seconds it took.

    The file is replaced only when every cell ran. A cell that only says `NOT_HERE` keeps what it
    had: readers see what it prints where everything is installed.
    """
    from companion.core.files import write_text

    start = time.monotonic()
    notebook = nbformat.read(path, as_version=4)
    stored = {cell.get("id"): cell.outputs for cell in notebook.cells if "outputs" in cell}
    client = NotebookClient(
        notebook,
        timeout=900,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        if any(str(each.get("text", "")).startswith(NOT_HERE) for each in cell.get("outputs", [])):
            cell.outputs = stored[cell.get("id")] or cell.outputs
    tidy(notebook)
    text = nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"
    write_text(path, text)
    return time.monotonic() - start


#: The line of a chapter that every model it trains depends on.
SEED = re.compile(r"^SEED = 0\b", re.MULTILINE)


def figures(path: Path, seed: int, variables: Mapping[str, str]) -> dict[str, Any]:
    """Run a chapter with another seed; the figures of its own claims (`evaluation.claims`).

    The notebook is left as it is. `variables` are added to the kernel's environment. Raises
    ValueError when the chapter has not one line `SEED = 0`, makes no claims, or gives a figure
    two values.
    """
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if sum(len(SEED.findall(cell.source)) for cell in code) != 1:
        raise ValueError(f"{path.name} must hold the line SEED = 0 once")
    for cell in code:
        cell.source = SEED.sub(f"SEED = {seed}", cell.source)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "claims.jsonl"
        clock = "import time; print(time.process_time())"
        notebook.cells.append(nbformat.v4.new_code_cell(clock))
        client = NotebookClient(
            notebook,
            timeout=1800,
            kernel_name="python3",
            store_widget_state=False,
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute(env={**os.environ, "OMP_NUM_THREADS": "1", **variables, RECORD: str(record)})
        if not record.exists():
            raise ValueError(f"{path.name} makes no claims")
        found: dict[str, float] = {}
        for line in record.read_text(encoding="utf-8").splitlines():
            claim = json.loads(line)
            if claim["measurement"] != path.stem:
                continue
            if found.setdefault(claim["figure"], claim["value"]) != claim["value"]:
                raise ValueError(f"{path.name} claims two values of {claim['figure']!r}")
        seconds = float(notebook.cells[-1].outputs[0].text)
    return {"seed": seed, "cpu_seconds": round(seconds, 2), **found}


def record_fingerprint() -> None:
    """Write into pyproject.toml which release's documentation the stored outputs were made with."""
    from companion.text.corpora import load_corpus

    fingerprint = load_corpus("python-docs").fingerprint
    path = chapters.ROOT / "pyproject.toml"
    old = path.read_text(encoding="utf-8")
    new = re.sub(r'^python-docs = "[^"]*"$', f'python-docs = "{fingerprint}"', old, flags=re.M)
    if new != old:
        path.write_text(new, encoding="utf-8")
        print(f"pyproject.toml: python-docs = {fingerprint}")


def main() -> int:
    """Command line: the chapters to run; none means all."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tools.notebooks")
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="book/x.ipynb")
    named = [path.resolve() for path in parser.parse_args().notebooks]
    # The kernel must be this environment's own, whatever other kernels the machine knows.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    failed = False
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = {path: pool.submit(execute, path) for path in named or chapters.toc_notebooks()}
        for path, job in running.items():
            shown = os.path.relpath(path, chapters.ROOT)
            try:
                print(f"{shown}: {job.result():.0f} s", flush=True)
            except (CellExecutionError, ValueError, OSError) as error:
                print(f"{shown}: NOT stored\n{error}", file=sys.stderr, flush=True)
                failed = True
    if not failed and not named:
        record_fingerprint()
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
