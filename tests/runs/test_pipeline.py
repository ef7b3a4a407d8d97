"""From a text file to a trained run, and back."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from annotation_checker import unchecked
from command_line import companion

from companion.core.files import FileError
from companion.core.runtime import cpu_threads
from companion.runs import pipeline
from companion.runs.presets import get_preset, override
from companion.runs.report import assess
from companion.text.corpora import load_corpus
from companion.text.documents import CorpusError
from companion.training import checkpoints
from companion.training.trainer import TrainingError


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "rhyme.txt"
    path.write_text("".join(f"{i % 7} green bottles standing on the wall\n" for i in range(400)))
    return path


def tiny(**settings: str) -> dict[str, str]:
    return {"model.hidden_size": "16", "train.steps": "60", "train.num_streams": "8", **settings}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of sixty steps, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "rhyme.txt").write_text(
        "".join(f"{i % 7} green bottles standing on the wall\n" for i in range(300))
    )
    preset = override(get_preset("char-small"), tiny())
    pipeline.train_run(load_corpus(folder / "rhyme.txt"), preset, folder / "run", device="cpu")
    return folder / "run"


def test_a_trained_run_comes_back_with_the_loss_it_was_saved_with(
    text_file: Path, tmp_path: Path
) -> None:
    preset = override(get_preset("char-small"), tiny())
    corpus = load_corpus(text_file)
    result = pipeline.train_run(corpus, preset, tmp_path / "run", device="cpu")
    trained = pipeline.load_run(tmp_path / "run", device="cpu")
    scored = assess(trained, corpus, "valid")
    evaluation = scored.evaluation
    assert result.best_nats_per_token == pytest.approx(evaluation.nats_per_token, rel=1e-6)
    # Every character of the split is a target: the document's start mark comes before the first.
    assert evaluation.tokens == scored.scores.nats.numel() == len(corpus.text("valid"))
    assert evaluation.bytes == len(corpus.text("valid").encode())


@pytest.mark.parametrize("preset", ["small", "char-small", "wikitext-cpu"])
def test_the_same_seed_gives_the_same_run(preset: str, text_file: Path, tmp_path: Path) -> None:
    recipe = override(get_preset(preset), {"train.steps": "5", "train.num_streams": "4"})
    corpus = load_corpus(text_file)
    losses = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        result = pipeline.train_run(corpus, recipe, tmp_path / name, seed=seed, device="cpu")
        losses.append(result.history[-1]["valid_nats_per_token"])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_the_run_keeps_what_it_learnt_from_and_each_stage_is_said(
    text_file: Path, tmp_path: Path
) -> None:
    preset, corpus = override(get_preset("char-small"), tiny()), load_corpus(text_file)
    said: list[str] = []
    pipeline.train_run(corpus, preset, tmp_path / "run", device="cpu", on_stage=said.append)
    assert json.loads((tmp_path / "run" / "corpus.json").read_text()) == json.loads(
        json.dumps(corpus.as_dict())
    )
    size = len(corpus.text("train"))
    assert said[0] == f"Fitting the character tokenizer on {size:,} characters ..."
    assert said[1].startswith("Encoding the training text by ")


def test_a_validation_loss_above_that_of_a_guess_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    # No character of the validation text stands in the training text: each is unknown.
    path.write_text("ab" * 4000 + "cd" * 1000)
    preset = override(get_preset("char-small"), tiny())
    with pytest.warns(
        UserWarning, match=r"above ln V = 1\.3863, that of a guess among all 4 tokens"
    ):
        pipeline.train_run(load_corpus(path), preset, tmp_path / "run", device="cpu")


@pytest.mark.parametrize("preset", ["small", "char-small"])
def test_a_text_without_a_space_or_a_line_trains(preset: str, tmp_path: Path) -> None:
    draw = random.Random(0)
    path = tmp_path / "a.txt"
    path.write_text("".join(chr(0x4E00 + draw.randrange(300)) for _ in range(20_000)))
    recipe = override(get_preset(preset), {"train.steps": "2", "train.num_streams": "4"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # after two steps the loss may be anything
        result = pipeline.train_run(load_corpus(path), recipe, tmp_path / "run", device="cpu")
    assert result.steps == 2


def test_a_text_too_short_for_the_streams_is_refused_before_a_folder_is_made(
    tmp_path: Path,
) -> None:
    path = tmp_path / "short.txt"
    path.write_text("one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n")
    preset = override(get_preset("char-small"), {"train.num_streams": "500"})
    with pytest.raises(ValueError, match="too few for 500 streams"):
        pipeline.train_run(load_corpus(path), preset, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_another_text_is_not_trained_on_and_both_are_named(text_file: Path, tmp_path: Path) -> None:
    preset = override(get_preset("char-small"), tiny())
    corpus = load_corpus(text_file)
    pipeline.train_run(corpus, preset, tmp_path / "run", device="cpu")
    text_file.write_text(text_file.read_text() + "and one more line\n")
    other = load_corpus(text_file)
    with pytest.raises(FileError, match="it is another text, a file of it has") as raised:
        pipeline.resume_run(tmp_path / "run", device="cpu")
    for words in (
        f"run {tmp_path / 'run'} was trained on {text_file}", corpus.fingerprint[:16],
        other.fingerprint[:16], "--corpus",
    ):  # fmt: skip
        assert words in str(raised.value)


def test_a_run_goes_on_from_another_folder_and_with_its_text_elsewhere(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = override(get_preset("char-small"), tiny())
    monkeypatch.chdir(text_file.parent)
    pipeline.train_run(load_corpus(text_file.name), preset, tmp_path / "run", device="cpu")
    monkeypatch.chdir("/")
    assert pipeline.resume_run(tmp_path / "run", device="cpu").steps == 60

    (tmp_path / "elsewhere").mkdir()
    moved = text_file.rename(tmp_path / "elsewhere" / text_file.name)
    with pytest.raises(CorpusError, match=r"run .*/run was trained on .*rhyme.txt, .* --corpus"):
        pipeline.resume_run(tmp_path / "run", device="cpu")
    result = pipeline.resume_run(tmp_path / "run", corpus=load_corpus(moved), device="cpu")
    assert result.steps == 60


def test_a_run_records_its_processes_and_the_threads_it_was_trained_with(
    text_file: Path, tmp_path: Path
) -> None:
    preset = override(get_preset("char-small"), tiny())
    with cpu_threads(2):
        pipeline.train_run(load_corpus(text_file), preset, tmp_path / "run", device="cpu")
        assert torch.get_num_threads() == 2
        pipeline.resume_run(tmp_path / "run", device="cpu")
        assert torch.get_num_threads() == 2
        broken = override(preset, {"train.learning_rate": "1e30"})
        with pytest.raises(TrainingError):
            pipeline.train_run(load_corpus(text_file), broken, tmp_path / "broken", device="cpu")
        assert torch.get_num_threads() == 2
    record = pipeline.load_run(tmp_path / "run", device="cpu").record
    assert record["processes"] == 1
    assert record["environment"]["torch_threads"] == preset.threads == 1


def test_processes_that_accelerate_launch_does_not_start_are_missed_aloud(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `accelerate launch --cpu --num_processes 2` sets; --num_processes 1 sets no address.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    preset = override(get_preset("char-small"), tiny(**{"train.steps": "1"}))
    pipeline.train_run(load_corpus(text_file), preset, tmp_path / "one", device="cpu")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.warns(UserWarning, match="starts one process, .* torchrun --nproc_per_node"):
        pipeline.train_run(load_corpus(text_file), preset, tmp_path / "two", device="cpu")
    with pytest.warns(UserWarning, match="starts one process"):
        pipeline.resume_run(tmp_path / "two", device="cpu")


HOLDER = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Another process holds the folder's lock, until it is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder / ".lock")], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    try:
        yield
    finally:
        holder.kill()
        holder.communicate()


def test_a_second_writer_is_refused_and_a_killed_one_is_in_nobody_s_way(
    text_file: Path, tmp_path: Path
) -> None:
    preset, corpus = override(get_preset("char-small"), tiny()), load_corpus(text_file)
    run = tmp_path / "run"
    pipeline.train_run(corpus, preset, run, device="cpu")
    (tmp_path / "new").mkdir()
    before = contents(run)
    with held(run), held(tmp_path / "new"):
        for write in (
            lambda: pipeline.train_run(corpus, preset, run, overwrite=True, device="cpu"),
            lambda: pipeline.resume_run(run, device="cpu"),
            lambda: pipeline.train_run(corpus, preset, tmp_path / "new", device="cpu"),
        ):
            with pytest.raises(FileError, match=r"another process is writing to .* wait"):
                write()
        assert contents(run) == before
        assert pipeline.load_run(run, device="cpu").step == 60  # to read needs no lock
    assert pipeline.resume_run(run, device="cpu").steps == 60
    pipeline.train_run(corpus, preset, run, overwrite=True, device="cpu")
    pipeline.train_run(corpus, preset, tmp_path / "new", device="cpu")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("cut_off_at", ["save_tokenizer", "RunFolder.create"])
def test_a_folder_whose_making_was_cut_off_is_made_again(
    cut_off_at: str, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a kill, which cleans nothing up: before the tokenizer is there, and after."""
    preset, corpus = override(get_preset("char-small"), tiny()), load_corpus(text_file)

    def die(*arguments: object) -> None:
        raise SystemExit

    where = pipeline if cut_off_at == "save_tokenizer" else checkpoints
    monkeypatch.setattr(where, "save_tokenizer" if where is pipeline else "write_json", die)
    with pytest.raises(SystemExit):
        pipeline.train_run(corpus, preset, tmp_path / "run", device="cpu")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "run.json").exists()
    assert pipeline.train_run(corpus, preset, tmp_path / "run", device="cpu").steps == 60


