"""The script for a rented GPU, rehearsed on a CPU where such a machine's packages and .git lack."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from companion.core.files import FileError
from companion.core.seeds import seed_everything
from companion.evaluation.scoring import evaluate
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.pipeline import load_run, resume_run
from companion.text.corpora import load_corpus
from companion.text.tokenizers import WordTokenizer, encode_documents, save_tokenizer
from companion.training.budget import Pace
from companion.training.checkpoints import RunFolder, Weights
from tools import gpu_results, packed_weights
from tools.commits import commit, fingerprint

ROOT = Path(__file__).resolve().parents[2]
#: Packages of ours that such a machine was seen to lack, and some that it may.
MISSING = (
    "beartype", "ipywidgets", "pooch", "nbformat", "nbclient", "playwright",
    "typer", "rich", "optuna", "sacrebleu", "matplotlib", "bs4", "IPython", "jaxtyping", "scipy",
    "sklearn",
)  # fmt: skip


def pace(speed: float, *, finite: bool = True) -> Pace:
    return Pace(
        seconds_per_step=7000 / speed, seconds_per_validation=1.0, seconds_per_save=1.0,
        steps_per_epoch=300, targets_per_second=speed, finite=finite,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({("awd-lstm", "fp16"): 500e3}, ("awd-lstm", "fp16")),
        ({("awd-lstm", "fp16"): None, ("awd-lstm", "fp32"): 300e3}, ("awd-lstm", "fp32")),
        (
            {("awd-lstm", "fp16"): 200e3, ("awd-lstm-1024", "fp16"): 400e3},
            ("awd-lstm-1024", "fp16"),
        ),
        ({("awd-lstm", "fp16"): 200e3, ("awd-lstm-1024", "fp16"): 150e3}, ("awd-lstm", "fp16")),
        (
            {
                ("awd-lstm", "fp16"): None, ("awd-lstm", "fp32"): 90e3,
                ("awd-lstm-1024", "fp32"): 95e3,
            },
            ("awd-lstm-1024", "fp32"),
        ),
    ],
)  # fmt: skip
def test_the_recipe_is_the_first_that_works_and_is_quick(
    speeds: dict[tuple[str, str], float | None], chosen: tuple[str, str]
) -> None:
    def measured(name: str, precision: str) -> Pace:
        speed = speeds[name, precision]
        return pace(1e6, finite=False) if speed is None else pace(speed)

    *found, tried = gpu_results.choose_recipe(measured)
    assert tuple(found) == chosen
    assert [(each["preset"], each["precision"]) for each in tried] == list(speeds)


def test_the_script_names_every_file_with_a_test_for_a_gpu() -> None:
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if any(
            isinstance(node, ast.Attribute) and node.attr == "gpu"
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
        )
    }
    assert marked == set(gpu_results.TESTS)


def test_a_part_that_fails_is_said_and_stops_none_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(call: gpu_results.Call) -> dict[str, Any]:
        raise RuntimeError("the device fell off")

    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setitem(gpu_results.PARTS, "speed", broken)
    monkeypatch.setattr(sys, "argv", ["gpu_results", "speed", "dtypes", "--rehearse"])
    with pytest.raises(SystemExit, match="failed: speed"):
        gpu_results.main()
    stored = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert stored["gpu_speed.json"]["error"] == "RuntimeError: the device fell off"
    assert stored["gpu_dtypes.json"]["lstm_dtype"] == {}
    assert stored["gpu_dtypes.json"]["rehearsal"]


def test_without_a_gpu_only_a_rehearsal_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_results", "A"])
    with pytest.raises(SystemExit, match=r"needs a CUDA device.*--rehearse needs none"):
        gpu_results.main()


def test_away_from_git_a_measurement_names_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() == f"no git; sources {fingerprint()}"
    assert len(fingerprint()) == 64


def tests_for_a_gpu() -> int:
    """The number of test functions marked gpu."""
    files = (ast.walk(ast.parse((ROOT / name).read_text("utf-8"))) for name in gpu_results.TESTS)
    return sum(
        any(ast.unparse(each) == "pytest.mark.gpu" for each in node.decorator_list)
        for nodes in files
        for node in nodes
        if isinstance(node, ast.FunctionDef)
    )


def found_of(report: dict[str, Any]) -> int:
    """The number of tests that pytest has found without an error."""
    assert report["exit_code"] == 0, report["output"]
    said = re.match(r"(\d+)/\d+ tests collected", report["summary"])
    assert said, report["output"]
    return int(said.group(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine that has the tracked files, no .git and few packages."""

    here: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> str:
        """What the script prints there."""
        done = subprocess.run(
            [sys.executable, "-m", "tools.gpu_results", *arguments, "--rehearse"],
            cwd=self.here, env=self.environment, capture_output=True, text=True, timeout=1500,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    here = tmp_path_factory.mktemp("rented")
    for folder in ("companion", "tools", "tests"):
        shutil.copytree(ROOT / folder, here / folder, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / "pyproject.toml", here)
    lacking = tmp_path_factory.mktemp("lacking")
    for name in MISSING:
        (lacking / f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})\n")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COMPANION_DATA",)
    } | {
        "PYTHONPATH": str(lacking), "OUT": str(here / "out"), "OMP_NUM_THREADS": "1", "PATH": "",
        "TMPDIR": str(tmp_path_factory.mktemp("temporary")),
    }  # fmt: skip
    return Machine(here=here, environment=environment)


