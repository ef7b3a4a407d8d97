"""Where and how code runs: device, precision, seeds, and a record of the environment."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from companion import __version__

if TYPE_CHECKING:
    from accelerate import Accelerator

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("fp32", "bf16", "fp16")


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises ValueError for an unknown name, and for a device that this machine does not have.
    """
    if name not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {name!r}")
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available[name]:
        raise ValueError(
            f"device {name!r} is not available here (torch {torch.__version__}); "
            "use --device cpu or auto"
        )
    return torch.device(name)


def check_precision(precision: str, device: torch.device) -> str:
    """`precision`, when `device` can train in it; ValueError otherwise.

    Mixed precision is for CUDA: the LSTM kernels of most CPUs, and of MPS, have fp32 alone.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "fp32" and device.type != "cuda":
        raise ValueError(
            f"precision {precision!r} needs a CUDA device, got {device.type}; use fp32"
        )
    if precision == "bf16" and not torch.cuda.is_bf16_supported():
        raise ValueError("precision 'bf16' is not supported by this GPU; use fp16 or fp32")
    return precision


def make_accelerator(device: str = "auto", precision: str = "fp32") -> Accelerator:
    """A Hugging Face Accelerate `Accelerator` for this device and precision.

    Under `accelerate launch` it joins the other processes. Accelerate keeps one shared state a
    process; two trainings in one notebook may ask for different settings, so without other
    processes that state is renewed.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    chosen = choose_device(device)
    check_precision(precision, chosen)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 and PartialState._shared_state:
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(
        cpu=chosen.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
    )


def warn_of_missing_processes(accelerator: Accelerator) -> None:
    """Warn when `accelerate launch` was asked for several processes and started this one alone.

    That is what it does with --cpu. It leaves the address at which they would have met.
    """
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_PORT" in os.environ
    if launched and accelerator.num_processes == 1:
        warnings.warn(
            "accelerate launch --cpu starts one process, whatever its --num_processes: training "
            "goes on in one. For several on CPUs, start it with: "
            "torchrun --nproc_per_node 2 -m companion train ...",
            stacklevel=3,
        )


@contextlib.contextmanager
def cpu_threads(count: int | None) -> Iterator[None]:
    """Let torch use `count` CPU threads for a while; None leaves its own choice."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators. Only entry points call this."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be between 0 and 2**32 - 1, got {seed}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third parties draw from the global one
    torch.manual_seed(seed)


def make_generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator of its own, so that sampling leaves the global one alone."""
    return torch.Generator(device=device).manual_seed(seed)


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done all its work; call it before reading a clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def memory_bytes(device: torch.device) -> int:
    """All the memory that `device` has, used or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    import psutil

    return int(psutil.virtual_memory().total)


def peak_memory_bytes() -> int:
    """The largest size that this process has had in the machine's memory."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, getrusage would count the parent's size in
        lines = dict(line.split(":", 1) for line in status.read_text("ascii").splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource  # on Unix alone

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others kibibytes


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a device's, or the CPU's, way of saying that memory ran out."""
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError)
        and ("not enough memory" in words or "can't allocate memory" in words)
    )


def cpu_seconds() -> float:
    """CPU seconds this process has used on all cores, user and system together."""
    return time.process_time()


def _processor() -> str:
    """The processor's name, as well as the system knows it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [
                line.partition(":")[2].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def environment() -> dict[str, Any]:
    """What a number was measured on: versions, processor, threads, accelerator."""
    record: dict[str, Any] = {
        "companion": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
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
        }
    return record
