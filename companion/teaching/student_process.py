"""The process that runs a submission. It knows no test and no right answer.

`companion.teaching.marking` starts it in an empty folder, sends it the cells of a notebook, and
then the inputs of hidden tests, one at a time, as lines of JSON over a pipe; what comes back is
numbers, strings, lists and arrays, never pickled objects. Each call runs in a fork of the process
as the cells left it, so that one that exits, loops or fills the memory loses its own answer only.

The fence (`fence_off`) refuses files outside a few folders, other programs and the network. It is
an obstacle to mistakes and plain cheating, and no boundary: two lines can pass it. For a boundary
the marking runs in a container (assignments/README.md has a recipe).
"""

from __future__ import annotations

import base64
import json
import math
import numbers
import os
import re
import select
import signal
import sys
import time
import types
from collections.abc import Callable, ItemsView, KeysView, Sequence, ValuesView
from typing import Any

from companion.teaching.checks import raised_words
from companion.teaching.limits import WAITING

#: Array types that may cross the pipe.
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip

#: Most entries of a set or a dictionary that the judge reads.
MOST_ENTRIES = 100_000

#: Lines that Jupyter reads and Python does not: `%pip install`, `files = !ls`, `name?`, and those
#: that go on after a backslash.
MAGIC = re.compile(
    r"^([ \t]*)(?:(\w[\w, ]*=)[ \t]*)?(?:(?:%%?\w|[!?])(?:.*\\\n)*.*|[\w.]+\?{1,2}[ \t]*)$",
    re.MULTILINE,
)

#: What the fence refuses at all, by the names of Python's audit events.
REFUSED = (
    "ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle", "os.exec", "os.fork", "os.forkpty",
    "os.kill", "os.killpg", "os.posix_spawn", "os.system", "pty.spawn", "resource.prlimit",
    "signal.pthread_kill", "socket.bind", "socket.connect", "socket.getaddrinfo",
    "socket.sendmsg", "socket.sendto", "subprocess.Popen",
)  # fmt: skip

#: What it refuses outside the submission's own folder: their first argument is a path.
CHANGES = (
    "os.chdir", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.rename",
    "os.rmdir", "os.setxattr", "os.symlink", "os.truncate", "os.utime", "shutil.rmtree",
    "sqlite3.connect",
)  # fmt: skip

#: Functions that make files which wait, or act on other processes.
POSIX = (
    "mkfifo", "mknod", "pidfd_open", "sched_setaffinity", "sched_setparam", "sched_setscheduler",
    "setpgid", "setpgrp", "setpriority", "setsid",
)  # fmt: skip

#: What no audit event tells of: taken away.
TAKEN = {
    "subprocess": ("_fork_exec",),
    "_posixsubprocess": ("fork_exec",),
    "os": POSIX,
    "posix": POSIX,
    "signal": ("pidfd_send_signal",),
    "_signal": ("pidfd_send_signal",),
}


# --- values as JSON ------------------------------------------------------------------------------


