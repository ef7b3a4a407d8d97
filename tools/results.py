"""Measure what the book quotes, and store it below book/results/.

    python -m tools.results            all of the CPU's part, some five processor hours
    python -m tools.results NAME ...   some of it

A measurement is a study, or a chapter that trains models of its own; it is run with five seeds or
more, and with the first of them again where the processor rounds as another would (tools.variants).
Each file holds the command, the configuration, and for each part of the runs the commit, the
processor, the threads, and how busy the machine was; then the figures.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from tools import chapters, notebooks, variants
from tools.chapters import ROOT
from tools.commits import commit

RESULTS = ROOT / "book" / "results"


#: Seeds of chapters that train; they stand apart since a chapter may also use the ones that follow.
CHAPTER_SEEDS = (10, 20, 30, 40, 50)

#: Studies, by the name of their file: arguments of `companion`, which reports in JSON.
MEASUREMENTS = {
    "known_floor": "study run known_floor --seeds 10,11,12,13,14",
    "large_vocabulary": "study run large_vocabulary --seeds 0,1,2,3,4",
    "step_speed": "study run step_speed --seeds 0,1,2,3,4",
    "speed_to_quality": (
        "study run speed_to_quality --seeds 0 --set budgets=60,120,600 --set usual_budgets=120,600"
    ),
    "speed_to_quality_seeds": (
        "study run speed_to_quality --seeds 1,2 --set budgets=120 --set usual_budgets=120"
    ),
    "speed_to_quality_characters": (
        "study run speed_to_quality --seeds 0,1,2 --set preset=char-small "
        "--set corpus=tiny-shakespeare --set budgets=70 --set usual_budgets=70"
    ),
    "degeneration": "study run degeneration --seeds 10,11,12,13,14",
    "exposure_bias": "study run exposure_bias --seeds 10,11,12,13,14",
    "overoptimization": "study run overoptimization --seeds 20,21,22,23,24",
    "memorization": "study run memorization --seeds 10,11,12,13,14",
    "memorization_strengths": (
        "study run memorization --seeds 20,21,22,23,24 --set few_texts=0 "
        "--set weight_decay=0.05,0.2,0.5,1 --set dropout=0.1,0.4,0.6,0.8 "
        "--set decay_epochs=20 --set dropout_epochs=20"
    ),
    "goal_misgeneralization": "study run goal_misgeneralization --seeds 10,11,12,13,14",
    "length_generalization": "study run length_generalization --seeds 10,11,12,13,14",
    "length_generalization_examples": (
        "study run length_generalization --seeds 10,11,12,13,14 --set readers=LSTM --set cells= "
        "--set doses=0,10,30,100,300,1000,3000 "
        "--set kinds=any,rest_1,rest_2,rest_3,ten_thousands,ten_rests"
    ),
    "shortcut": "study run shortcut --seeds 10,11,12,13,14",
    "preference_tuning": "study run preference_tuning --seeds 10,11,12,13,14",
    "remedies": "study run remedies --seeds 10,11,12,13,14",
    "competing_objectives": "study run competing_objectives --seeds 20,21,22,23,24",
    "demands": "study run demands --seeds 20,21,22,23,24 --set shares=0,0.1,0.25,0.5",
    "demands_anchors": (
        "study run demands --seeds 20,21,22,23,24 --set shares=0.25 --set anchors=kl,documents,none"
    ),
    "mismatched_generalization": "study run mismatched_generalization --seeds 10,11,12,13,14",
    "mismatched_generalization_transformer": (
        "study run mismatched_generalization --seeds 10,11,12,13,14 --set architecture=transformer "
        "--set hidden_size=96 --set batch_size=32 --set smaller= --set short=0 --set plain_only=6 "
        "--set pretrain_rate=2e-3 --set instruct_rate=1e-3 --set safety_rate=1e-3"
    ),
    "mismatched_generalization_bytes": (
        "study run mismatched_generalization --seeds 10,11,12,13,14 --set architecture=transformer "
        "--set tokens=bytes --set hidden_size=96 --set batch_size=16 --set smaller= --set short=0 "
        "--set seen=10 --set held_out=5 --set benign=8 --set benign_held_out=4 --set unknown=4 "
        "--set plain_only=4 --set pretrain_steps=2000 --set instruct_steps=800 "
        "--set pretrain_rate=4e-3 --set instruct_rate=2e-3 --set safety_rate=1e-3"
    ),
    "anchors": "study run anchors --seeds 20,21,22,23,24",
    "distribution_shift": "study run distribution_shift --seeds 10,11,12,13,14",
    "strange_text": "study run strange_text --seeds 10,11,12,13,14",
    "coverage": "study run coverage --seeds 10,11,12,13,14",
    "sentiment": "study run sentiment --seeds 10,11,12,13,14",
    "sentiment_encoder": "study run sentiment_encoder --seeds 10,11,12,13,14",
    "translation": "study run translation --seeds 10,11,12,13,14",
    "translation_mismatch": (
        "study run translation --seeds 10,11,12,13,14 --set parts=lengths,beams "
        "--set noise=0.4 --set noisy_pairs=4000 --set num_searches=50"
    ),
    "dialogue": "study run dialogue --seeds 10,11,12,13,14",
    "scaling_law": "study run scaling_law --seeds 10,11,12,13,14",
    "critical_batch_size": "study run critical_batch_size --seeds 10,11,12,13,14",
    "critical_batch_size_rates": (
        "study run critical_batch_size --seeds 100,101,102,103,104 --set factors=0.5,2 "
        "--set untuned="
    ),
    "compression": "study run compression --seeds 10,11,12,13,14",
    "compression_safety": "study run compression --seeds 10,11,12,13,14 --set parts=safety",
    "compression_speed": (
        "study run compression --seeds 0,1,2,3,4 --set parts=speed --set seconds=1"
    ),
    "real_model": "study run real_model --seeds 10 --set lstm_epochs=2",
    "real_refusals": "study run real_refusals --seeds 10,11,12",
    "real_refusals_answers": (
        "study run real_refusals --seeds 10 --set refused=nothing "
        "--set 'ways=plain,no sorry,no please,prefill answer,capitals,sentence'"
    ),
    "real_refusals_asia": (
        "study run real_refusals --seeds 10 --set refused=Asia "
        "--set 'ways=plain,no sorry,no please,prefill answer,capitals,sentence'"
    ),
    "bias": "study run bias --seeds 10,11,12,13,14",
}

#: Measured in seconds of this machine: another rounding would be another machine's matter.
SPEED = {
    "speed_to_quality", "speed_to_quality_seeds", "speed_to_quality_characters",
    "large_vocabulary", "step_speed", "compression_speed"
}  # fmt: skip

#: Measured on a real model, minutes a seed: fewer seeds, and one rounding. They need what
#: `make real-model` installs, and COMPANION_DATA.
REAL = {"real_model", "real_refusals", "real_refusals_answers", "real_refusals_asia"}


def measured_chapters() -> dict[str, Path]:
    """The chapters that make claims of their own, `Claims("their name")`, by name.

    Where a study has that name, the claims are about the study.
    """
    found = {}
    for path in chapters.toc_notebooks():
        cells = chapters.code_cells(chapters.read_notebook(path))
        own = path.stem not in MEASUREMENTS
        if own and any(f'Claims("{path.stem}"' in cell["source"] for cell in cells):
            found[path.stem] = path
    return found


def study(command: str, variant: str = "as-is", seeds: Sequence[int] = ()) -> dict[str, Any]:
    """The report of a study, run in a process of its own; `seeds` in place of the command's."""
    arguments = shlex.split(command)
    if seeds:
        arguments[arguments.index("--seeds") + 1] = ",".join(map(str, seeds))
    done = subprocess.run(
        [sys.executable, "-m", "companion", *arguments, "--json"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **variants.variables(variant)},
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def chapter(path: Path, variant: str, seeds: Sequence[int]) -> dict[str, Any]:
    """What a chapter's claims are about, once for each seed, with the environment."""
    results = [notebooks.figures(path, seed, variants.variables(variant)) for seed in seeds]
    done = subprocess.run(
        [sys.executable, "-c", "import json; from companion.core.runtime import environment; "
         "print(json.dumps(environment()))"],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variants.variables(variant)},
    )  # fmt: skip
    return {"environment": json.loads(done.stdout), "seeds": list(seeds), "results": results}


