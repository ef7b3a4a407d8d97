"""The script for a rented GPU, rehearsed on a CPU where such a machine's packages and .git lack."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
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


BROKEN = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
NO_MEMORY = TrainingError("device cuda has not enough memory for this model and batch")
NO_MEMORY.__cause__ = torch.OutOfMemoryError("CUDA out of memory")


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
        # A probe that raises is one that does not work, and stops none after it.
        ({("awd-lstm", "fp16"): BROKEN, ("awd-lstm", "fp32"): 300e3}, ("awd-lstm", "fp32")),
        ({("awd-lstm", "fp16"): 200e3, ("awd-lstm-1024", "fp16"): BROKEN}, ("awd-lstm", "fp16")),
        ({("awd-lstm", "fp16"): BROKEN, ("awd-lstm", "fp32"): BROKEN}, ("awd-lstm", "fp32")),
        # fp32 needs more memory, not less.
        (
            {("awd-lstm", "fp16"): NO_MEMORY, ("awd-lstm-1024", "fp16"): 300e3},
            ("awd-lstm-1024", "fp16"),
        ),
    ],
)  # fmt: skip
def test_the_recipe_is_the_first_that_works_and_is_quick(
    speeds: dict[tuple[str, str], float | Exception | None], chosen: tuple[str, str]
) -> None:
    def measured(name: str, precision: str) -> Pace:
        speed = speeds[name, precision]
        if isinstance(speed, Exception):
            raise speed
        return pace(1e6, finite=False) if speed is None else pace(speed)

    *found, tried = gpu_results.choose_recipe(measured)
    assert tuple(found) == chosen
    assert [(each["preset"], each["precision"]) for each in tried] == list(speeds)
    for trial, speed in zip(tried, speeds.values(), strict=True):
        if isinstance(speed, Exception):
            assert trial["error"] == f"{type(speed).__name__}: {speed}"


def test_a_probe_that_fails_leaves_the_speeds_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(call: Any, preset: Preset, ids: Any, size: int, precision: str) -> Pace:
        if precision == "fp32":
            raise BROKEN
        return pace(500e3)

    monkeypatch.setattr(gpu_results, "_tokens", lambda call: (torch.zeros(0), 100))
    monkeypatch.setattr(gpu_results, "_pace", measured)
    monkeypatch.setattr(gpu_results, "_matmul_flops", lambda call, precision: 1e12)
    call = gpu_results.Call(rehearsal=True, seconds=1.0, out=tmp_path, run=tmp_path / "run")
    found = gpu_results.speed(call)["presets"]
    assert found["awd-lstm-1024 fp16"]["targets_per_second"] == 500e3
    assert found["awd-lstm fp32"] == {"error": f"RuntimeError: {BROKEN}"}
    assert len(found) == 4
    # Each is stored as soon as it is there.
    assert json.loads((tmp_path / "gpu_speed.json").read_text())["presets"] == found


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


def made_run(
    path: Path, *, text: str = "text", precision: str = "fp32", **changes: Any
) -> RunFolder:
    """A run of `text` by AWD-LSTM in small, as `train_run` begins it."""
    preset = override(get_preset("awd-lstm"), gpu_results.SMALL | {"train.precision": precision})
    record = {
        "corpus": "a text", "corpus_fingerprint": text, "preset": "awd-lstm", "threads": None,
        "tokenizer": {"kind": "word"}, "model": dataclasses.asdict(preset.model_config(100)),
        "train": dataclasses.asdict(preset.train) | {"steps": 100, "epochs": None},
        "budget": dataclasses.asdict(pace(500e3)),
    }  # fmt: skip
    return RunFolder.create(path, record | changes)


def validated(run: RunFolder, step: int, loss: float) -> None:
    """A validation of the run, and the checkpoint after it."""
    run.append_metrics({"step": step, "valid_nats_per_token": loss})
    run.save(Weights(step=step, model={"weight": torch.full((3,), float(step))}), best=True)


class Trainings:
    """In the place of `train_run` and `resume_run`: trainings that fail in fp16, and in fp32 too if
    `always`, after a validation with a loss of their own; a failed one is never gone on with."""

    def __init__(self, *, always: bool = False, error: Exception | None = None) -> None:
        self.always, self.error = always, error
        self.tried: list[tuple[str, float]] = []

    def result(self, *, new_steps: int = 10) -> TrainResult:
        return TrainResult(
            steps=10, total_steps=10, new_steps=new_steps, seconds=1.0,
            tokens_per_second=40e3 * new_steps, best_nats_per_token=3.0, stopped="finished",
            history=[],
        )  # fmt: skip

    def train_run(
        self, corpus: Any, preset: Preset, out: Path, *, budget: float, **named: Any
    ) -> TrainResult:
        precision = preset.train.precision
        self.tried.append((precision, budget))
        run = made_run(out, precision=precision)
        validated(run, 10, {"fp16": 4.0, "fp32": 3.0}[precision])
        if precision == "fp16" or self.always:
            if self.error is not None:
                raise self.error
            run.write_failure({"step": 11})
            raise TrainingError(f"training diverged at step 11 in {precision}")
        return self.result()

    def resume_run(self, out: Path, **named: Any) -> TrainResult:
        assert not (out / "failed-step.json").exists(), "a run that diverged diverges again"
        return self.result(new_steps=0)


def train_there(
    trainings: Trainings, out: Path, monkeypatch: pytest.MonkeyPatch, *, seconds: str = "580"
) -> dict[str, Any]:
    """What is stored of a training of part B, in which nothing is measured."""
    monkeypatch.setenv("OUT", str(out))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(out.parent))
    monkeypatch.setattr(gpu_results, "train_run", trainings.train_run)
    monkeypatch.setattr(gpu_results, "resume_run", trainings.resume_run)
    monkeypatch.setattr(gpu_results, "_tokens", lambda call: (torch.zeros(0), 100))
    monkeypatch.setattr(gpu_results, "_pace", lambda *parts: pace(500e3))
    monkeypatch.setattr(gpu_results, "_matmul_flops", lambda call, precision: 1e12)
    monkeypatch.setattr(
        gpu_results.Call, "corpus", lambda self: SimpleNamespace(fingerprint="text")
    )
    small = {name: text for name, text in gpu_results.SMALL.items() if name != "train.precision"}
    monkeypatch.setattr(gpu_results, "SMALL", small)
    monkeypatch.setattr(sys, "argv", ["gpu_results", "train", "--rehearse", "--seconds", seconds])
    with contextlib.suppress(SystemExit):
        gpu_results.main()
    monkeypatch.undo()
    stored: dict[str, Any] = json.loads((out / "gpu_train.json").read_text())
    return stored


def runs_of(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "runs").iterdir()}


def test_a_training_that_diverges_in_fp16_is_set_aside_and_fp32_takes_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings()
    stored = train_there(trainings, tmp_path / "out", monkeypatch)
    (first, whole), (second, left) = trainings.tried
    assert (first, second) == ("fp16", "fp32")
    assert gpu_results.LEAST_SECONDS < left < whole <= gpu_results.TRAINING_SECONDS
    assert stored["finished"]
    assert stored["precision"] == stored["train"]["precision"] == "fp32"
    probed, failed = stored["tried"]
    assert probed["targets_per_second"] == 500e3
    assert failed["error"] == "TrainingError: training diverged at step 11 in fp16"
    # Beside the speed with warm-up and checkpoints, that of steps alone, and its share of the peak.
    assert stored["tokens_per_second"] == 400e3
    assert stored["pace"]["targets_per_second"] == 500e3
    model = override(get_preset("awd-lstm"), gpu_results.SMALL).model_config(100)
    share = 500e3 * training_flops_per_token(model) / 1e12
    assert stored["share_of_peak"] == pytest.approx(share)
    # A rehearsal has a run of its own, so that no call for a GPU goes on with it.
    assert runs_of(tmp_path) == {"rehearsal", "rehearsal-aside-1"}


def test_a_training_that_breaks_in_fp16_is_tried_in_fp32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(error=BROKEN)
    stored = train_there(trainings, tmp_path / "out", monkeypatch)
    assert [precision for precision, _ in trainings.tried] == ["fp16", "fp32"]
    assert stored["finished"]
    # Another folder or number is no matter of precision.
    other = Trainings(error=ValueError("no such thing"))
    stored = train_there(other, tmp_path / "other" / "out", monkeypatch)
    assert [precision for precision, _ in other.tried] == ["fp16"]
    assert stored["error"] == "ValueError: no such thing"


@pytest.mark.parametrize(
    ("recipe", "lacks_memory", "following"),
    [
        (("awd-lstm", "fp16"), False, ("awd-lstm", "fp32")),
        (("awd-lstm-1024", "fp16"), False, ("awd-lstm-1024", "fp32")),
        (("awd-lstm", "fp32"), False, None),
        (("awd-lstm", "fp16"), True, ("awd-lstm-1024", "fp16")),
        (("awd-lstm-1024", "fp16"), True, None),
    ],
)
def test_where_memory_lacks_the_smaller_model_follows_and_otherwise_fp32(
    recipe: tuple[str, str], lacks_memory: bool, following: tuple[str, str] | None
) -> None:
    assert gpu_results.next_recipe(*recipe, lacks_memory=lacks_memory) == following


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "another text"},
        {"preset": "small"},
        {"model": dataclasses.asdict(LSTMConfig(vocabulary_size=100))},
        {"train": dataclasses.asdict(get_preset("awd-lstm").train) | {"clip_norm": 9.0}},
        {"version": 0},
    ],
)
def test_a_run_of_another_text_preset_or_version_is_set_aside_and_never_packed(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validated(made_run(tmp_path / "runs" / "rehearsal", **changes), 10, loss=0.1)
    trainings = Trainings(always=False)
    stored = train_there(trainings, tmp_path / "out", monkeypatch)
    assert stored["finished"]
    assert len(trainings.tried) == 2
    assert runs_of(tmp_path) == {"rehearsal", "rehearsal-aside-1", "rehearsal-aside-2"}
    monkeypatch.setattr(
        gpu_results.Call, "corpus", lambda self: SimpleNamespace(fingerprint="text")
    )
    run = tmp_path / "runs" / "rehearsal"
    call = gpu_results.Call(rehearsal=True, seconds=1.0, out=tmp_path, run=run)
    assert gpu_results.best_run(call) == run
    for path in (run, tmp_path / "runs" / "rehearsal-aside-2"):
        shutil.rmtree(path)
    with pytest.raises(FileError, match=r"no run of this text and preset at .*rehearsal"):
        gpu_results.best_run(call)


def test_a_run_that_cannot_be_gone_on_with_is_set_aside_and_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged(Trainings):
        def resume_run(self, out: Path, **named: Any) -> TrainResult:
            raise FileError("no checkpoint is whole")

    validated(made_run(tmp_path / "runs" / "rehearsal"), 10, loss=3.0)
    trainings = Damaged()
    stored = train_there(trainings, tmp_path / "out", monkeypatch)
    assert stored["finished"]
    assert [precision for precision, _ in trainings.tried] == ["fp32"]
    assert stored["tried"][0]["error"] == "FileError: no checkpoint is whole"
    assert runs_of(tmp_path) == {"rehearsal", "rehearsal-aside-1"}


def test_a_run_without_a_checkpoint_is_begun_anew_with_the_steps_that_fit_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_run(tmp_path / "runs" / "rehearsal")
    trainings = Trainings()
    assert train_there(trainings, tmp_path / "out", monkeypatch)["finished"]
    assert len(trainings.tried) == 2


def test_a_second_call_after_a_finished_training_keeps_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        train_there(trainings, tmp_path / "out", monkeypatch) | {"seconds_since_start": None}
        for trainings in (Trainings(), Trainings())
    )
    assert len(first["tried"]) == 2
    assert first["tokens_per_second"] == 400e3
    assert second == first


def test_what_a_training_gave_so_far_is_stored_at_each_validation_and_late_its_weights_too(
    tmp_path: Path,
) -> None:
    run = made_run(tmp_path / "run")
    for name in packed_weights.DOCUMENTS:
        (run.path / name).write_text("{}")
    call = gpu_results.Call(rehearsal=True, seconds=1.0, out=tmp_path / "out", run=run.path)
    keep = gpu_results._keeper(call, [{"preset": "awd-lstm"}])

    def reported(step: int, **more: float) -> None:
        record = {"step": step, "seconds": 1.0, "epoch": 1.0, **more}
        run.append_metrics(record)
        keep(record)
        if more:  # the checkpoint comes after the record
            run.save(Weights(step=step, model={"weight": torch.zeros(3)}), best=True)

    reported(50, valid_nats_per_token=5.0)
    stored = json.loads((call.out / "gpu_train.json").read_text())
    assert not stored["finished"]
    assert [record["step"] for record in stored["history"]] == [50]
    assert stored["tried"] == [{"preset": "awd-lstm"}]
    reported(60)
    assert not (call.out / packed_weights.INDEX).exists()
    reported(80, valid_nats_per_token=4.0)
    reported(81)
    opened = packed_weights.unpack(call.out, tmp_path / "opened")
    assert opened.best().step == 80
    # A disk that is full ends no training.
    shutil.rmtree(call.out)
    call.out.write_text("no folder")
    reported(90, valid_nats_per_token=4.0)


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
    (tmp_path / "runs" / "rehearsal-aside-4").rename(tmp_path / "runs" / "rehearsal")
    stored = train_there(Trainings(), tmp_path / "out", monkeypatch)
    assert stored["finished"]


def test_what_is_packed_and_scored_is_the_run_with_the_lowest_validation_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        gpu_results.Call, "corpus", lambda self: SimpleNamespace(fingerprint="text")
    )
    call = gpu_results.Call(rehearsal=True, seconds=1.0, out=tmp_path, run=tmp_path / "awd-lstm")
    with pytest.raises(FileError, match="no run of this text and preset"):
        gpu_results.best_run(call)
    for name, losses in {
        "awd-lstm": [5.0], "awd-lstm-aside-1": [7.0, 4.0, 4.5], "awd-lstm-aside-2": [],
    }.items():  # fmt: skip
        run = made_run(tmp_path / name)
        run.append_metrics({"step": 1})
        for step, loss in enumerate(losses):
            validated(run, step, loss)
    assert gpu_results.best_run(call).name == "awd-lstm-aside-1"


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
    monkeypatch.setattr(gpu_results, "best_run", lambda call: call.run)
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


def test_a_call_does_parts_of_a_or_of_b(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Seconds are counted from a call's start, so A before B would take them from the training."""
    monkeypatch.setenv("OUT", str(tmp_path))
    for parts in (["A", "B"], ["tests", "train"]):
        monkeypatch.setattr(sys, "argv", ["gpu_results", *parts, "--rehearse"])
        with pytest.raises(SystemExit):
            gpu_results.main()
        assert "parts of A and of B need a call each" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "version"), [("Python", "3.10.14"), ("torch", "2.5.1+cu121")])
