"""What only a GPU can show, in calls of less than nine minutes each.

    make gpu-results PART=tests      the tests marked gpu
    make gpu-results PART=parity     losses of 50 steps in fp32, CPU beside GPU
    make gpu-results PART=speed      tokens a second beside the plain loop, and AWD-LSTM's
    make gpu-results PART=train      AWD-LSTM on WikiText-2; the same call again goes on with it
    make gpu-results PART=evaluate   its perplexity: plain, then adapted at test time

Each part writes book/results/gpu_PART.json. `train` keeps its run in runs/awd-lstm and says whether
it has finished. WikiText-2 is read from COMPANION_DATA, or fetched.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from typing import Any

import torch

from companion.core.runtime import environment
from companion.core.seeds import seed_everything
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.presets import get_preset
from companion.training import benchmark
from companion.training.config import TrainConfig
from companion.training.trainer import train
from tools.chapters import ROOT
from tools.results import commit, store

RUN = ROOT / "runs" / "awd-lstm"
MINUTES = 8.0


def parity() -> dict[str, Any]:
    """Training losses of the same 50 steps on both devices, and their largest difference."""
    seed_everything(0)
    ids = torch.randint(1000, (200_001,))
    losses = {}
    for device in ("cpu", "cuda"):
        seed_everything(0)
        model = LSTMLanguageModel(
            LSTMConfig(
                vocabulary_size=1000,
                embedding_size=128,
                hidden_size=256,
                num_layers=2,
            )
        )
        settings = TrainConfig(steps=50, num_streams=32, window_length=64, log_every=1)
        history = train(model, ids, settings, device=device).history
        losses[device] = [record["train_nats_per_token"] for record in history]
    pairs = zip(losses["cpu"], losses["cuda"], strict=True)
    return {
        "train_nats_per_token": losses,
        "largest_difference": max(abs(one - two) for one, two in pairs),
    }


def speed() -> dict[str, Any]:
    """Speeds beside the textbook loop, in fp32; and of the preset awd-lstm as it trains."""
    cases = [benchmark.measure(case, device="cuda", seconds=5.0) for case in benchmark.MODELS]
    preset = get_preset("awd-lstm")
    ids = torch.randint(33_278, (2_000_000,))
    awd = {}
    for precision in ("fp32", "bf16"):
        seed_everything(0)
        model = LSTMLanguageModel(preset.model_config(33_278))
        settings = dataclasses.replace(
            preset.train, steps=200, epochs=None, precision=precision, log_every=1000
        )
        awd[precision] = train(model, ids, settings, device="cuda").tokens_per_second
    return {
        "models": [case.to_dict() for case in cases],
        "awd_lstm_tokens_per_second": awd,
        "awd_lstm_peak_bytes": torch.cuda.max_memory_allocated(),
    }


def train_awd() -> dict[str, Any]:
    """Some minutes of training by the command that a user would type, stopped as by Ctrl-C."""
    command = "companion train --corpus wikitext-2 --preset awd-lstm --seed 0 --device cuda"
    arguments = command.split()[1:] if not RUN.exists() else ["train", "--resume"]
    process = subprocess.Popen(
        [sys.executable, "-m", "companion", *arguments, "--out", str(RUN)], cwd=ROOT
    )
    try:
        code = process.wait(timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=30)
    if code not in (0, 130):
        raise SystemExit(f"training ended with exit code {code}")
    print("finished" if code == 0 else "not finished: run PART=train again", file=sys.stderr)
    records = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {
        "finished": code == 0,
        "companion_command": command,
        "training_seconds": records[-1]["seconds"],
        "validations": [record for record in records if "valid_nats_per_token" in record],
    }


def evaluate_awd() -> dict[str, Any]:
    """Perplexities of the run's best model, each by `companion evaluate`."""
    reports = {}
    for name, options in {
        "valid": ["--split", "valid"],
        "test": ["--split", "test"],
        "test, continuous cache": ["--split", "test", "--cache"],
        "test, dynamic evaluation": ["--split", "test", "--dynamic"],
    }.items():
        done = subprocess.run(
            [sys.executable, "-m", "companion", "evaluate", str(RUN), *options, "--json"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        reports[name] = json.loads(done.stdout)
    return {"evaluations": reports}


def gpu_tests() -> dict[str, Any]:
    """The tests that need a GPU: their summary."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu"],
        cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    print(done.stdout)
    return {"exit_code": done.returncode, "summary": done.stdout.splitlines()[-1]}


PARTS = {
    "tests": gpu_tests,
    "parity": parity,
    "speed": speed,
    "train": train_awd,
    "evaluate": evaluate_awd,
}


def main() -> None:
    """Do the part named on the command line."""
    if len(sys.argv) != 2 or sys.argv[1] not in PARTS:
        raise SystemExit(f"give one PART: {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device, and there is none here")
    part, started = sys.argv[1], time.perf_counter()
    report = {
        "command": f"make gpu-results PART={part}",
        "measured": [{"seeds": [0], "commit": commit(), "environment": environment()}],
        **PARTS[part](),
    }
    report["seconds"] = round(time.perf_counter() - started, 1)
    print(store(f"gpu_{part}", report).relative_to(ROOT))


if __name__ == "__main__":
    main()
