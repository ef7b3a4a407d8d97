"""What only a GPU can show, on one that is rented for a quarter of an hour.

    python3 -m tools.gpu_results A           170 s: dtypes, speeds, CPU beside GPU, tests marked gpu
    python3 -m tools.gpu_results B           580 s: AWD-LSTM on WikiText-2, scored and packed
    python3 -m tools.gpu_results PART ...    some of A: dtypes speed parity tests
                                             or of B: train pack evaluate

Results go to the folder that OUT names, else to book/results. Each is written as soon as it is
there, the history of a training at each validation, and its best weights once more near its end:
that much stands if the machine is lost. B needs nothing of A.

Such a machine has no network, another torch, no make, no .git, and not all packages; what is
missing is said and left out. WikiText-2 is read from $COMPANION_DATA/wikitext-2, which has to be
brought. Packages that training needs and the machine lacks are brought too, by pip install
--target, and named in PYTHONPATH. With --rehearse all of this runs on a CPU, with a small model and
little text.

The weights come back in files below 16 MB, together below 64; tools.packed_weights opens them.
"""

# ruff: noqa: E402

from __future__ import annotations

import time

#: When this process began, or nearly: importing torch takes seconds of the time that is lent.
STARTED = time.perf_counter()

import argparse
import contextlib
import dataclasses
import itertools
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from companion.core.files import FileError, write_text
from companion.core.runtime import (
    Precision,
    environment,
    lstm_dtype,
    out_of_memory,
    peak_memory_bytes,
    synchronize,
)
from companion.core.seeds import seed_everything
from companion.evaluation.scoring import score, summarize
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.pipeline import load_run, recorded_preset, resume_run, train_run
from companion.runs.presets import Preset, get_preset, override
from companion.text.corpora import Corpus, load_corpus
from companion.text.tokenizers import encode_documents
from companion.training import budget
from companion.training.benchmark import training_flops_per_token
from companion.training.budget import Pace, measure_pace
from companion.training.checkpoints import RunFolder
from companion.training.config import TrainConfig
from companion.training.trainer import TrainingError, TrainResult, train
from tools import packed_weights
from tools.commits import ROOT, commit

TESTS = (
    "tests/models/test_classifier.py",
    "tests/training/test_trainer.py",
    "tests/evaluation/test_scoring.py",
    "tests/evaluation/test_dynamic.py",
    "tests/evaluation/test_continuous_cache.py",
)
#: Seconds of a call in all, and of B for training and what comes before it.
SECONDS = {"A": 170.0, "B": 580.0}
TRAINING_SECONDS = 470.0
#: Targets a second below which the next recipe is taken.
SLOW = 250_000
#: Fewest seconds for which a training is started again.
LEAST_SECONDS = 30.0
#: Seconds of a training for packing its best weights, and its share after which that is done.
PACKING_SECONDS = 8.0
LATE = 0.75
#: Lowest versions of what the machine has to have.
LOWEST = {"Python": (3, 11), "torch": (2, 6)}
#: Seconds of steps that a probe times, after those that warm up.
PROBE_SECONDS = 6.0
#: For a rehearsal: sizes that a CPU trains in seconds.
SMALL = {
    "model.embedding_size": "16", "model.hidden_size": "24", "model.last_size": "16",
    "train.num_streams": "8", "train.window_length": "20", "train.precision": "fp32",
    "train.log_every": "5",
}  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class Call:
    """One call of this program: where it runs, how long it may, and where results go."""

    rehearsal: bool
    seconds: float
    """Seconds after which the call has to have ended."""
    out: Path
    run: Path
    """The run's folder; not given back with the results."""
    started: float = dataclasses.field(default_factory=time.perf_counter)
    reports: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """What the parts have stored so far."""

    @property
    def device(self) -> torch.device:
        """The GPU; in a rehearsal the CPU."""
        return torch.device("cpu" if self.rehearsal else "cuda")

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.seconds - (time.perf_counter() - self.started)

    @property
    def training_seconds(self) -> float:
        """Seconds of B for training and what comes before it."""
        return min(TRAINING_SECONDS, self.seconds * TRAINING_SECONDS / SECONDS["B"])

    @property
    def training_left(self) -> float:
        """Seconds of these left."""
        return self.training_seconds - (time.perf_counter() - self.started)

    def preset(self, name: str, **changes: str) -> Preset:
        """A preset with some settings of its training changed; in a rehearsal, small."""
        changed = {f"train.{setting}": text for setting, text in changes.items()}
        return override(get_preset(name), changed | (SMALL if self.rehearsal else {}))

    def corpus(self) -> Corpus:
        """WikiText-2; in a rehearsal, text that comes with Python."""
        return load_corpus("python-docs" if self.rehearsal else "wikitext-2")

    def peak_bytes(self) -> int:
        """Most memory of the device so far."""
        return peak_memory_bytes() if self.rehearsal else torch.cuda.max_memory_allocated()

    def store(self, part: str, report: dict[str, Any]) -> None:
        """Write what a part found to OUT/gpu_PART.json."""
        self.reports[part] = report
        record = {
            "command": f"python3 -m tools.gpu_results {part}",
            "rehearsal": self.rehearsal,
            "measured": [{"seeds": [0], "commit": commit(), "environment": environment()}],
            **report,
            "seconds_since_start": round(time.perf_counter() - self.started, 1),
        }
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(self.out / f"gpu_{part}.json", json.dumps(record, indent=2) + "\n")