def test_a_machine_that_is_too_old_is_told_so_at_once(
    name: str, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["gpu_results", "A", "--rehearse"])
    if name == "Python":
        monkeypatch.setattr(platform, "python_version", lambda: version)
    else:
        monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(SystemExit, match=rf"needs {name} .* or newer, and this is {version[:4]}"):
        gpu_results.main()


def test_the_lowest_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    said = [project["requires-python"], *project["dependencies"]]
    for name, lowest in gpu_results.LOWEST.items():
        dotted = ".".join(map(str, lowest))
        assert {"Python": f">={dotted}", "torch": f"torch>={dotted}"}[name] in said


def test_time_that_runs_out_outside_of_a_training_fails_a_part_and_ends_no_call() -> None:
    with (
        pytest.raises(TimeoutError, match=r"not done after 0\.1 s"),
        gpu_results._stopped_after(0.1),
    ):
        time.sleep(20)
    with pytest.raises(KeyboardInterrupt), gpu_results._stopped_after(20):
        raise KeyboardInterrupt  # a person's


def test_the_recipe_keeps_a_folder_for_results_that_is_given() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("export COMPANION_DATA"))
    for given, out in (("/given", "/given"), ("", f"{Path.cwd()}/.gpu/out")):
        said = subprocess.run(
            ["bash", "-c", f"{line}\nprintf %s $OUT"], env={"OUT": given}, text=True,
            capture_output=True, check=True,
        )  # fmt: skip
        assert said.stdout == out


