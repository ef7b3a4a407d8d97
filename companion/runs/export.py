"""A trained model as one file that runs without this package, by `torch.export`.

Torch alone loads it, anywhere:

    extra = {"run.json": "", "tokenizer.json": ""}
    model = torch.export.load("model.pt2", extra_files=extra).module()
    logits, state = model(inputs, state)

inputs: (B, T) int64. state: two tensors (L, B, H), zeros at the start of a text. logits: (B, T, V).
B may differ between calls. T is fixed when the file is made, because torch.export (2.13) unrolls an
LSTM over time when it infers shapes; with T = 1, and the state passed from call to call, the model
reads texts of any length.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from companion.core.files import disk_errors, whole_file
from companion.models.lstm import LSTMLanguageModel, State
from companion.runs.pipeline import TrainedModel

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class ExportError(ValueError):
    """The model cannot be exported, or not to this file; the message gives the reason."""


def export_model(trained: TrainedModel, out: str | Path, *, length: int = 1) -> Path:
    """Write `trained` to the new file `out`, for inputs of T = `length` tokens.

    The file also holds the run's record and the tokenizer, as JSON. It appears only after it was
    read back and gave the model's own logits and states at several batch sizes. Raises ExportError
    if it did not, or if `out` exists, does not end in .pt2, or its folder is missing; FileError if
    the file cannot be written.
    """
    path = Path(out)
    if path.suffix != ".pt2":
        raise ExportError(f"an exported model is a .pt2 file, got {path.name}; use {path.name}.pt2")
    if path.exists():
        raise ExportError(f"{path} already exists; choose another file")
    if not path.parent.is_dir():
        raise ExportError(f"the folder of {path} does not exist; make it first")
    program = export_program(trained.model, length=length)
    documents = {"run.json": trained.record, "tokenizer.json": trained.tokenizer.to_dict()}
    with disk_errors(path), whole_file(path) as partial:
        with partial.open("wb") as file:  # torch's own errors about files are not OSErrors
            torch.export.save(
                program,
                file,
                extra_files={name: json.dumps(value) for name, value in documents.items()},
            )
        check_equal(torch.export.load(partial), trained.model, length=length)
    return path


def export_program(model: LSTMLanguageModel, *, length: int = 1) -> ExportedProgram:
    """`model` as a program of torch.export for inputs (B, T), with any B and T = `length`.

    Only for LSTMs, because torch.export must know the batch axis of the state (h, c). The program
    runs on the model's device. Raises ExportError in training mode, where dropout would be exported
    too.
    """
    if length < 1:
        raise ExportError(f"length must be >= 1, got {length}")
    if model.training:
        raise ExportError("the model is in training mode; call model.eval() first")
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing makes nn.LSTM list its weights again; they are the same parameters.
        warnings.filterwarnings("ignore", message="The tensor attributes .*_flat_weights")
        return torch.export.export(
            model,
            # Two streams, not one: an example of size one would fix the batch size.
            (_tokens(model, 2, length), model.initial_state(2)),
            dynamic_shapes=({0: batch}, ({1: batch}, {1: batch})),
            strict=False,
        )


def check_equal(program: ExportedProgram, model: LSTMLanguageModel, *, length: int) -> None:
    """Raise ExportError if `program` and `model` differ on random tokens and states, B 1 to 5."""
    exported = program.module()
    for batch_size in (1, 2, 5):
        generator = torch.Generator().manual_seed(batch_size)
        inputs, zeros = _tokens(model, batch_size, length), model.initial_state(batch_size)
        inputs.copy_(torch.randint(model.config.vocabulary_size, inputs.shape, generator=generator))
        state = tuple(part.copy_(torch.randn(part.shape, generator=generator)) for part in zeros)
        with torch.no_grad():
            got: tuple[torch.Tensor, State] = exported(inputs, state)
            wanted = model(inputs, state)
        try:
            # The same kernels run, so only the last digits may differ.
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
        except AssertionError as error:
            raise ExportError(
                f"the exported model's outputs differ from the model's at batch size {batch_size}; "
                "nothing was written"
            ) from error


def _tokens(model: LSTMLanguageModel, batch_size: int, length: int) -> torch.Tensor:
    return torch.zeros(batch_size, length, dtype=torch.long, device=model.embedding.weight.device)
