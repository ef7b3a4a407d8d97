"""The script for a rented GPU, rehearsed on a CPU where such a machine's packages and .git lack."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from companion.core.files import FileError
from companion.core.seeds import seed_everything
from companion.evaluation.scoring import evaluate, score
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.pipeline import load_run, resume_run
from companion.runs.presets import Preset, get_preset, override
from companion.text.corpora import load_corpus
from companion.text.documents import Document
from companion.text.tokenizers import WordTokenizer, encode_documents, save_tokenizer
from companion.training.benchmark import training_flops_per_token
from companion.training.budget import Pace
from companion.training.checkpoints import RunFolder, Weights
from companion.training.trainer import TrainingError, TrainResult
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


class Trainings:
    """In the place of `train_run` and `resume_run`: trainings that diverge in fp16, and in fp32 too
    if `always`, after a validation with a loss of their own."""

    def __init__(self, *, always: bool) -> None:
        self.always = always
        self.tried: list[tuple[str, float]] = []

    def train_run(
        self, corpus: Any, preset: Preset, out: Path, *, budget: float, **named: Any
    ) -> TrainResult:
        precision = preset.train.precision
        self.tried.append((precision, budget))
        record = {
            "preset": named["preset_name"], "train": dataclasses.asdict(preset.train),
            "model": {"vocabulary_size": 100}, "budget": dataclasses.asdict(pace(500e3)),
        }  # fmt: skip
        run = RunFolder.create(out, record)
        run.append_metrics(
            {"step": 10, "valid_nats_per_token": {"fp16": 4.0, "fp32": 3.0}[precision]}
        )
        if precision == "fp16" or self.always:
            run.write_failure({"step": 11})
            raise TrainingError(f"training diverged at step 11 in {precision}")
        return TrainResult(
            steps=10, total_steps=10, new_steps=10, seconds=1.0, tokens_per_second=400e3,
            best_nats_per_token=3.0, stopped="finished", history=[],
        )  # fmt: skip

    def resume_run(self, out: Path, **named: Any) -> TrainResult:
        raise AssertionError("a run that diverged diverges again")


def train_there(trainings: Trainings, out: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is stored of a training of part B, in which nothing is measured."""
    monkeypatch.setenv("OUT", str(out))
    monkeypatch.setattr(gpu_results.tempfile, "gettempdir", lambda: str(out.parent))
    monkeypatch.setattr(gpu_results, "train_run", trainings.train_run)
    monkeypatch.setattr(gpu_results, "resume_run", trainings.resume_run)
    monkeypatch.setattr(gpu_results, "_tokens", lambda call: (torch.zeros(0), 100))
    monkeypatch.setattr(gpu_results, "_pace", lambda *parts: pace(500e3))
    monkeypatch.setattr(gpu_results, "_matmul_flops", lambda call, precision: 1e12)
    monkeypatch.setattr(gpu_results.Call, "corpus", lambda self: None)
    small = {name: text for name, text in gpu_results.SMALL.items() if name != "train.precision"}
    monkeypatch.setattr(gpu_results, "SMALL", small)
    monkeypatch.setattr(sys, "argv", ["gpu_results", "train", "--rehearse", "--seconds", "580"])
    with contextlib.suppress(SystemExit):
        gpu_results.main()
    stored: dict[str, Any] = json.loads((out / "gpu_train.json").read_text())
    return stored


def test_a_training_that_diverges_in_fp16_is_set_aside_and_fp32_takes_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(always=False)
    stored = train_there(trainings, tmp_path / "out", monkeypatch)
    (first, whole), (second, left) = trainings.tried
    assert (first, second) == ("fp16", "fp32")
    assert gpu_results.LEAST_SECONDS < left < whole <= gpu_results.TRAINING_SECONDS
    assert stored["finished"]
    assert stored["precision"] == stored["train"]["precision"] == "fp32"
    probed, failed = stored["tried"]
    assert probed["targets_per_second"] == 500e3
    assert failed["error"] == "training diverged at step 11 in fp16"
    # Beside the speed with warm-up and checkpoints, that of steps alone, and its share of the peak.
    assert stored["tokens_per_second"] == 400e3
    assert stored["pace"]["targets_per_second"] == 500e3
    model = override(get_preset("awd-lstm"), gpu_results.SMALL).model_config(100)
    share = 500e3 * training_flops_per_token(model) / 1e12
    assert stored["share_of_peak"] == pytest.approx(share)
    runs = {path.name for path in (tmp_path / "runs").iterdir()}
    assert runs == {"awd-lstm", "awd-lstm-diverged-1"}