@pytest.mark.slow
def test_tests_on_a_gpu_have_no_tf32_and_leave_it_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "test_there.py").write_text(
        "import pytest, torch\n"
        "def allowed():\n"
        "    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32\n"
        "BEFORE = allowed()\n"
        "@pytest.mark.gpu\n"
        "def test_one(): assert BEFORE[1] and allowed() == (False, False)\n"
        "def test_other(): assert allowed() == BEFORE\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "--unchecked", "-o", "addopts=",
         "-W", "ignore::pytest.PytestWarning", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "2 passed" in done.stdout, done.stdout + done.stderr


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
    assert len(files) <= 4 + 7
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


def test_b_gives_back_no_more_than_seven_files(
    tmp_path: Path,
) -> None:
    """Three of weights, which are like trained ones, their index, and a report of each part."""
    numbers = 2**20
    scales = torch.randn(1024, 1).mul(0.5).exp() * 0.05  # the rows differ in scale
    weight = torch.distributions.Laplace(0.0, 1.0).sample((1024, 1024)) * scales
    run = made_run(tmp_path / "run")
    for name in packed_weights.DOCUMENTS:
        (run.path / name).write_text("{}")
    run.save(Weights(step=1, model={"weight": weight}), best=True)
    out = tmp_path / "out"
    out.mkdir()
    (out / "weights-7.bin").touch()  # of another packing
    *parts, index = packed_weights.pack(run.path, out)
    assert {path.name for path in out.iterdir()} == {path.name for path in (*parts, index)}
    bytes_each = sum(path.stat().st_size for path in parts) / numbers
    weights = training_flops_per_token(get_preset("awd-lstm").model_config(33_278)) // 6
    # Two per cent are left for weights that are less regular.
    files = math.ceil(1.02 * bytes_each * weights / packed_weights.MOST)
    assert packed_weights.MOST < 16e6
    assert files + 1 + len(gpu_results.CALLS["B"]) <= 7
    same = packed_weights.unpack(out, tmp_path / "opened").best().model["weight"]
    assert torch.equal(same, weight.bfloat16().float())


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
