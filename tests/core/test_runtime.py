"""Devices, precision, seeds: what is asked for is what one gets, or an error."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import accelerate
import numpy as np
import psutil
import pytest
import torch
from annotation_checker import unchecked

from companion.core import runtime
from companion.core.runtime import (
    check_precision,
    choose_device,
    cpu_seconds,
    environment,
    make_accelerator,
    peak_memory_bytes,
    synchronize,
)
from companion.core.seeds import make_generator, seed_everything

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_the_largest_size_is_known_on_every_system(platform, monkeypatch):
    """Bytes, whatever the system's own unit; Windows has no resource, others may lack /proc."""
    here = peak_memory_bytes()
    assert here > 2**26  # torch alone is larger
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(runtime, "Path", lambda name: Path("no such file"))
    if platform == "win32":
        monkeypatch.setitem(sys.modules, "resource", None)  # an import of it fails
        process = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=77))
        monkeypatch.setattr(psutil, "Process", lambda: process)
        assert peak_memory_bytes() == 77
    else:
        pytest.importorskip("resource")
        usage = SimpleNamespace(ru_maxrss=3000)
        monkeypatch.setattr("resource.getrusage", lambda who: usage)
        assert peak_memory_bytes() == {"linux": 3000 * 1024, "darwin": 3000}[platform]


def test_an_unknown_device_is_refused_with_the_ones_there_are():
    with pytest.raises(ValueError, match="auto, cpu, cuda, mps, got 'tpu'"):
        choose_device("tpu")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_and_not_replaced_by_the_cpu(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"'{name}' is not available here"):
        choose_device(name)
    assert choose_device("auto") == CPU


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (False, True, "mps"), (True, False, "cuda"), (False, False, "cpu")],
)
def test_auto_prefers_cuda_then_mps_then_the_cpu(cuda, mps, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device().type == expected
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_mixed_precision_is_refused_off_cuda_and_not_ignored(precision, device):
    with pytest.raises(ValueError, match=f"{precision!r} needs a CUDA device, got {device}"):
        check_precision(precision, torch.device(device))
    with pytest.raises(ValueError, match="needs a CUDA device"):
        make_accelerator("cpu", precision)


def test_bf16_is_refused_on_a_gpu_without_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="not supported by this GPU"):
        check_precision("bf16", CUDA)
    assert check_precision("fp16", CUDA) == "fp16"
    assert check_precision("fp32", CUDA) == "fp32"


def test_an_unknown_precision_is_refused():
    with unchecked(), pytest.raises(ValueError, match="fp32, bf16, fp16, got 'fp8'"):
        check_precision("fp8", CPU)


def test_an_accelerator_can_be_made_again_with_another_precision(monkeypatch):
    # Accelerate refuses a second one that differs, unless its shared state is renewed. The check
    # is out of the way here, because without a GPU it leaves one precision alone.
    monkeypatch.setattr(runtime, "check_precision", lambda precision, device: precision)
    for precision, expected in (("fp32", "no"), ("bf16", "bf16"), ("fp32", "no")):
        accelerator = make_accelerator("cpu", precision)
        assert accelerator.mixed_precision == expected
        assert accelerator.device == CPU


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_the_same_seed_gives_the_same_numbers_from_all_three_libraries(seed):
    drawn = []
    for _ in range(2):
        seed_everything(seed)
        legacy = np.random.random()  # noqa: NPY002 - the global generator is what is seeded
        drawn.append((random.random(), legacy, torch.rand(3).tolist()))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_some_library_cannot_take_is_refused(seed):
    with pytest.raises(ValueError, match=f"got {seed}"):
        seed_everything(seed)


def test_a_generator_reproduces_itself_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    first = torch.rand(5, generator=make_generator(3))
    assert torch.equal(first, torch.rand(5, generator=make_generator(3)))
    assert not torch.equal(first, torch.rand(5, generator=make_generator(4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_environment_record_can_be_written_as_json_and_names_the_versions():
    record = json.loads(json.dumps(environment()))
    assert record["torch"] == torch.__version__
    assert record["companion"] == runtime.__version__
    assert record["torch_threads"] == torch.get_num_threads()
    assert record["accelerate"] == accelerate.__version__
    assert runtime._version("no-such-package") is None


def test_the_environment_record_of_a_gpu_names_cudnn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    assert environment()["cuda"]["cudnn"] == 91900


def test_cpu_seconds_count_work_and_not_waiting(monkeypatch):
    started = cpu_seconds()
    while cpu_seconds() - started < 0.02:  # ends only if the clock runs while computing
        sum(range(1000))
    synchronize(CPU)  # nothing to wait for, and no error


def test_far_more_threads_than_cores_are_cut_with_a_warning(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(runtime, "usable_cores", lambda: 2)
    with runtime.cpu_threads(8):
        pass
    words = "9999 threads are too many for the 2 cores that this process may use; going on with 8"
    with pytest.warns(UserWarning, match=words), runtime.cpu_threads(9999):
        pass
    assert asked[::2] == [8, 8]


def test_a_process_may_use_a_core():
    assert runtime.usable_cores() >= 1