# --- part A --------------------------------------------------------------------------------------


def dtypes(call: Call) -> dict[str, Any]:
    """In which dtype an LSTM computes when bf16 and fp16 are asked for."""
    asked: tuple[Precision, ...] = () if call.rehearsal else ("bf16", "fp16")
    return {"lstm_dtype": {each: str(lstm_dtype(call.device, each)) for each in asked}}


def speed(call: Call) -> dict[str, Any]:
    """Targets a second of both presets, in fp16 and in fp32 with TF32, and the peak's share.

    Each is stored as soon as it is there; one that fails leaves the others.
    """
    ids, size = _tokens(call)
    found: dict[str, Any] = {"peak_flops": {}, "presets": {}}
    for precision in ("fp16", "fp32"):
        peak = found["peak_flops"][precision] = _matmul_flops(call, precision)
        for name in ("awd-lstm", "awd-lstm-1024"):
            try:
                report = _speed_of(call, name, precision, ids, size, peak)
            except Exception as error:
                report = {"error": _in_short(error)}
            found["presets"][f"{name} {precision}"] = report
            call.store("speed", found)
    return found


def _speed_of(
    call: Call, name: str, precision: str, ids: torch.Tensor, size: int, peak: float
) -> dict[str, Any]:
    preset = call.preset(name, precision=precision)
    pace = _pace(call, preset, ids, size, precision)
    flops = pace.targets_per_second * training_flops_per_token(preset.model_config(size))
    return {
        **dataclasses.asdict(pace), "share_of_peak": flops / peak, "peak_bytes": call.peak_bytes()
    }  # fmt: skip


def parity(call: Call) -> dict[str, Any]:
    """Losses of the same 50 steps on real text in true fp32, CPU beside GPU, and their difference.

    TF32 is off, for cuDNN too, which otherwise takes it for LSTMs.
    """
    ids, size = _tokens(call, most=50_000)
    width = 16 if call.rehearsal else 256
    shape = LSTMConfig(
        vocabulary_size=size, embedding_size=width // 2, hidden_size=width, num_layers=2,
        tie_weights=False,
    )  # fmt: skip
    settings = TrainConfig(steps=50, num_streams=16, window_length=32, log_every=1)
    losses = {}
    with _true_fp32():
        for device in ("cpu", call.device.type):
            seed_everything(0)
            history = train(LSTMLanguageModel(shape), ids, settings, device=device).history
            losses[device] = [record["train_nats_per_token"] for record in history]
    one, other = losses["cpu"], losses[call.device.type]
    worst = max(abs(a - b) for a, b in zip(one, other, strict=True))
    return {"train_nats_per_token": losses, "largest_difference": worst}


