"""From a run to a smaller one: a folder that holds the compressed weights and how they were made.

The folder is a run as any other for `load_run`, and so for `evaluate`, `compare`, `generate` and
`export`. It holds one checkpoint, without what training needs to go on.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from companion.compression.distillation import check_distillation, distill
from companion.compression.low_rank import truncated
from companion.compression.packed import (
    low_rank_tensors,
    num_bytes,
    plain_tensors,
    quantized_tensors,
    sparse_tensors,
)
from companion.compression.pruning import Scope, check_share, magnitude_masks, pruned, repair
from companion.compression.quantization import check_bits
from companion.core.files import FileError, check_writable, is_free, only_writer
from companion.core.runtime import choose_device, cpu_threads, environment
from companion.core.seeds import seed_everything
from companion.core.settings import changed, check_choice, check_sizes, settings_class
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.pipeline import (
    CORPUS_FILE,
    TrainedModel,
    another_text,
    compressed_from,
    corpus_at,
    load_run,
    recorded_preset,
)
from companion.text.corpora import Corpus
from companion.text.tokenizers import encode_documents, save_tokenizer
from companion.training.checkpoints import MODEL_FILE, UNFINISHED_RUN, RunFolder, Weights
from companion.training.config import TrainConfig

#: Ways to make a model smaller.
Method = Literal["quantize", "prune", "low-rank", "distill"]


@settings_class
class Quantize:
    """Weights as whole numbers of few bits, with a scale for each row or group."""

    bits: int = 8
    """Bits of each weight of a matrix, 2 to 8."""
    group_size: int | None = None
    """Neighbours in a row that share a scale, at most; None means the whole row."""

    def __post_init__(self) -> None:
        check_bits(self.bits, self.group_size)


@settings_class
class Prune:
    """The smallest weights set to zero, and the others repaired by a short training."""

    share: float = 0.5
    """Share of the weights of all matrices to remove."""
    scope: Scope = "global"
    """Whether the weights of all matrices compete, "global", or those of each, "matrix"."""
    repair_steps: int = 200
    """Optimizer steps of the repair, on the run's training text; 0 leaves it out."""
    learning_rate: float = 1e-3
    """Peak learning rate of the repair."""

    def __post_init__(self) -> None:
        check_share(self.share)
        if self.share == 0:
            raise ValueError("share must be > 0: without it nothing is pruned, and the file grows")
        check_choice("scope", self.scope, Scope)
        if self.repair_steps < 0:
            raise ValueError(f"repair_steps must be >= 0, got {self.repair_steps}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")


@settings_class
class LowRank:
    """The output matrix, and with tied weights the embedding, as a product of two thin ones."""

    rank: int = 32
    """Columns of the one and rows of the other."""

    def __post_init__(self) -> None:
        check_sizes(rank=self.rank)


@settings_class
class Distill:
    """A smaller LSTM, trained beside the run's model as its teacher."""

    hidden_size: int = 64
    """Hidden units of each layer of the student; its embeddings shrink in proportion."""
    steps: int | None = None
    """Optimizer steps; None means as long as the run was trained."""
    temperature: float = 1.0
    """Temperature of both distributions."""
    weight: float = 1.0
    """Share of the teacher's part in the loss; the rest is the cross-entropy of the text."""

    def __post_init__(self) -> None:
        check_sizes(hidden_size=self.hidden_size)
        if self.steps is not None:
            check_sizes(steps=self.steps)
        check_distillation(self.temperature, self.weight)


Settings = Quantize | Prune | LowRank | Distill
#: The settings of each method.
METHODS: dict[Method, type[Settings]] = dict(
    zip(get_args(Method), (Quantize, Prune, LowRank, Distill), strict=True)
)


def method_settings(method: str, settings: Mapping[str, str]) -> Settings:
    """The settings of a method by its name, some of them changed: `{"bits": "4"}`."""
    check_choice("method", method, Method)
    return changed(METHODS[method](), settings)  # type: ignore[index]


