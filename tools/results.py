"""Measure what the book quotes but no chapter can run, and store it below book/results/.

    python -m tools.results            the CPU's part, nearly two hours
    python -m tools.results NAME ...   some of it

Each file holds the command, the commit, and what the command reported: configuration, environment,
seeds and figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.chapters import ROOT

RESULTS = ROOT / "book" / "results"

#: What is measured, by the name of its file: arguments of `companion`, which reports in JSON.
MEASUREMENTS = {
    "large_vocabulary": "study run large_vocabulary --seeds 0,1,2",
    "speed_to_quality": (
        "study run speed_to_quality --seeds 0 --set budgets=60,120,600 --set usual_budgets=120,600"
    ),
    "speed_to_quality_seeds": (
        "study run speed_to_quality --seeds 1,2 --set budgets=120 --set usual_budgets=120"
    ),
    "degeneration": "study run degeneration --seeds 10,11,12",
    "exposure_bias": "study run exposure_bias --seeds 10,11,12",
    "overoptimization": "study run overoptimization --seeds 10,11,12",
    "memorization": "study run memorization --seeds 10,11,12",
    "goal_misgeneralization": "study run goal_misgeneralization --seeds 10,11,12",
    "length_generalization": "study run length_generalization --seeds 10,11,12",
    "shortcut": "study run shortcut --seeds 10,11,12",
    "preference_tuning": "study run preference_tuning --seeds 10,11,12",
    "competing_objectives": "study run competing_objectives --seeds 10,11,12,13,14",
    "mismatched_generalization": "study run mismatched_generalization --seeds 10,11,12,13,14",
    "mismatched_generalization_transformer": (
        "study run mismatched_generalization --seeds 10,11,12,13,14 --set architecture=transformer "
        "--set hidden_size=96 --set batch_size=32 --set smaller= --set short=0 --set plain_only=6 "
        "--set pretrain_rate=2e-3 --set instruct_rate=1e-3 --set safety_rate=1e-3"
    ),
    "mismatched_generalization_bytes": (
        "study run mismatched_generalization --seeds 10,11,12 --set architecture=transformer "
        "--set tokens=bytes --set hidden_size=96 --set batch_size=16 --set smaller= --set short=0 "
        "--set seen=10 --set held_out=5 --set benign=8 --set benign_held_out=4 --set unknown=4 "
        "--set plain_only=4 --set pretrain_steps=2000 --set instruct_steps=800 "
        "--set pretrain_rate=4e-3 --set instruct_rate=2e-3 --set safety_rate=1e-3"
    ),
    "distribution_shift": "study run distribution_shift --seeds 10,11,12",
    "strange_text": "study run strange_text --seeds 10,11,12",
    "coverage": "study run coverage --seeds 10,11,12,13,14",
}


def store(name: str, command: str, report: dict[str, Any]) -> Path:
    """Write `report` to book/results/NAME.json with its command and the commit it was made at."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"command": command, "commit": commit(), **report}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return path


def commit() -> str:
    """The commit that is checked out; marked where the package differs from it."""
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "companion"], cwd=ROOT)
    return head + (" with changes" if changed.returncode else "")


def main() -> None:
    """Run the measurements named on the command line, or all."""
    for name in sys.argv[1:] or MEASUREMENTS:
        arguments = MEASUREMENTS[name].split()
        done = subprocess.run(
            [sys.executable, "-m", "companion", *arguments, "--json"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        command = f"companion {MEASUREMENTS[name]}"
        print(store(name, command, json.loads(done.stdout)).relative_to(ROOT))


if __name__ == "__main__":
    main()