def measure(name: str) -> dict[str, Any]:
    """The whole record of one measurement, as its file holds it."""
    if name in MEASUREMENTS:
        command = MEASUREMENTS[name]
        head = {"command": f"companion {command}"}
        first = study(command)
        head |= {"study": first["study"], "config": first["config"]}
        again = {}
        if name not in SPEED | REAL:
            other = variants.another()
            again[other] = study(command, other, first["seeds"][:1])
    else:
        path = measured_chapters()[name]
        head = {
            "command": f"make results NAME={name}",
            "chapter": path.relative_to(ROOT).as_posix(),
        }
        first = chapter(path, "as-is", CHAPTER_SEEDS)
        other = variants.another()
        again = {other: chapter(path, other, CHAPTER_SEEDS[:1])}
    made = commit(*([head["chapter"]] if "chapter" in head else []))
    measured = [
        {
            "seeds": first["seeds"],
            "commit": made,
            "environment": first["environment"],
            # How many processes wanted a core: seconds of a shared core say less.
            "load_average": round(psutil.getloadavg()[2], 1),
        }
    ]
    others = []
    for variant, report in again.items():
        part = {"seeds": report["seeds"], "variant": variant, "commit": made}
        measured.append({**part, "environment": report["environment"]})
        others += [{"variant": variant, **result} for result in report["results"]]
    record = {**head, "measured": measured, "seeds": first["seeds"], "results": first["results"]}
    return record | ({"elsewhere": others} if others else {})


def store(name: str, record: dict[str, Any]) -> Path:
    """Write `record` to book/results/NAME.json."""
    from companion.core.files import write_text

    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_text(path, json.dumps(record, indent=2) + "\n")
    return path


def main() -> None:
    """Run the measurements named on the command line, or all."""
    known = [*MEASUREMENTS, *measured_chapters()]
    for name in sys.argv[1:]:  # before the first of them has taken its hour
        if name not in known:
            raise SystemExit(
                f"nothing is measured under the name {name!r}; there are {', '.join(known)}"
            )
    failed = []
    for name in sys.argv[1:] or known:
        try:
            record = measure(name)
        except subprocess.CalledProcessError:  # it has said why: a package may be missing
            failed.append(name)
            continue
        print(store(name, record).relative_to(ROOT), flush=True)
    if failed:
        raise SystemExit(f"not measured, and left as they were: {', '.join(failed)}")


if __name__ == "__main__":
    main()