def compress_run(
    run: str | Path,
    out: str | Path,
    settings: Settings,
    *,
    corpus: Corpus | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> dict[str, Any]:
    """Compress the best model of the run in `run` into the new run folder `out`.

    Returns what was done: method, settings, `parameters` before and after, and `bytes_before`,
    those of its weights in float32, each tied one once, and `bytes` of the new file of weights.
    Repair and distillation read the run's training text; give `corpus` if that has moved. Raises
    FileError if `out` exists, if `run` is compressed already, or if the text is another one, and
    ValueError where the method does not fit the model.
    """
    if not isinstance(settings, Settings):
        raise TypeError(f"settings must be of a method, such as Quantize(bits=8), got {settings!r}")
    source, target = RunFolder.open(run), Path(out)
    record = source.record()
    if "compressed" in record:
        raise FileError(
            f"{source.path} is compressed already ({compressed_from(record)}); compress the run "
            "that it was made from"
        )
    if not is_free(target, UNFINISHED_RUN):
        raise FileError(f"{target} already exists; choose another folder")
    # Before the work: whether the folder can be made.
    check_writable(next(each for each in target.absolute().parents if each.is_dir()))
    place = choose_device(device)
    trained = load_run(source.path, device=str(place))
    before = num_bytes(plain_tensors(trained.model))
    parameters = trained.model.num_parameters
    with cpu_threads(record.get("threads") if place.type == "cpu" else None):
        model, packed, trained_by = _compressed(
            trained, settings, corpus=corpus, seed=seed, device=str(place), progress=progress
        )
    method = next(name for name, kind in METHODS.items() if isinstance(settings, kind))
    done = {
        "method": method,
        "settings": dataclasses.asdict(settings),
        "of": str(source.path.resolve()),
        "seed": seed,
        "parameters_before": parameters,
        "parameters": model.num_parameters,
        "bytes_before": before,
    }
    trained_as = {} if trained_by is None else {"train": dataclasses.asdict(trained_by[0])}
    step = trained.step if trained_by is None else trained_by[1]
    kept = {name: value for name, value in record.items() if name not in ("format", "version")}

    def prepare(folder: Path) -> None:
        save_tokenizer(trained.tokenizer, folder / "tokenizer.json")
        if (source.path / CORPUS_FILE).exists():
            shutil.copyfile(source.path / CORPUS_FILE, folder / CORPUS_FILE)

    with only_writer(target):
        made = RunFolder.create(
            target,
            {
                **kept,
                **trained_as,
                "model": dataclasses.asdict(model.config),
                "compressed": done,
                "environment": environment(),
            },
            prepare=prepare,
        )
        path = made.save(Weights(step=step, model=packed), best=True)
    load_run(target, device="cpu")  # what was written can be read
    return {**done, "bytes": (path / MODEL_FILE).stat().st_size}


def _compressed(
    trained: TrainedModel,
    settings: Settings,
    *,
    corpus: Corpus | None,
    seed: int,
    device: str,
    progress: bool,
) -> tuple[LSTMLanguageModel, dict[str, torch.Tensor], tuple[TrainConfig, int] | None]:
    """The compressed model, its weights as they are stored, and if it is another network, a
    student, the settings and the steps of its training."""
    model = trained.model
    if isinstance(settings, Quantize):
        packed = quantized_tensors(model, settings.bits, group_size=settings.group_size)
        return model, packed, None
    if isinstance(settings, LowRank):
        return truncated(model, settings.rank), low_rank_tensors(model, settings.rank), None
    if isinstance(settings, Prune):
        masks = magnitude_masks(model, settings.share, settings.scope)
        model = pruned(model, masks)
        if settings.repair_steps:
            training = _training(
                trained, device, steps=settings.repair_steps, learning_rate=settings.learning_rate
            )
            ids = _training_ids(trained, corpus)
            seed_everything(seed)
            repair(model, masks, ids, training, device=device, progress=progress)
        return model, sparse_tensors(model), None
    before = model.config
    if settings.hidden_size >= before.hidden_size:
        raise ValueError(
            f"the student must be smaller than the run's {before.hidden_size} hidden units, got "
            f"hidden_size {settings.hidden_size}"
        )
    training = _training(trained, device, steps=settings.steps)
    ids = _training_ids(trained, corpus)
    seed_everything(seed)
    student = LSTMLanguageModel(_student(before, settings.hidden_size))
    steps = distill(
        student, model, ids, training,
        temperature=settings.temperature, weight=settings.weight, device=device, progress=progress,
    )  # fmt: skip
    return student, plain_tensors(student), (training, steps)


def _student(config: LSTMConfig, hidden_size: int) -> LSTMConfig:
    """`config` with fewer hidden units, and all its other sizes in proportion."""

    def smaller(size: int) -> int:
        return max(1, round(size * hidden_size / config.hidden_size))

    last = None if config.last_size is None else smaller(config.last_size)
    embedding = smaller(config.embedding_size)
    if config.tie_weights:
        embedding = last or hidden_size
    return dataclasses.replace(
        config, hidden_size=hidden_size, embedding_size=embedding, last_size=last
    )


def _training(trained: TrainedModel, device: str, **changes: Any) -> TrainConfig:
    """The settings that the run was trained with, for another number of steps; full precision on
    the CPU, whatever the run had on its GPU."""
    if changes.get("steps") is None:
        changes.pop("steps", None)
    else:
        changes["epochs"] = None
    plain: dict[str, Any] = {
        "loss": "full", "activation_penalty": 0.0, "temporal_penalty": 0.0,
        "unigram_bias": False, "reset_state": 0.0, "patience": None,
    }  # fmt: skip
    if torch.device(device).type == "cpu":
        plain["precision"] = "fp32"
    return dataclasses.replace(recorded_preset(trained.record).train, **plain, **changes)


def _training_ids(trained: TrainedModel, corpus: Corpus | None) -> torch.Tensor:
    """The tokens of the run's training text; FileError if `corpus` is another one."""
    record = trained.record
    corpus = corpus or corpus_at(record["corpus"], "the run")
    if corpus.fingerprint != record["corpus_fingerprint"]:
        raise FileError(another_text(corpus, record, "the run"))
    return encode_documents(trained.tokenizer, corpus.train).ids