def test_a_second_call_never_goes_on_with_a_run_that_diverged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        trainings = Trainings(always=True)
        stored = train_there(trainings, tmp_path / "out", monkeypatch)
        assert [precision for precision, _ in trainings.tried] == ["fp16", "fp32"]
        # What was tried stays beside the error.
        assert stored["error"] == "TrainingError: training diverged at step 11 in fp32"
        assert [("error" in each) for each in stored["tried"]] == [False, True, True]
        assert len(list((tmp_path / "runs").iterdir())) == 2 * number
    # Nor with one of a call that ended between the divergence and the setting aside.
    (tmp_path / "runs" / "awd-lstm-diverged-4").rename(tmp_path / "runs" / "awd-lstm")
    stored = train_there(Trainings(always=False), tmp_path / "out", monkeypatch)
    assert stored["finished"]


def test_what_is_packed_and_scored_is_the_run_with_the_lowest_validation_loss(
    tmp_path: Path,
) -> None:
    call = gpu_results.Call(rehearsal=True, seconds=1.0, out=tmp_path, run=tmp_path / "awd-lstm")
    assert gpu_results.best_run(call) == call.run  # and there is none, which is said then
    for name, losses in {
        "awd-lstm": [5.0], "awd-lstm-diverged-1": [7.0, 4.0, 4.5], "awd-lstm-diverged-2": [],
    }.items():  # fmt: skip
        run = RunFolder.create(tmp_path / name, {})
        run.append_metrics({"step": 1})
        for step, loss in enumerate(losses):
            run.append_metrics({"step": step, "valid_nats_per_token": loss})
    assert gpu_results.best_run(call).name == "awd-lstm-diverged-1"


def test_a_model_is_scored_in_true_fp32_after_a_training_with_tf32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def scored(*parts: Any, **options: Any) -> Any:
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return score(*parts, **options)

    seed_everything(0)
    tokenizer = WordTokenizer.fit(["a b c d"])
    model = LSTMLanguageModel(
        LSTMConfig(vocabulary_size=tokenizer.vocabulary_size, embedding_size=4, hidden_size=4)
    )
    trained = SimpleNamespace(model=model, tokenizer=tokenizer, step=3)
    corpus = SimpleNamespace(documents=lambda split: [Document(name="a", text="a b c d " * 20)])
    monkeypatch.setattr(gpu_results, "score", scored)
    monkeypatch.setattr(gpu_results, "load_run", lambda *parts, **named: trained)
    monkeypatch.setattr(gpu_results.Call, "corpus", lambda self: corpus)
    call = gpu_results.Call(rehearsal=True, seconds=1.0, out=tmp_path, run=tmp_path / "run")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    gpu_results._allow_tf32("fp32")
    try:
        gpu_results.evaluate(call)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert seen == [(False, False)] * 4


def test_the_time_of_a_call_begins_before_its_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ast.parse(Path(gpu_results.__file__).read_text("utf-8")).body
    where = [ast.unparse(line).partition("\n")[0] for line in lines]
    assert where.index("STARTED = time.perf_counter()") < where.index("import torch")
    assert ast.unparse(lines[-1]).endswith("main(STARTED)")
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gpu_results", "dtypes", "--rehearse"])
    gpu_results.main(time.perf_counter() - 100)
    assert json.loads((tmp_path / "gpu_dtypes.json").read_text())["seconds_since_start"] >= 100


def test_git_ignores_what_is_brought_to_such_a_machine_and_back() -> None:
    assert "/.gpu/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_without_a_gpu_only_a_rehearsal_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_results", "A"])
    with pytest.raises(SystemExit, match=r"needs a CUDA device.*--rehearse needs none"):
        gpu_results.main()


def test_away_from_git_a_measurement_names_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit() == f"no git; sources {fingerprint()}"
    assert len(fingerprint()) == 64


def marked_gpu() -> int:
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
    assert found_of(report["for_a_gpu"]) >= marked_gpu() > 0
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
    assert found_of(stored["tests"]["for_a_gpu"]) >= marked_gpu()
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