def tests(call: Call) -> dict[str, Any]:
    """The tests marked gpu, without what the machine may lack; their summary.

    A file that cannot be imported is said and stops none after it. Plugins of pytest that happen to
    be installed are not loaded: one whose own imports fail would end all tests before the first.
    """
    report: dict[str, Any] = {}
    marks: str = "gpu"
    files: tuple[str, ...] = TESTS
    if call.rehearsal:  # those for a GPU are only looked for, and others run
        report["for_a_gpu"] = _pytest(call, marks, files, "--collect-only")
        marks, files = "not gpu and not slow", TESTS[-1:]
    return report | _pytest(call, marks, files)


def _pytest(call: Call, marks: str, files: tuple[str, ...], *more: str) -> dict[str, Any]:
    """The tests of `files` with these marks: exit code and last line, and the end of the output."""
    command = [
        sys.executable, "-m", "pytest", "-q", "-m", marks, "--unchecked", "-W", "default",
        "--continue-on-collection-errors",
        "-o", "addopts=", "-p", "no:cacheprovider", *more, *files,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=max(1.0, call.left - 5),
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return {"exit_code": None, "summary": "out of time", "output": str(error.stdout)[-3000:]}
    lines = done.stdout.strip().splitlines() or ["no output"]
    return {"exit_code": done.returncode, "summary": lines[-1], "output": done.stdout[-3000:]}


# --- part B --------------------------------------------------------------------------------------


def choose_recipe(pace: Callable[[str, str], Pace]) -> tuple[str, str, list[dict[str, Any]]]:
    """The first preset and precision that work, and are not slow; and what was tried, in order.

    `pace(preset, precision)` measures. fp16 is taken unless it raises or a loss is no finite
    number; where the large model is slow, the one for which cuDNN has a faster kernel.
    """
    tried: list[dict[str, Any]] = []

    def measured(name: str, precision: str) -> tuple[float, bool]:
        """Targets a second, 0 where it does not work; and whether memory ran out."""
        recipe = {"preset": name, "precision": precision}
        try:
            found = pace(name, precision)
        except Exception as error:
            tried.append(recipe | {"error": _in_short(error)})
            return 0.0, _lacks_memory(error)
        tried.append(recipe | dataclasses.asdict(found))
        return found.targets_per_second if found.finite else 0.0, False

    name, precision = "awd-lstm", "fp16"
    speed, lacks_memory = measured(name, precision)
    while not speed and (following := next_recipe(name, precision, lacks_memory=lacks_memory)):
        name, precision = following
        speed, lacks_memory = measured(name, precision)
    if 0 < speed < SLOW and name == "awd-lstm":
        quicker, _ = measured("awd-lstm-1024", precision)
        if quicker > speed:
            name = "awd-lstm-1024"
    return name, precision, tried


def next_recipe(name: str, precision: str, *, lacks_memory: bool) -> tuple[str, str] | None:
    """The preset and precision to try where these fail; None if nothing is left."""
    if lacks_memory:  # of which fp32 needs more
        return ("awd-lstm-1024", precision) if name == "awd-lstm" else None
    return (name, "fp32") if precision == "fp16" else None


def training(call: Call) -> dict[str, Any]:
    """Train by the recipe that fits this device, for the time there is; into `call.run`.

    A run that a call left before its training ended is gone on with; one that a failure ended, or
    that this call would not have begun, is set aside.
    """
    before: dict[str, Any] = {}
    record = _own_record(call, call.run)
    if record is not None and not (call.run / "failed-step.json").exists():
        before = _stored(call, "train")
        name, precision = record["preset"], record["train"]["precision"]
        tried = before.get("tried", [])
    else:
        _set_aside(call.run)
        name, precision, tried = _measured_recipe(call)
    while True:
        call.store("train", {"finished": False, "tried": tried})
        resumed = call.run.exists()
        try:
            result = _train(call, name, precision, tried)
            break
        except Exception as error:
            tried.append({"preset": name, "precision": precision, "error": _in_short(error)})
            _say(tried[-1]["error"])
            _set_aside(call.run)
            call.store("train", {"finished": False, "tried": tried})
            if call.training_left < LEAST_SECONDS:
                raise
            if resumed and not isinstance(error, TrainingError):
                continue  # the run may be at fault, and not its recipe
            following = next_recipe(name, precision, lacks_memory=_lacks_memory(error))
            if following is None or not isinstance(error, RuntimeError):
                raise
            name, precision = following
    if not result.new_steps and before.get("finished"):
        return before
    report = _report(call, result) | {"tried": tried, "preset": name, "precision": precision}
    call.store("train", report)  # a failure of what follows leaves it
    flops = training_flops_per_token(
        call.preset(name).model_config(report["model"]["vocabulary_size"])
    )
    speed = report["pace"]["targets_per_second"]
    return report | {"share_of_peak": speed * flops / _matmul_flops(call, precision)}


def _measured_recipe(call: Call) -> tuple[str, str, list[dict[str, Any]]]:
    ids, size = _tokens(call)

    def pace(name: str, precision: str) -> Pace:
        return _pace(call, call.preset(name, precision=precision), ids, size, precision)

    return choose_recipe(pace)


def _report(call: Call, result: TrainResult) -> dict[str, Any]:
    """What there is to say of a training that ended."""
    record = RunFolder.open(call.run).record()
    return {
        "finished": result.stopped == "finished",
        "epochs": result.steps / record["budget"]["steps_per_epoch"],
        "steps": result.steps,
        "planned_steps": result.total_steps,
        "training_seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second or None,  # with warm-up and checkpoints
        "pace": record["budget"],  # of steps alone
        "best_nats_per_token": result.best_nats_per_token,
        "peak_bytes": call.peak_bytes(),
        "train": record["train"],
        "model": record["model"],
        "history": result.history,
    }


def _train(call: Call, name: str, precision: str, tried: list[dict[str, Any]]) -> TrainResult:
    """Train in `call.run` for the time left, or go on with the run that is there."""
    left = max(LEAST_SECONDS, call.training_left)
    _allow_tf32(precision)
    if not call.rehearsal:
        torch.cuda.reset_peak_memory_stats()
    how: dict[str, Any] = {
        "device": call.device.type, "on_record": _keeper(call, tried), "on_stage": _say
    }  # fmt: skip
    with _stopped_after(left + 20):
        if call.run.exists():
            return resume_run(call.run, corpus=call.corpus(), **how)
        return train_run(
            call.corpus(), call.preset(name, precision=precision), call.run,
            preset_name=name, seed=0, budget=left - PACKING_SECONDS, **how,
        )  # fmt: skip


def _keeper(call: Call, tried: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Called with each record of a training: stores the history at a validation; and after one late
    in the training, the best weights, which the checkpoint after it holds."""
    late = False

    def keep(record: dict[str, Any]) -> None:
        nonlocal late
        run = RunFolder(call.run)
        try:
            if "valid_nats_per_token" in record:
                _say_validation(record)
                late = record["step"] >= LATE * run.record()["train"]["steps"]
                history = run.metrics()
                call.store("train", {"finished": False, "tried": tried, "history": history})
            elif late:
                late = False
                packed_weights.pack(run.path, call.out)
        except Exception as error:  # the training is worth more
            _say(_in_short(error))

    return keep


def _own_record(call: Call, run: Path) -> dict[str, Any] | None:
    """run.json of a run with a checkpoint that this call could have begun: of its text, and of a
    preset as it is now; otherwise None."""
    fingerprint = call.corpus().fingerprint
    try:
        record = RunFolder(run).record()
        size, own = record["model"]["vocabulary_size"], recorded_preset(record)
        preset = call.preset(record["preset"], precision=own.train.precision)
        train = dataclasses.replace(own.train, steps=None, epochs=preset.train.epochs)
        fits = (
            any(RunFolder(run).checkpoints.glob("step-*"))
            and record["corpus_fingerprint"] == fingerprint
            and own.model_config(size) == preset.model_config(size)
            and train == preset.train
        )
    except (FileError, LookupError, TypeError, ValueError):  # none, damaged, of another version
        return None
    return record if fits else None


def _set_aside(run: Path) -> None:
    """Give a run, if there is one, another name, so that the next one starts anew."""
    if run.exists():
        names = (run.with_name(f"{run.name}-aside-{number}") for number in itertools.count(1))
        run.rename(next(name for name in names if not name.exists()))


def best_run(call: Call) -> Path:
    """Of the run and those set aside, if this call could have begun them, the one with the lowest
    validation loss."""
    paths = (call.run, *call.run.parent.glob(f"{call.run.name}-aside-*"))
    runs = [path for path in paths if _own_record(call, path) is not None]
    if not runs:
        raise FileError(f"no run of this text and preset at {call.run}; part train makes one")

    def lowest(path: Path) -> float:
        records = RunFolder(path).metrics()
        return min(
            (record.get("valid_nats_per_token", math.inf) for record in records), default=math.inf
        )

    return min(runs, key=lowest)


def pack(call: Call) -> dict[str, Any]:
    """The best weights in small files below OUT."""
    run = best_run(call)
    files = packed_weights.pack(run, call.out)
    return {"run": run.name, "bytes": {path.name: path.stat().st_size for path in files}}


def evaluate(call: Call) -> dict[str, Any]:
    """Perplexity of the best model in true fp32, read in 32 streams and as one text."""
    run = best_run(call)
    trained, corpus = load_run(run, device=call.device.type), call.corpus()
    found = {}
    for split in ("valid", "test"):
        ids = encode_documents(trained.tokenizer, corpus.documents(split)).ids
        for way, options in {"32 streams": {}, "one text": {"as_one": True}}.items():
            begun = time.perf_counter()
            with _true_fp32():
                result = summarize(score(trained.model, ids, **options)).to_dict()
            result["seconds"] = round(time.perf_counter() - begun, 2)
            found[f"{split}, {way}"] = result
    return {"run": run.name, "step": trained.step, "evaluations": found}


PARTS: dict[str, Callable[[Call], dict[str, Any]]] = {
    "dtypes": dtypes, "speed": speed, "parity": parity, "tests": tests,
    "train": training, "pack": pack, "evaluate": evaluate,
}  # fmt: skip
CALLS = {"A": ("dtypes", "speed", "parity", "tests"), "B": ("train", "pack", "evaluate")}


# --- helpers -------------------------------------------------------------------------------------


def _tokens(call: Call, most: int | None = None) -> tuple[torch.Tensor, int]:
    """Token ids of the training text by words, and their number of kinds."""
    from companion.text.tokenizers import build_tokenizer

    corpus = call.corpus()
    tokenizer = build_tokenizer("word", (document.text for document in corpus.train))
    return encode_documents(tokenizer, corpus.train).ids[:most], tokenizer.vocabulary_size


def _pace(call: Call, preset: Preset, ids: torch.Tensor, size: int, precision: str) -> Pace:
    """The speed of a preset's training, and whether its first steps give finite losses."""
    _allow_tf32(precision)
    if not call.rehearsal:  # `peak_bytes` of this one, not of those before it
        torch.cuda.reset_peak_memory_stats()
    seed_everything(0)
    model = LSTMLanguageModel(preset.model_config(size))
    seconds = 0.4 / budget.PROBE_SHARE if call.rehearsal else PROBE_SECONDS / budget.PROBE_SHARE
    return measure_pace(model, ids, preset.train, device=call.device.type, seconds=seconds)


def _matmul_flops(call: Call, precision: str) -> float:
    """Operations a second of large matrix products, the best of several: the device's peak."""
    _allow_tf32(precision)
    size = 256 if call.rehearsal else 8192
    dtype = torch.float32 if call.rehearsal or precision == "fp32" else torch.float16
    a, b = torch.randn(2, size, size, device=call.device, dtype=dtype).unbind()
    best = 0.0
    for _ in range(8):
        synchronize(call.device)
        started = time.perf_counter()
        a @ b
        synchronize(call.device)
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def _allow_tf32(precision: str) -> None:
    """TF32 for products of fp32, as far as the device has it."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "fp32"
    torch.backends.cudnn.allow_tf32 = True


@contextlib.contextmanager
def _true_fp32() -> Iterator[None]:
    """No TF32 in matrix products, nor in cuDNN, inside the `with` block."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = cuda.allow_tf32, cudnn.allow_tf32
    cuda.allow_tf32, cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        cuda.allow_tf32, cudnn.allow_tf32 = before


@contextlib.contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Send this process a Ctrl-C after `seconds`, at which a training saves and ends; what is no
    training ends with a TimeoutError."""
    over = threading.Event()

    def stop() -> None:
        over.set()
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(max(0.1, seconds), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if not over.is_set():  # a person's
            raise
        raise TimeoutError(f"not done after {seconds:g} s") from None
    finally:
        timer.cancel()


def _lacks_memory(error: Exception) -> bool:
    """Whether memory ran out, also where a TrainingError says so."""
    return out_of_memory(error.__cause__ or error)


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _stored(call: Call, part: str) -> dict[str, Any]:
    """What an earlier call of this kind stored of a part; empty if there was none."""
    path = call.out / f"gpu_{part}.json"
    stored: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return stored if stored.get("rehearsal") == call.rehearsal else {}


def _check_versions() -> None:
    """Say what is too old before anything is done."""
    for name, there in {"Python": platform.python_version(), "torch": torch.__version__}.items():
        if tuple(map(int, there.split(".")[:2])) < LOWEST[name]:
            lowest = ".".join(map(str, LOWEST[name]))
            raise SystemExit(f"this needs {name} {lowest} or newer, and this is {there}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say_validation(record: dict[str, Any]) -> None:
    if "valid_nats_per_token" in record:
        perplexity = math.exp(record["valid_nats_per_token"])
        _say(f"{record['seconds']:.0f} s, epoch {record['epoch']:.1f}: {perplexity:.1f}")


def _in_words(part: str, report: dict[str, Any]) -> str:
    """A part's report in lines that the end of a long output still shows."""
    kept = {
        name: value
        for name, value in report.items()
        if name not in ("train_nats_per_token", "history", "train", "model", "output")
    }
    return f"{part}: {json.dumps(kept)}"


def main(started: float | None = None) -> None:
    """Do the parts named on the command line.

    started: what `time.perf_counter` said when the call began; now, if not given.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="+", choices=[*CALLS, *PARTS])
    parser.add_argument("--seconds", type=float, help="seconds in all; of A 170, of B 580")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with a small model")
    options = parser.parse_args()
    _check_versions()
    if not options.rehearse and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device, and there is none here; --rehearse needs none")
    names = [name for each in options.parts for name in CALLS.get(each, (each,))]
    if all(set(names) & set(parts) for parts in CALLS.values()):
        parser.error("parts of A and of B need a call each, since each has seconds of its own")
    out = Path(os.environ.get("OUT") or ROOT / "book" / "results")
    seconds = options.seconds or sum(SECONDS.get(each, 170.0) for each in options.parts)
    parent = Path(tempfile.gettempdir()) if os.environ.get("OUT") else ROOT
    run = parent / "runs" / ("rehearsal" if options.rehearse else "awd-lstm")
    call = Call(
        rehearsal=options.rehearse, seconds=seconds, out=out, run=run,
        started=time.perf_counter() if started is None else started,
    )  # fmt: skip
    said, failed = [], []
    for part in names:
        try:
            report = PARTS[part](call)
        except Exception as error:  # the parts after it may still be of use
            failed.append(part)
            stored = call.reports.get(part, {})
            report = stored | {"error": _in_short(error)}
        call.store(part, report)
        said.append(_in_words(part, report))
        _say(said[-1])
    print("\n".join(said))
    print(f"{call.seconds - call.left:.0f} s; results in {out}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(STARTED)
