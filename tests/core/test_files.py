"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from companion.core import files
from companion.core.files import (
    FileError,
    disk_errors,
    load_tensors,
    only_writer,
    read_json,
    save_tensors,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_flushed_before_it_takes_the_old_one_s_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("old")
    flushed: list[int] = []
    fsync, replace = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def after_flushing(source: Path, target: Path) -> None:
        assert Path(source).stat().st_ino in flushed
        assert Path(target).read_text() == "old"
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", after_flushing)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_a_file_that_could_not_be_written_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    before = (tmp_path / "a.json").read_bytes()

    def write_half() -> None:
        with whole_file(tmp_path / "a.json") as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert (tmp_path / "a.json").read_bytes() == before
    assert names(tmp_path) == ["a.json"]


def test_processes_that_write_one_file_do_not_share_a_half_written_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    with whole_file(path, shared=True) as mine:
        monkeypatch.setattr(os, "getpid", lambda: 77)
        with whole_file(path, shared=True) as theirs:
            assert mine.suffix == theirs.suffix == ".safetensors"
            mine.write_bytes(b"mine")
            theirs.write_bytes(b"theirs")
        assert path.read_bytes() == b"theirs"
    assert path.read_bytes() == b"mine"
    assert names(tmp_path) == ["model.safetensors"]


def test_of_processes_that_make_one_folder_the_first_one_s_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = tmp_path / "model", Path.rename

    def another_comes_first(source: Path, target: Path) -> Path:
        target.mkdir()
        (target / "theirs").touch()
        return rename(source, target)

    def make(shared: bool) -> None:
        with whole_folder(path, shared=shared) as partial:
            partial.mkdir()
            (partial / "mine").touch()

    monkeypatch.setattr(Path, "rename", another_comes_first)
    make(shared=True)
    assert names(path) == ["theirs"]
    monkeypatch.setattr(Path, "rename", rename)
    make(shared=True)
    with pytest.raises(files.FileError, match="cannot write"):
        make(shared=False)
    assert names(path) == ["theirs"]
    assert names(tmp_path) == ["model"]


def test_why_a_file_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    words = "cannot write to .*x: No such file or directory; what was"
    with pytest.raises(FileError, match=words), disk_errors(tmp_path / "x"):
        (tmp_path / "no" / "x").write_text("")


def test_a_path_may_be_a_str(tmp_path: Path) -> None:
    place = str(tmp_path / "a.json")
    with only_writer(str(tmp_path)):
        write_json(place, {"a": 1})
    assert read_json(place, "a test") == {"a": 1}


def test_a_folder_in_which_nothing_can_be_made_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(files.FileError, match=f"^cannot write to {tmp_path}: Permission denied"):
        files.check_writable(tmp_path)


def test_a_tensor_of_two_names_is_stored_once_and_read_as_one(tmp_path: Path) -> None:
    tied = torch.randn(100, 10)
    tensors = {"in": tied, "out": tied.detach(), "rows": tied[:50], "same": tied.clone()}
    save_tensors(tensors, tmp_path / "a")
    assert (tmp_path / "a").stat().st_size < 4 * (1000 + 500 + 1000) + 1000
    read = load_tensors(tmp_path / "a")
    assert {name: each.tolist() for name, each in read.items()} == {
        name: each.tolist() for name, each in tensors.items()
    }
    assert read["in"] is read["out"]
    assert read["in"] is not read["same"]  # equal numbers are not the same tensor
    save_tensors({"none": torch.empty(0), "either": torch.empty(0)}, tmp_path / "b")
    assert set(load_tensors(tmp_path / "b")) == {"none", "either"}
