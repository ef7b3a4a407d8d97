"""Ways to make one machine round as another would, each as environment variables.

    python -m tools.variants              their names
    python -m tools.variants avx2         its variables, for `env`
    python -m tools.variants --another    the name of one that rounds otherwise than this machine

Another processor is another seed: kernels for other instruction sets, and other numbers of threads,
add up in another order, and training makes the difference large. `make elsewhere VARIANT=avx2` runs
what trains under one of them.
"""

from __future__ import annotations

import sys

VARIANTS = {
    "as-is": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
    "two-threads": {"OMP_NUM_THREADS": "2"},
}


def variables(name: str) -> dict[str, str]:
    """The environment variables of a variant; ValueError when there is none of that name."""
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}; there are {', '.join(VARIANTS)}")
    return dict(VARIANTS[name])


def another() -> str:
    """The name of a variant with other kernels than this machine takes by itself."""
    import torch

    # avx2 changes nothing where the processor has no AVX-512.
    own = torch.backends.cpu.get_cpu_capability()
    return {"AVX512": "avx2", "AVX2": "default"}.get(own, "two-threads")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print("\n".join(VARIANTS))
    elif sys.argv[1] == "--another":
        print(another())
    else:
        try:
            chosen = variables(sys.argv[1])
        except ValueError as error:
            raise SystemExit(f"{error}") from None
        print(" ".join(f"{key}={value}" for key, value in chosen.items()))