@pytest.fixture(scope="module")
def rented(bare: Machine) -> dict[str, Path]:
    """What A and B leave there."""
    said = {}
    # A ends when its parts are done; on a busy machine that takes many times the usual two minutes.
    for call, seconds in (("A", "1500"), ("B", "60")):
        said[call] = bare.run(call, "--seconds", seconds)
    (bare.here / "said.json").write_text(json.dumps(said))
    return {"here": bare.here, "out": bare.here / "out"}


@pytest.mark.slow
def test_tests_for_a_gpu_are_found_where_packages_are_missing(bare: Machine) -> None:
    bare.run("tests", "--seconds", "1500")
    report = json.loads((bare.here / "out" / "gpu_tests.json").read_text())
    assert found_of(report["for_a_gpu"]) >= tests_for_a_gpu() > 0
    assert report["exit_code"] == 0, report["output"]


@pytest.mark.rehearsal
@pytest.mark.timeout(3000)
def test_the_whole_script_runs_where_packages_and_git_are_missing(rented: dict[str, Path]) -> None:
    out = rented["out"]
    stored = {
        path.stem.removeprefix("gpu_"): json.loads(path.read_text())
        for path in out.glob("gpu_*.json")
    }
    assert set(stored) == set(gpu_results.PARTS)
    assert not [part for part, report in stored.items() if "error" in report]
    for report in stored.values():
        assert report["measured"][0]["commit"].startswith("no git; sources ")
    assert stored["tests"]["exit_code"] == 0, stored["tests"]["output"]
    assert "passed" in stored["tests"]["summary"]
    assert found_of(stored["tests"]["for_a_gpu"]) >= tests_for_a_gpu()
    assert stored["parity"]["largest_difference"] == 0  # a CPU beside itself
    assert set(stored["speed"]["presets"]) == {
        f"{name} {precision}"
        for name in ("awd-lstm", "awd-lstm-1024")
        for precision in ("fp16", "fp32")
    }
    trained = stored["train"]
    assert trained["finished"]
    assert trained["steps"] == trained["planned_steps"] > 0
    assert trained["history"][-1]["learning_rate"] < 0.1 * trained["train"]["learning_rate"]
    # What comes back is small, and the last lines of the output tell all that counts.
    files = list(out.iterdir())
    assert len(files) <= 4 + 8
    assert all(path.stat().st_size < 16 * 10**6 for path in files)
    said = json.loads((rented["here"] / "said.json").read_text())
    assert '"perplexity"' in said["B"][-12_000:]
    assert '"targets_per_second"' in said["A"][-12_000:]


@pytest.mark.rehearsal
def test_weights_that_came_back_open_as_a_run_for_evaluation(
    rented: dict[str, Path], tmp_path: Path
) -> None:
    opened = packed_weights.unpack(rented["out"], tmp_path / "run")
    trained = load_run(opened.path, device="cpu")
    report = json.loads((rented["out"] / "gpu_evaluate.json").read_text())
    wanted = report["evaluations"]["test, 32 streams"]["nats_per_token"]
    corpus = load_corpus("python-docs")
    found = evaluate(trained.model, encode_documents(trained.tokenizer, corpus.test).ids)
    # Each weight was rounded to 8 binary digits: a relative error of at most 1 in 256.
    assert found.nats_per_token == pytest.approx(wanted, rel=2e-3)
    with pytest.raises(FileError, match="holds the weights alone, so training cannot go on"):
        resume_run(opened.path, corpus=corpus, device="cpu")
    damaged = shutil.copytree(rented["out"], tmp_path / "damaged")
    content = bytearray((damaged / "weights-0.bin").read_bytes())
    content[100] ^= 1
    (damaged / "weights-0.bin").write_bytes(content)
    with pytest.raises(ValueError, match="are not those that were written"):
        packed_weights.unpack(damaged, tmp_path / "other")


def test_packed_weights_are_the_runs_rounded_to_bfloat16_in_small_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_weights, "MOST", 10_000)
    config = LSTMConfig(vocabulary_size=200, embedding_size=32, hidden_size=32, tie_weights=True)
    seed_everything(0)
    model = LSTMLanguageModel(config)

    def prepare(folder: Path) -> None:
        save_tokenizer(WordTokenizer.fit(["a b"]), folder / "tokenizer.json")
        (folder / "corpus.json").write_text("{}")

    run = RunFolder.create(tmp_path / "run", {"preset": "none"}, prepare=prepare)
    run.save(Weights(step=3, model=model.state_dict()), best=True)
    files = packed_weights.pack(run.path, tmp_path / "packed")
    sizes = [path.stat().st_size for path in files[:-1]]
    assert len(sizes) > 1
    assert max(sizes) <= 10_000
    assert sum(sizes) < 2 * model.num_parameters  # in less than 16 bits each; the tied ones once
    opened = packed_weights.unpack(tmp_path / "packed", tmp_path / "opened")
    assert opened.record() == run.record()
    best = opened.best()
    assert best.step == 3
    for name, weight in model.state_dict().items():
        assert torch.equal(best.model[name], weight.bfloat16().float()), name
