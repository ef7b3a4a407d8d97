"""A run's best weights in a few small files, to bring back from a machine that is given back.

    python3 -m tools.packed_weights pack RUN FOLDER     weights.json, weights-0.bin, ...
    python3 -m tools.packed_weights open FOLDER RUN     a run, for evaluation and generation

Weights are rounded to bfloat16. Their upper bytes, which hold signs and exponents, lie together and
so do their lower ones, before zlib gives frequent ones a shorter code (Huffman's): some two thirds
of 16 bits remain.
The optimizer is left out, so training cannot go on from what is opened.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from companion.core.files import read_json, write_json
from companion.training.checkpoints import RunFolder, Weights

INDEX = "weights.json"
#: Most bytes of a file: such machines give back files of up to 16 MB.
MOST = 15_900_000
#: Files of a run that evaluation needs beside its weights.
DOCUMENTS = ("tokenizer.json", "corpus.json")


def pack(run: Path, folder: Path) -> list[Path]:
    """Write the best weights of `run` below `folder`; the files."""
    opened = RunFolder.open(run)
    best = opened.best()
    planes: tuple[list[bytes], list[bytes]] = [], []
    shapes: dict[str, list[int]] = {}
    same: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, weight in best.model.items():
        if first.setdefault(weight.data_ptr(), name) != name:  # tied
            same[name] = first[weight.data_ptr()]
            continue
        shapes[name] = list(weight.shape)
        pairs = weight.bfloat16().contiguous().view(torch.int16).numpy().view(np.uint8)
        for plane, part in zip(planes, pairs.reshape(-1, 2).T, strict=True):
            plane.append(part.tobytes())
    # Weights hold no repetitions, and looking for them makes the code longer.
    huffman = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    packed = huffman.compress(b"".join(planes[0] + planes[1])) + huffman.flush()
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for number, start in enumerate(range(0, len(packed), MOST)):
        names.append(f"weights-{number}.bin")
        (folder / names[-1]).write_bytes(packed[start : start + MOST])
    index = {
        "files": names,
        "sha256": hashlib.sha256(packed).hexdigest(),
        "shapes": shapes,
        "same": same,
        "step": best.step,
        "run": opened.record(),
        "metrics": opened.metrics(),
        **{name: read_json(run / name, "part of a run") for name in DOCUMENTS},
    }
    write_json(folder / INDEX, index)
    for old in set(folder.glob("weights-*.bin")) - {folder / name for name in names}:
        old.unlink()
    return [folder / name for name in (*names, INDEX)]


def unpack(folder: Path, run: Path) -> RunFolder:
    """A new run at `run` of the weights in `folder`; ValueError where they were damaged."""
    index = read_json(folder / INDEX, "packed weights")
    packed = b"".join((folder / name).read_bytes() for name in index["files"])
    if hashlib.sha256(packed).hexdigest() != index["sha256"]:
        raise ValueError(f"the files of {folder} are not those that were written")
    both = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(2, -1)
    numbers = torch.from_numpy(np.ascontiguousarray(both.T).view(np.int16).ravel())
    weights, start = {}, 0
    for name, shape in index["shapes"].items():
        count = int(np.prod(shape))
        part = numbers[start : start + count].view(torch.bfloat16)
        weights[name], start = part.float().view(shape), start + count
    for name, other in index["same"].items():
        weights[name] = weights[other]

    def prepare(path: Path) -> None:
        for name in DOCUMENTS:
            write_json(path / name, index[name])

    record: dict[str, Any] = {
        key: value for key, value in index["run"].items() if key not in ("format", "version")
    }
    made = RunFolder.create(run, record, prepare=prepare)
    for metrics in index["metrics"]:
        made.append_metrics(metrics)
    made.save(Weights(step=index["step"], model=weights), best=True)
    return made


def main() -> None:
    """Pack a run, or open what was packed."""
    if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "open"):
        raise SystemExit("give: pack RUN FOLDER, or: open FOLDER RUN")
    source, target = map(Path, sys.argv[2:])
    if sys.argv[1] == "pack":
        print(json.dumps({path.name: path.stat().st_size for path in pack(source, target)}))
    else:
        print(f"companion evaluate {unpack(source, target).path}")


if __name__ == "__main__":
    main()
