"""Where and how code runs: device, precision, seeds, and a record of the environment."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from companion import __version__
from companion.core.settings import check_choice

if TYPE_CHECKING:
    from accelerate import Accelerator
    from jaxtyping import Float64

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16", "fp16"]


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises ValueError for an unknown name, and for a device that this machine does not have.
    """
    check_choice("device", name, DeviceName)
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[name]:
        raise ValueError(
            f"device {name!r} is not available here (torch {torch.__version__}); use cpu or auto"
        )
    return torch.device(name)


def check_precision(precision: Precision, device: torch.device) -> Precision:
    """`precision`, when `device` can train in it; ValueError otherwise.

    Mixed precision is for CUDA: most CPUs, and MPS, have LSTM kernels for fp32 only.
    """
    check_choice("precision", precision, Precision)
    if precision != "fp32" and device.type != "cuda":
        raise ValueError(
            f"precision {precision!r} needs a CUDA device, got {device.type}; use fp32"
        )
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise ValueError("precision 'bf16' is not supported by this GPU; use fp16 or fp32")
    return precision


def lstm_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The dtype in which an LSTM computes on `device` under automatic mixed precision.

    On CUDA it need not be the one asked for: torch's wrapper of cuDNN (aten/src/ATen/cudnn/
    AutocastRNN.cpp) casts inputs and weights to fp16 whatever autocast's dtype is.
    """
    if precision == "fp32":
        return torch.float32
    wanted = torch.bfloat16 if precision == "bf16" else torch.float16
    lstm = torch.nn.LSTM(8, 8, device=device)
    with torch.no_grad(), torch.autocast(device.type, dtype=wanted):
        outputs, _ = lstm(torch.zeros(1, 1, 8, device=device))
    dtype: torch.dtype = outputs.dtype
    return dtype


def make_accelerator(
    device: str = "auto", precision: Precision = "fp32", *, unused_weights: bool = False
) -> Accelerator:
    """A Hugging Face Accelerate `Accelerator` for this device and precision.

    unused_weights: whether a step may leave weights without a gradient; several processes then look
    each step for those that none of them used, instead of waiting for their gradients.

    Under `accelerate launch` it joins the other processes. Accelerate keeps one shared state per
    process; two trainings in one notebook may ask for different settings, so in a single process
    that state is reset.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, PartialState

    chosen = choose_device(device)
    check_precision(precision, chosen)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and PartialState._shared_state:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=chosen.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=unused_weights)],
    )


def sum_over_processes(accelerator: Accelerator, values: Float64[Tensor, " n"]) -> list[float]:
    """The sums of `values`, which are on the CPU, over all processes, in float64.

    They go to the device only where there are other processes: Apple's MPS has no float64, and
    there training has one process.
    """
    if accelerator.num_processes > 1:
        values = accelerator.reduce(values.to(accelerator.device), reduction="sum")
    sums: list[float] = values.tolist()
    return sums


def warn_of_missing_processes(accelerator: Accelerator) -> None:
    """Warn when `accelerate launch` was asked for several processes and started only this one.

    It does so with --cpu, and is recognised by the MASTER_PORT that it sets nevertheless.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
    if launched and accelerator.num_processes == 1:
        warnings.warn(
            "accelerate launch --cpu starts one process, whatever its --num_processes: training "
            "goes on in one. For several on CPUs, start it with: "
            "torchrun --nproc_per_node 2 -m companion train ...",
            stacklevel=3,
        )


#: glibc's mallopt: blocks above a threshold are taken from the system one by one, and memory above
#: another at the end of the heap is given back to it.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Both thresholds while training.
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next allocations; whether the platform allows it.

    By default glibc gives blocks above some megabytes back to the system as soon as they are freed,
    and the system fills each new one with zeros, page by page: for the tensors of a large
    vocabulary, in every step. On other platforms nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(mallopt(which, KEPT_BYTES) == 1 for which in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))


#: Most threads for each core.
THREADS_PER_CORE = 4


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads inside the `with` block; None keeps the current number.

    More than four for each core that this process may use are cut to that, with a warning: they
    only wait for each other, and the system may refuse to start them.
    """
    before = torch.get_num_threads()
    if count is not None:
        cores = usable_cores()
        if count > THREADS_PER_CORE * cores:
            warnings.warn(
                f"{count} threads are too many for the {cores} cores that this process may use; "
                f"going on with {THREADS_PER_CORE * cores}",
                stacklevel=3,
            )
            count = THREADS_PER_CORE * cores
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Let the first Ctrl-C set the event, so that the work in hand can end; a second one raises.

    Unlike a KeyboardInterrupt, the event cannot be lost in code that ignores exceptions, such as a
    callback of the garbage collector. Outside of the main thread the event is never set.
    """
    interrupted = threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread may handle signals
        return
    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, previous)


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done all its work; call it before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def memory_bytes(device: torch.device) -> int:
    """Total memory of `device`, used or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)


def peak_memory_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage would count the parent's size in
        lines = dict(line.split(":", 1) for line in status.read_text("ascii").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource  # Unix only

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others kibibytes


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that memory ran out, on a GPU or on the CPU."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("not enough memory" in words or "can't allocate memory" in words)
    )


def cpu_seconds() -> float:
    """CPU seconds this process has used on all cores, user and system together."""
    return time.process_time()


def _processor() -> str:
    """The processor's name, as far as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    """The version of a package; None where it is not installed, or only copied there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """The environment of a measurement: versions, processor, threads, accelerator."""
    record: dict[str, Any] = {
        "companion": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": _version("accelerate"),
        "numpy": np.__version__,
        "platform": sys.platform,
        "machine": platform.machine(),
        "processor": _processor(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cuda": None,
    }
    if torch.cuda.is_available():
        record["cuda"] = {
            "name": torch.cuda.get_device_name(),
            "count": torch.cuda.device_count(),
            "version": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        }
    return record