def test_a_folder_with_a_tokenizer_of_somebody_s_is_not_taken_for_our_own(
    text_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tokenizer.json").write_text("theirs")
    preset, corpus = override(get_preset("char-small"), tiny()), load_corpus(text_file)
    for overwrite in (False, True):
        with pytest.raises(FileError, match="exists"):
            pipeline.train_run(corpus, preset, tmp_path / "run", overwrite=overwrite, device="cpu")
    assert contents(tmp_path / "run") == {"tokenizer.json": b"theirs"}


def test_what_is_no_corpus_preset_or_seed_is_refused_before_a_folder_is_made(
    text_file: Path, tmp_path: Path
) -> None:
    preset, corpus = override(get_preset("char-small"), tiny()), load_corpus(text_file)
    wrong: list[tuple[Any, Any, Any, str]] = [
        (text_file, preset, 0, "corpus must be a Corpus, got .*; load_corpus.* reads one"),
        (corpus, "small", 0, "preset must be a Preset, got 'small'; presets.get_preset.* gives"),
        (corpus, preset, "0", "seed must be a whole number, got '0'"),
    ]
    for text, recipe, seed, words in wrong:
        with unchecked(), pytest.raises(TypeError, match=words):
            pipeline.train_run(text, recipe, tmp_path / "run", seed=seed, device="cpu")
    assert not (tmp_path / "run").exists()


def test_weights_of_another_model_are_refused(text_file: Path, tmp_path: Path) -> None:
    preset = override(get_preset("char-small"), tiny())
    pipeline.train_run(load_corpus(text_file), preset, tmp_path / "run", device="cpu")
    record = tmp_path / "run" / "run.json"
    record.write_text(record.read_text().replace('"hidden_size": 16', '"hidden_size": 32'))
    with pytest.raises(FileError, match="do not fit the model"):
        pipeline.load_run(tmp_path / "run", device="cpu")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *((name, None) for name in ("corpus", "corpus_fingerprint", "seed", "model", "train")),
        ("corpus", 3), ("corpus_fingerprint", 3), ("seed", "0"), ("threads", "2"),
        ("tokenizer", "x"), ("model", []), ("train", "x"),
    ],
)  # fmt: skip
def test_a_damaged_record_is_one_error_that_names_the_field(
    name: str, wrong: object, run_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(run_folder, path)
    record = json.loads((path / "run.json").read_text())
    del record[name]
    (path / "run.json").write_text(json.dumps(record if wrong is None else {**record, name: wrong}))
    shown = "missing" if wrong is None else re.escape(repr(wrong))
    words = rf"run\.json is damaged: {name} is {shown}; train again"
    for use in (pipeline.load_run, pipeline.resume_run):
        with pytest.raises(FileError, match=words):
            use(path, device="cpu")
    done = companion("train", "--out", str(path), "--resume", "--set", "train.steps=60")
    assert re.search(words, done.stderr)
    done = companion("evaluate", str(path))
    assert re.search(words, done.stderr)


def test_a_run_is_not_resumed_with_weights_that_do_not_fit(
    run_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    record = tmp_path / "run" / "run.json"
    record.write_text(record.read_text().replace('"hidden_size": 16', '"hidden_size": 32'))
    with pytest.raises(FileError, match="do not fit the model"):
        pipeline.resume_run(tmp_path / "run", device="cpu")


def test_generated_text_is_made_of_what_was_read(text_file: Path, tmp_path: Path) -> None:
    from companion.generation.decoding import SamplingConfig, generate

    preset = override(get_preset("char-small"), tiny(**{"train.steps": "200"}))
    pipeline.train_run(load_corpus(text_file), preset, tmp_path / "run", device="cpu")
    trained = pipeline.load_run(tmp_path / "run", device="cpu")
    prompt = torch.tensor([[trained.tokenizer.end_id, *trained.tokenizer.encode("3 green ")]])
    ids = generate(trained.model, prompt, 22, SamplingConfig(temperature=0))
    assert trained.tokenizer.decode(ids[0].tolist()) == "bottles standing on th"


@pytest.mark.parametrize("size", ["2000000", "9" * 23, "9" * 200])
def test_a_model_that_memory_cannot_hold_is_refused_before_a_folder_is_made(
    text_file: Path, tmp_path: Path, size: str
) -> None:
    preset = override(get_preset("char-small"), tiny(**{"model.hidden_size": size}))
    with pytest.raises(
        ValueError, match=r"GiB to train; device cpu has .* lower model.hidden_size"
    ):
        pipeline.train_run(load_corpus(text_file), preset, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_budget_that_measuring_the_speed_used_up_says_so(text_file: Path, tmp_path: Path) -> None:
    preset = override(get_preset("char-small"), tiny())
    with pytest.raises(
        ValueError, match=r"measuring the speed took .* s, the whole budget of 1e-06"
    ):
        pipeline.train_run(
            load_corpus(text_file), preset, tmp_path / "run", device="cpu", budget=1e-6
        )


def test_without_tensorboard_no_folder_is_made_and_no_run_is_lost(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset, corpus = override(get_preset("char-small"), tiny()), load_corpus(text_file)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="needs the package tensorboard"):
        pipeline.train_run(corpus, preset, tmp_path / "run", device="cpu", tensorboard=True)
    assert not (tmp_path / "run").exists()
    pipeline.train_run(corpus, preset, tmp_path / "run", device="cpu")
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match="needs the package tensorboard"):
        pipeline.train_run(
            corpus, preset, tmp_path / "run", device="cpu", tensorboard=True, overwrite=True
        )
    with pytest.raises(ValueError, match="needs the package tensorboard"):
        pipeline.resume_run(tmp_path / "run", tensorboard=True)
    assert contents(tmp_path / "run") == before


def test_metrics_can_be_written_for_tensorboard(text_file: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra `tracking` is not installed",
    )
    preset = override(get_preset("char-small"), tiny())
    result = pipeline.train_run(
        load_corpus(text_file), preset, tmp_path / "run", device="cpu", tensorboard=True
    )
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    drawn = [(event.step, event.value) for event in events.Scalars("train_nats_per_token")]
    written = [(r["step"], r["train_nats_per_token"]) for r in result.history]
    assert [step for step, _ in drawn] == [step for step, _ in written]
    pipeline.train_run(  # which finds nothing in the folder that it did not write
        load_corpus(text_file), preset, tmp_path / "run", overwrite=True, device="cpu"
    )
    # Event files hold float32.
    assert [value for _, value in drawn] == pytest.approx([nats for _, nats in written], rel=1e-6)