def to_json(value: Any) -> Any:
    """`value` as JSON; an object of another kind becomes the name of its type."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, str):  # a subclass, with its own methods or not; numpy's has a dtype too
        return str.__str__(value)
    if isinstance(value, (range, KeysView, ValuesView, ItemsView)):
        value = list(value)
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [to_json(each) for each in value]}
    if isinstance(value, (set, frozenset)):
        return {"set": [to_json(each) for each in value]}
    if isinstance(value, dict):
        return {"dict": [[to_json(key), to_json(each)] for key, each in value.items()]}
    kind = "tensor" if hasattr(value, "detach") else "array"
    if kind == "tensor":
        value = value.detach().cpu()
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        if value.dtype.kind == "U":
            return to_json(value.tolist())
        if value.dtype.kind == "c" and not value.imag.any():
            value = value.real
        if str(value.dtype) not in DTYPES:
            return {"other": f"array of {value.dtype}"}
        text = base64.b64encode(value.tobytes()).decode("ascii")
        return {kind: text, "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, (int, float)):
        base = int if isinstance(value, int) else float
        return base.__add__(value, 0)  # type: ignore[operator]
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, complex) and not value.imag:
        return float(value.real)
    return {"other": type(value).__name__}


def from_json(value: Any) -> Any:
    """The value that `to_json` wrote. ValueError for what it cannot have written."""
    if not isinstance(value, dict):
        return value
    if "list" in value:
        return [from_json(each) for each in value["list"]]
    if "tuple" in value:
        return tuple(from_json(each) for each in value["tuple"])
    if "set" in value:
        return {_key(each) for each in _bounded(value["set"])}
    if "dict" in value:
        return {_key(key): from_json(each) for key, each in _bounded(value["dict"])}
    if "other" in value:
        return Other(str(value["other"])[:100])
    kind = "tensor" if "tensor" in value else "array"
    if kind not in value or value["dtype"] not in DTYPES:
        raise ValueError(f"not a value that a submission can send: {str(value)[:100]}")
    import numpy as np

    array = np.frombuffer(base64.b64decode(value[kind]), dtype=value["dtype"])
    array = array.reshape([int(n) for n in value["shape"]]).copy()
    if kind == "array":
        return array if array.ndim else array[()]
    import torch

    return torch.from_numpy(array)


def _bounded(entries: list[Any]) -> list[Any]:
    if len(entries) > MOST_ENTRIES:
        raise ValueError(f"{len(entries)} entries; at most {MOST_ENTRIES} can be read")
    return entries


def _key(value: Any) -> Any:
    """An entry of a set, or a key. Whole numbers beyond 64 bits could be chosen to collide."""

    def small(found: Any) -> bool:
        if isinstance(found, tuple):
            return all(map(small, found))
        return not isinstance(found, int) or abs(found) < 2**64

    found = from_json(value)
    if not small(found):
        raise ValueError("a whole number in a set or a key has more than 64 bits")
    return found


class Other:
    """An answer of a type that is never right; only the type's name is known."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        """The type's name."""
        return f"an object of type {self.name}"


# --- limits --------------------------------------------------------------------------------------


def limit_memory(more_bytes: int, file_bytes: int) -> None:
    """Allow this process so much memory beside what it has, and files of that size."""
    import resource  # not on Windows, where nothing is marked

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return  # macOS, where the limit of addresses is not kept either
    resource.setrlimit(resource.RLIMIT_AS, (used + more_bytes, used + more_bytes))


def limit_processor(seconds: int | float) -> None:
    """End this process once it has used so much processor time."""
    import resource

    whole = max(1, math.ceil(seconds))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (whole, whole + 1))


def fence_off(own: str, readable: Sequence[str]) -> Callable[[], int]:
    """Refuse what a submission has no business with; returns a fork that is let through.

    Its children are all that may be killed.
    """
    real = os.path.realpath
    own = real(own)
    roots = (own, *map(real, readable))
    expected, children = [False], set[int]()

    def within(path: Any, folders: Sequence[str]) -> bool:
        if isinstance(path, int) or path is None:
            return True
        text = os.fsdecode(path)
        if not os.path.isabs(text) and ".." in text.split(os.sep):
            return False  # relative to a folder that the event does not name
        found = real(text)
        return any(found == root or found.startswith(root + os.sep) for root in folders)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "os.fork" and expected[0]:
            expected[0] = False
        elif event == "os.kill" and arguments[0] in children:
            pass
        elif event in REFUSED:
            raise PermissionError(f"a submission may not do this: {event}")
        elif event == "open" and arguments:
            path, mode, flags = (*arguments, None, None)[:3]
            writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR)) or bool(
                isinstance(mode, str) and set(mode) & set("wax+")
            )
            # A folder that is open could stand in front of any relative path.
            folder = isinstance(path, (str, bytes)) and os.path.isdir(path)
            allowed = (own, os.devnull) if writes else (own,) if folder else roots
            if not within(path, allowed):
                raise PermissionError("a submission may open files of its own folder only")
        elif event in ("os.listdir", "os.scandir"):
            if not within(arguments[0], roots):
                raise PermissionError("a submission may list its own folder only")
        elif event in CHANGES:
            paths = [each for each in arguments[:2] if isinstance(each, (str, bytes))]
            if event == "sqlite3.connect" and os.fsdecode(arguments[0]).startswith("file:"):
                raise PermissionError("a submission may not do this: sqlite3.connect by an URI")
            if event == "os.setxattr":
                paths = paths[:1]
            if not all(within(each, (own,)) for each in paths):
                raise PermissionError("a submission may change its own folder only")

    def fork() -> int:
        expected[0] = True
        child = os.fork()
        if child:
            children.add(child)
        else:
            children.clear()
        return child

    for module, names in TAKEN.items():
        for name in names:
            if hasattr(__import__(module), name):
                delattr(sys.modules[module], name)
    sys.addaudithook(hook)
    return fork


# --- cells and calls -----------------------------------------------------------------------------


class Student:
    """The names that the notebook defined, as attributes."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def __getattr__(self, name: str) -> Any:
        """The value of a name; NameError says that its cell may be gone."""
        if name not in self._names:
            raise NameError(f"{name} is not defined; was its cell deleted, renamed, or in error?")
        return self._names[name]

    def use(self, name: str, value: Any) -> None:
        """Give the student's functions another value of a name, such as a right function."""
        self._names[name] = value


