"""Reading and writing files so that nothing is lost.

A file is written under another name, flushed to the disk and then renamed, so a crash at any moment
leaves either the old or the new one. A folder with a lock has one writer at a time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

if TYPE_CHECKING:
    from torch import Tensor

LOCK_FILE = ".lock"


class FileError(ValueError):
    """A file or folder that cannot be used; the message says why and what to do."""


@contextlib.contextmanager
def only_writer(folder: str | Path) -> Iterator[None]:
    """Create `folder` and hold its lock; FileError while another process holds it.

    The operating system releases it when the process ends, also by a crash. Reading needs no lock.
    """
    folder = Path(folder)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise FileError(
                f"another process is writing to {folder}; wait until it ends, or choose another "
                "folder"
            ) from None
    try:
        yield
    finally:
        lock.release()


def check_writable(folder: Path) -> None:
    """Raise FileError where no file can be made in the existing `folder`."""
    probe = folder / f".{os.getpid()}-probe"
    with disk_errors(folder):
        probe.touch()
        probe.unlink()


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name to a safetensors file.

    The same tensor under two names, as tied weights are, is stored once; the header says so, as
    that of `safetensors.torch.save_model` does, and `load_tensors` reads it.
    """
    from safetensors.torch import save_file

    stored: dict[str, Tensor] = {}
    first: dict[tuple[Any, ...], str] = {}
    same: dict[str, str] = {}
    for name, each in tensors.items():
        place = (each.device, each.data_ptr(), each.shape, each.stride(), each.dtype)
        if each.data_ptr() and first.setdefault(place, name) != name:
            same[name] = first[place]
            continue
        stored[name] = each.detach().cpu().clone()
    save_file(stored, path, metadata=same or None)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that `save_tensors` wrote, in memory of their own. What was stored once
    for two names is one tensor. SafetensorError where the file is not one."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        # Copies: Windows cannot delete a file that a tensor still maps into memory.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        same = file.metadata() or {}
    return tensors | {name: tensors[other] for name, other in same.items() if other in tensors}


def is_free(folder: Path, unfinished: Collection[str]) -> bool:
    """Whether `folder` is missing, empty, or holds nothing but a lock and `unfinished` files, which
    a process leaves behind that was killed while creating it."""
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return not names or (LOCK_FILE in names and names <= {LOCK_FILE, *unfinished})


def write_json(path: str | Path, value: Mapping[str, Any], *, shared: bool = False) -> None:
    """Write `value` to `path` as JSON by `whole_file`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n", shared=shared)


def read_json(path: str | Path, what: str) -> dict[str, Any]:
    """The JSON object at `path`; FileError naming `what` was expected when it is not one."""
    path = Path(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileError(f"{path.parent} is not {what}: {path.name} does not exist") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {reason(error)}") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise FileError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise FileError(f"{path} is damaged: expected a JSON object, got {type(value).__name__}")
    return value


def check_fields(
    record: Mapping[str, Any], kinds: Mapping[str, Any], where: Path, what_to_do: str
) -> None:
    """FileError where the JSON object `record`, read from `where`, has a field of another type than
    that in `kinds`; a missing field is None."""
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            shown = f"{record[name]!r:.60}" if name in record else "missing"
            raise FileError(f"{where} is damaged: {name} is {shown}; {what_to_do}")


class disk_errors:
    """Turn an OSError while writing into a FileError, and remove the partial files."""

    def __init__(self, run: Path, partial: Path | None = None) -> None:
        self.run, self.partial = run, partial

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # safetensors reports a failed write as its own error, with the system's words in it.
        if not isinstance(error, (OSError, SafetensorError)):
            return
        if self.partial is not None:
            shutil.rmtree(self.partial, ignore_errors=True)
        raise FileError(
            f"cannot write to {self.run}: {reason(error)}; what was saved before is untouched"
        ) from error


def reason(error: BaseException) -> str:
    """Why a file could not be read or written, in words."""
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left" in str(error):
        return "the disk is full"
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def whole_file(path: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """Give another path to write to; that file takes the place of `path` when the block ends.

    If the block fails, the file at `path` stays as it was. `shared`: several processes may write
    `path` at once, and each has a name of its own to write to.
    """
    path = Path(path)
    partial = path.with_name(partial_name(path.name, str(os.getpid()) if shared else ""))
    try:
        yield partial
        flush(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | Path, *, shared: bool = False) -> Iterator[Path]:
    """Give another path for a new folder, which takes the name `path` when the block ends.

    If the block fails, nothing is left of it. `shared`: several processes may make the same folder
    at once; the first one's stands.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial{os.getpid()}")
    try:
        with disk_errors(path):
            yield partial
            try:
                partial.rename(path)
            except OSError:
                if not (shared and path.is_dir()):
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_name(name: str, owner: str = "") -> str:
    """What the file `name` is called while it is written; it ends as `name` does."""
    stem, dot, suffix = name.rpartition(".")
    return f".{stem}.partial{owner}{dot}{suffix}"


def write_text(path: str | Path, text: str, *, shared: bool = False) -> None:
    """Write `text` to `path` by `whole_file`."""
    with whole_file(path, shared=shared) as partial:
        partial.write_text(text, encoding="utf-8")


def flush(path: Path) -> None:
    """Wait until a file's contents, or a folder's list of names, are on the disk (fsync)."""
    if not path.is_dir():
        with path.open("r+b") as file:  # Windows cannot flush a file that is open read-only
            os.fsync(file.fileno())
        return
    # Windows cannot open a folder, and some network disks cannot flush one: there the system
    # decides when a new name reaches the disk. The contents of the files have been flushed already.
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(descriptor)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a folder and its contents, if it exists."""
    if path.exists():
        shutil.rmtree(path)
