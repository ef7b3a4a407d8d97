"""Compressed runs from the command line: smaller files that the other commands take."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import companion

from companion.compression import magnitude_masks, pruned, quantized, truncated
from companion.core.files import FileError
from companion.models.lstm import LSTMConfig
from companion.runs import compress
from companion.runs.pipeline import load_run

SMALL = [
    "--preset", "char-small", "--device", "cpu", "--set", "model.hidden_size=32",
    "--set", "train.num_streams=4", "--set", "train.steps=30",
]  # fmt: skip


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "rhyme.txt"
    path.write_text("".join(f"{i % 7} green bottles standing on the wall\n" for i in range(300)))
    return path


@pytest.fixture(scope="module")
def run(text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "a"
    done = companion("train", "--corpus", str(text_file), "--out", str(path), *SMALL)
    assert done.returncode == 0, done.stderr
    return path


def compressed(run: Path, out: Path, method: str, *settings: str) -> dict:
    options = [word for each in settings for word in ("--set", each)]
    done = companion(
        "compress", str(run), "--out", str(out), "--method", method, "--json", *options
    )
    assert done.returncode == 0, done.stderr
    report: dict = json.loads(done.stdout)
    assert f"companion compare {run} {out}" in done.stderr
    return report


def same_weights(out: Path, wanted: torch.nn.Module) -> bool:
    made = load_run(out, device="cpu").model
    pairs = zip(made.parameters(), wanted.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.slow
def test_a_quantized_run_is_small_and_evaluates_generates_exports_and_compares(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int8"
    report = compressed(run, out, "quantize")
    file = next(out.glob("checkpoints/*/model.safetensors"))
    assert report["bytes"] == file.stat().st_size
    # A quarter, and biases, scales and the file's names besides, which weigh at this size.
    assert report["bytes"] < 0.45 * report["bytes_before"]
    assert report["bits"] == 8
    whole = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert whole < sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) / 3
    assert same_weights(out, quantized(load_run(run, device="cpu").model, 8))
    done = companion("evaluate", str(out), "--json")
    figures = json.loads(done.stdout)
    assert figures["compressed"] == f"quantize: bits 8, group_size None; from {run.resolve()}"
    before = json.loads(companion("evaluate", str(run), "--json").stdout)
    assert before["compressed"] is None
    assert figures["nats_per_token"] == pytest.approx(before["nats_per_token"], abs=0.02)
    assert figures["step"] == before["step"]
    done = companion("generate", str(out), "--tokens", "5", "--json")
    assert json.loads(done.stdout)["text"]
    assert companion("export", str(out), "--out", str(tmp_path / "a.pt2")).returncode == 0
    assert companion("compare", str(run), str(out), "--split", "all").returncode == 0


@pytest.mark.slow
def test_each_other_method_stores_what_its_function_makes(run: Path, tmp_path: Path) -> None:
    model = load_run(run, device="cpu").model
    compressed(run, tmp_path / "rank", "low-rank", "rank=4")
    assert same_weights(tmp_path / "rank", truncated(model, 4))
    compressed(run, tmp_path / "prune", "prune", "share=0.8", "repair_steps=0")
    assert same_weights(tmp_path / "prune", pruned(model, magnitude_masks(model, 0.8)))
    compressed(run, tmp_path / "mended", "prune", "share=0.8", "repair_steps=5")
    mended = load_run(tmp_path / "mended", device="cpu").model
    zeros = [int((weights == 0).sum()) for weights in mended.parameters() if weights.ndim == 2]
    count = sum(weights.numel() for weights in mended.parameters() if weights.ndim == 2)
    assert sum(zeros) == round(0.8 * count)
    assert not same_weights(tmp_path / "prune", mended)
    report = compressed(run, tmp_path / "student", "distill", "hidden_size=8", "steps=3")
    student = load_run(tmp_path / "student", device="cpu").model
    assert report["parameters"] == student.num_parameters < report["parameters_before"] / 2
    assert student.config.hidden_size == 8
    record = load_run(tmp_path / "student", device="cpu").record
    assert record["train"]["steps"] == load_run(tmp_path / "student", device="cpu").step == 3


@pytest.mark.slow
def test_what_cannot_be_is_refused_in_one_sentence_and_nothing_is_written(
    run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int8"
    compressed(run, out, "quantize")
    kept = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}

    def refused(words: str, *arguments: str) -> None:
        done = companion(*arguments)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr

    new = str(tmp_path / "new")
    refused("already exists", "compress", str(run), "--out", str(out), "--method", "quantize")
    refused("is compressed already (quantize: bits 8", "compress", str(out), "--out", new,
            "--method", "prune")  # fmt: skip
    refused("is a compressed run (quantize: bits 8", "train", "--out", str(out), "--resume")
    for words, method, setting in (
        ("method must be one of quantize, prune, low-rank, distill", "zip", "bits=8"),
        ("unknown setting 'rank'", "quantize", "rank=8"),
        ("bits must be in [2, 8]", "quantize", "bits=1"),
        ("bits must be a whole number", "quantize", "bits=int8"),
        ("share must be in [0, 1)", "prune", "share=1"),
        ("share must be > 0", "prune", "share=0"),
        ("leaves no weight", "prune", "share=0.99999999"),
        ("learning_rate must be > 0", "prune", "learning_rate=-1"),
        ("temperature must be > 0 and finite", "distill", "temperature=inf"),
        ("scope must be one of global, matrix", "prune", "scope=row"),
        ("repair_steps must be >= 0", "prune", "repair_steps=-1"),
        ("rank must be in [1, ", "low-rank", "rank=99"),
        ("the student must be smaller", "distill", "hidden_size=32"),
        ("temperature must be > 0", "distill", "temperature=0"),
    ):
        refused(words, "compress", str(run), "--out", new, "--method", method, "--set", setting)
    assert not Path(new).exists()
    assert kept == {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_moved_text_can_be_named_and_another_is_refused(
    run: Path, text_file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "moved"
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text())
    record["corpus"] = str(tmp_path / "gone.txt")
    record["train"]["precision"] = "bf16"  # as if it had been trained on a GPU
    (copy / "run.json").write_text(json.dumps(record))
    settings = ["--method", "prune", "--set", "repair_steps=1"]
    done = companion("compress", str(copy), "--out", str(tmp_path / "b"), *settings)
    assert done.returncode == 1
    assert "gone.txt" in done.stderr
    named = ["--corpus", str(text_file)]
    done = companion("compress", str(copy), "--out", str(tmp_path / "b"), *settings, *named)
    assert done.returncode == 0, done.stderr
    other = tmp_path / "other.txt"
    other.write_text("another text\n" * 400)
    done = companion(
        "compress", str(copy), "--out", str(tmp_path / "c"), *settings, "--corpus", str(other)
    )
    assert done.returncode == 1
    assert "it is another text" in done.stderr


@pytest.mark.slow
def test_damaged_weights_of_a_compressed_run_are_noticed(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "int4"
    compressed(run, out, "quantize", "bits=4")
    record = json.loads((out / "run.json").read_text())
    small = {**record, "model": {**record["model"], "hidden_size": 16}}
    (out / "run.json").write_text(json.dumps(small))
    with pytest.raises(FileError, match=r"do not fit the model in its run\.json"):
        load_run(out, device="cpu")
    (out / "run.json").write_text(json.dumps({**record, "compressed": {}}))
    done = companion("compress", str(out), "--out", str(tmp_path / "b"), "--method", "prune")
    assert done.returncode == 1
    assert "does not say how it was compressed" in done.stderr
    assert "Traceback" not in done.stderr
    (out / "run.json").write_text(json.dumps(record))
    file = next(out.glob("checkpoints/*/model.safetensors"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FileError, match="is whole, so compress the run again"):
        load_run(out, device="cpu")


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_named_before_the_work(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise FileError(f"cannot write in {folder}")

    monkeypatch.setattr(compress, "check_writable", refuse)
    monkeypatch.setattr(compress, "_compressed", lambda *_, **__: pytest.fail("worked first"))
    with pytest.raises(FileError, match="cannot write"):
        compress.compress_run(run, tmp_path / "no" / "such", compress.Quantize())


@pytest.mark.slow
def test_every_setting_reaches_what_it_is_about(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_run(run, device="cpu").model

    def made(name: str, settings: compress.Settings) -> Path:
        compress.compress_run(run, tmp_path / name, settings, device="cpu", seed=5)
        return tmp_path / name

    out = made("groups", compress.Quantize(bits=3, group_size=8))
    assert same_weights(out, quantized(model, 3, group_size=8))
    out = made("matrix", compress.Prune(share=0.8, scope="matrix", repair_steps=0))
    assert same_weights(out, pruned(model, magnitude_masks(model, 0.8, "matrix")))
    seen: dict = {}

    def watched(name: str, *values: object, **named: object) -> None:
        training = values[-1]
        seen[name] = (training.steps, training.learning_rate, torch.initial_seed(), named,
                      torch.get_num_threads())  # fmt: skip

    monkeypatch.setattr(compress, "repair", lambda *v, **n: watched("repair", *v, **n))
    monkeypatch.setattr(compress, "distill", lambda *v, **n: watched("distill", *v, **n) or 3)
    made("a", compress.Prune(repair_steps=7, learning_rate=0.25))
    made("b", compress.Distill(hidden_size=8, steps=3, temperature=2.0, weight=0.25))
    rate = load_run(run, device="cpu").record["train"]["learning_rate"]
    same = {"device": "cpu", "progress": False}
    assert seen["repair"] == (7, 0.25, 5, same, 1)
    assert seen["distill"] == (3, rate, 5, {**same, "temperature": 2.0, "weight": 0.25}, 1)


def test_a_students_sizes_shrink_in_proportion() -> None:
    plain = LSTMConfig(vocabulary_size=50, embedding_size=64, hidden_size=128)
    assert compress._student(plain, 32).embedding_size == 16
    tied = LSTMConfig(vocabulary_size=50, embedding_size=128, hidden_size=128, tie_weights=True)
    assert compress._student(tied, 32).embedding_size == 32
    awd = LSTMConfig(
        vocabulary_size=50, embedding_size=64, hidden_size=128, last_size=64, num_layers=2,
        tie_weights=True,
    )  # fmt: skip
    made = compress._student(awd, 32)
    assert (made.embedding_size, made.hidden_size, made.last_size) == (16, 32, 16)
