"""A model as one file: the same outputs, without the package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from companion.core.files import FileError
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs import export
from companion.runs.pipeline import TrainedModel
from companion.text.tokenizers import CharacterTokenizer, tokenizer_from_dict

TOKENIZER = CharacterTokenizer.fit(["ten green bottles standing on the wall"])

CONFIGS: dict[str, dict[str, Any]] = {
    "awd-lstm": {
        "num_layers": 2, "last_size": 8, "embedding_size": 8, "tie_weights": True,
        "variational": True, "dropout": 0.3, "weight_drop": 0.5, "embedding_dropout": 0.1,
    },
    "adaptive softmax": {"adaptive_cutoffs": (5, 10)},
}  # fmt: skip


def trained(**settings: Any) -> TrainedModel:
    sizes = {"hidden_size": 16, "embedding_size": 8, **settings}
    config = LSTMConfig(vocabulary_size=TOKENIZER.vocabulary_size, **sizes)
    model = LSTMLanguageModel(config).eval()
    return TrainedModel(model=model, tokenizer=TOKENIZER, record={"seed": 3}, step=7)


def loaded(path: Path) -> Callable[..., Any]:
    return torch.export.load(path).module()


def assert_equal(exported: Callable[..., Any], model: LSTMLanguageModel, shape: tuple[int, int]):
    inputs = torch.randint(model.config.vocabulary_size, shape)
    state = tuple(torch.randn_like(part) for part in model.initial_state(shape[0]))
    with torch.no_grad():
        # The same kernels, so a few last digits are all that may differ.
        torch.testing.assert_close(
            exported(inputs, state), model(inputs, state), rtol=1e-5, atol=1e-6
        )


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedModel, Path]:
    """A model, and its file for one token a call."""
    run = trained(num_layers=2, dropout=0.3)
    return run, export.export_model(run, tmp_path_factory.mktemp("export") / "model.pt2")


def test_the_file_gives_the_models_outputs_at_every_batch_size(
    two_layers: tuple[TrainedModel, Path],
) -> None:
    run, path = two_layers
    exported = loaded(path)
    for batch_size in (1, 2, 3, 32):
        assert_equal(exported, run.model, (batch_size, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_kind_of_model_can_be_exported(name: str, tmp_path: Path) -> None:
    run = trained(**CONFIGS[name])
    exported = loaded(export.export_model(run, tmp_path / "model.pt2"))
    for batch_size in (1, 2, 3, 32):
        assert_equal(exported, run.model, (batch_size, 1))


def test_one_token_a_call_with_the_state_handed_on_reads_a_whole_text(
    two_layers: tuple[TrainedModel, Path],
) -> None:
    run, path = two_layers
    exported = loaded(path)
    text = torch.randint(run.model.config.vocabulary_size, (3, 20))
    state, steps = run.model.initial_state(3), []
    with torch.no_grad():
        for token in text.split(1, dim=1):
            logits, state = exported(token, state)
            steps.append(logits)
        whole, after = run.model(text)
    # The same products in another order: differences of rounding alone.
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(state, after, rtol=1e-4, atol=1e-6)


def test_the_length_is_fixed_when_the_file_is_made(tmp_path: Path) -> None:
    run = trained()
    exported = loaded(export.export_model(run, tmp_path / "model.pt2", length=7))
    for batch_size in (1, 4):
        assert_equal(exported, run.model, (batch_size, 7))
    with pytest.raises(AssertionError, match=r"inputs.size\(\)\[1\] == 7"):
        assert_equal(exported, run.model, (2, 8))


def test_the_file_brings_the_tokenizer_and_the_record(
    two_layers: tuple[TrainedModel, Path],
) -> None:
    extra = {"run.json": "", "tokenizer.json": ""}
    torch.export.load(two_layers[1], extra_files=extra)
    assert json.loads(extra["run.json"]) == {"seed": 3}
    tokenizer = tokenizer_from_dict(json.loads(extra["tokenizer.json"]))
    assert tokenizer.decode(TOKENIZER.encode("green wall")) == "green wall"


def test_a_program_of_other_weights_is_noticed_and_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = export.export_program(trained().model)
    monkeypatch.setattr(export, "export_program", lambda model, length: other)
    with pytest.raises(export.ExportError, match="differ from the model's at batch size 1"):
        export.export_model(trained(), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_text("mine")
    with pytest.raises(export.ExportError, match="already exists"):
        export.export_model(trained(), path)
    assert path.read_text() == "mine"
    with pytest.raises(export.ExportError, match=r"use model\.onnx\.pt2"):
        export.export_model(trained(), tmp_path / "model.onnx")
    with pytest.raises(export.ExportError, match="length must be >= 1, got 0"):
        export.export_program(trained().model, length=0)
    with pytest.raises(export.ExportError, match="training mode"):
        export.export_program(trained().model.train())


@pytest.mark.slow
def test_torch_alone_loads_the_file(two_layers: tuple[TrainedModel, Path], tmp_path: Path) -> None:
    run, path = two_layers
    code = (
        "import sys, torch; model = torch.export.load(sys.argv[1]).module();"
        "zeros = torch.zeros(2, 3, 16);"
        "logits, state = model(torch.arange(3).view(3, 1), (zeros, zeros));"
        "assert not [name for name in sys.modules if name.startswith('companion')];"
        "print(logits.double().sum().item())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        logits, _ = run.model(torch.arange(3).view(3, 1))
    assert float(done.stdout) == pytest.approx(logits.double().sum().item(), abs=1e-5)


def test_a_file_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / ("m" * 248 + ".pt2")  # the name under which it is written is too long
    with pytest.raises(FileError, match=r"cannot write to .*\.pt2: .*name too long"):
        export.export_model(trained(), path)
    assert list(tmp_path.iterdir()) == []