class _Shell:
    """In place of IPython's own: it does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def without_magic(source: str) -> str:
    """A cell without the lines that Python cannot read, where there are such."""
    try:
        compile(source, "<cell>", "exec")
    except SyntaxError:
        return MAGIC.sub(lambda m: f"{m[1]}{m[2]} None" if m[2] else f"{m[1]}pass", source)
    return source


def run_cell(source: str, names: dict[str, Any]) -> dict[str, Any]:
    """Run a cell; what it raised, if anything."""
    try:
        code = compile(without_magic(source), "<cell>", "exec")
        exec(code, names)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too
        return {"error": raised_words(error)}
    return {}


def run_call(message: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    """The answer to a hidden input, as JSON; what it raised, if anything.

    The message has the source of a `driver`, a function of the student's names and the inputs; or
    the `name` of the student's function, or of a value.
    """
    try:
        student = Student(names)
        given = from_json(message["inputs"])
        if message.get("driver"):
            tools: dict[str, Any] = {}
            exec(compile(message["driver"], "<driver>", "exec"), tools)
            answer = tools[message["name"]](student, *given)
        else:
            answer = getattr(student, message["name"])
            answer = answer(*given) if message["called"] else answer
        return {"answer": to_json(answer)}
    except NotImplementedError as error:  # with words it is a library's own
        return {"error": raised_words(error)} if str(error) else {"unanswered": True}
    except BaseException as error:
        return {"error": raised_words(error)}


def answer_in_fork(
    message: dict[str, Any],
    names: dict[str, Any],
    seconds: int | float,
    most_bytes: int,
    fork: Callable[[], int],
) -> dict[str, Any]:
    """`run_call` in a fork, which may use so much processor time and answer with so much."""
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        try:
            os.close(reading)
            limit_processor(seconds)
            reply = json.dumps(run_call(message, names)).encode()
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(reply)
        finally:
            os._exit(0)
    os.close(writing)
    reply = b""
    deadline = time.monotonic() + WAITING * seconds
    failure = ""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            failure = f"did not end within {seconds:g} seconds"
            break
        piece = os.read(reading, 1 << 16)
        if not piece:
            break
        reply += piece
        if len(reply) > most_bytes:
            failure = "gave more than can be read"
            break
    os.close(reading)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU:
        failure = f"did not end within {seconds:g} seconds"
    if failure:
        return {"error": failure}
    try:
        found = json.loads(reply)
        return found if isinstance(found, dict) else {"error": "gave no answer"}
    except (ValueError, RecursionError):
        return {"error": "ended the process before it answered"}


def serve() -> None:
    """Answer the judge's messages until it closes the pipe."""
    commands, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    start = json.loads(commands.readline())
    import torch  # before the limit of memory and the fence

    # Threads do not live on in a fork, where torch would wait for them.
    torch.set_num_threads(1)
    torch.set_num_threads = lambda nthreads: None
    readable = [sys.prefix, sys.base_prefix, *start["readable"]]
    sys.path[:] = [p for p in sys.path if any(p.startswith(root) for root in readable)]
    system = ("/dev", "/usr", "/lib", "/lib64", "/etc", "/sys", f"/proc/{os.getpid()}")
    fork = fence_off(os.getcwd(), [*readable, *system, "/proc/cpuinfo", "/proc/meminfo"])
    limit_memory(start["memory_bytes"], start["file_bytes"])
    sys.modules["__main__"] = notebook = types.ModuleType("__main__")
    names = vars(notebook)
    names.update(display=print, get_ipython=_Shell)
    seconds, most_bytes = start["call_seconds"], start["answer_bytes"]
    for line in commands:
        message = json.loads(line)
        if "cell" in message:
            reply = run_cell(message["cell"], names)
        else:
            reply = answer_in_fork(message, names, seconds, most_bytes, fork)
        os.write(answers, json.dumps({"id": message["id"], **reply}).encode() + b"\n")
