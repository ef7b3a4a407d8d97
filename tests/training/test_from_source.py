"""Models of sources: what training on whole texts gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from companion.core.seeds import seed_everything
from companion.models.base import LanguageModel
from companion.models.lstm import LSTMConfig
from companion.models.recurrent import RecurrentModel
from companion.models.transformer import TransformerModel
from companion.sources.automaton import AutomatonSource
from companion.studies.runner import one_thread
from companion.training import from_source
from companion.training.config import TrainConfig
from companion.training.from_source import train_on_source, train_on_texts, training_text


@pytest.fixture
def source() -> AutomatonSource:
    """A geometric one: token 1 or 2 first, then 1 with probability 3/4, or the end."""
    return AutomatonSource(
        ["<end>", "a", "b"],
        torch.tensor([[0, 0.9, 0.1], [0.25, 0.75, 0]]),
        torch.tensor([[-1, 1, 1], [0, 1, -1]]),
    )


def test_a_model_of_whole_texts_knows_how_to_begin_and_how_long_to_write(
    source: AutomatonSource,
) -> None:
    with one_thread():
        model = train_on_texts(
            source,
            seed=0,
            training=TrainConfig(steps=300, learning_rate=8e-3),
            model=LSTMConfig(vocabulary_size=3, embedding_size=8, hidden_size=16),
        )
    assert not model.training
    with torch.no_grad():
        after = torch.softmax(model(torch.tensor([[0, 1, 1]]))[0][0], dim=-1)
    assert after[0].tolist() == pytest.approx([0, 0.9, 0.1], abs=0.05)
    # The loss averaged batch by batch would end too early: batches hold texts alike in length.
    assert after[2].tolist() == pytest.approx([0.25, 0.75, 0], abs=0.05)


@pytest.mark.parametrize("train", [train_on_source, train_on_texts])
def test_the_text_is_drawn_from_another_stream_than_the_weights(
    source: AutomatonSource, monkeypatch: pytest.MonkeyPatch, train: Callable[..., object]
) -> None:
    """With `make_generator(seed)`, the text would begin with the numbers of the weights."""
    begun: list[list[float]] = []

    def sample(n: int, *, generator: torch.Generator) -> list[torch.Tensor]:
        copy = torch.Generator().set_state(generator.get_state())
        begun.append(torch.rand(8, generator=copy).tolist())
        return AutomatonSource.sample(source, n, generator=generator)

    monkeypatch.setattr(source, "sample", sample)
    train(source, seed=5, training=TrainConfig(steps=2, num_streams=2))
    seed_everything(5)
    weights = torch.rand(8).tolist()
    assert begun
    assert weights not in begun


def test_a_model_reads_its_training_text_to_the_end_and_each_token_once(
    source: AutomatonSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then do the counts of contexts in `distribution_shift` speak of what it has read."""
    trainers = []

    class Seen(from_source.Trainer):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            trainers.append(self)

    monkeypatch.setattr(from_source, "Trainer", Seen)
    for accumulation in (1, 2):
        training = TrainConfig(steps=3, num_streams=2, window_length=4, accumulation=accumulation)
        train_on_source(source, seed=5, training=training)
        trainer = trainers.pop()
        assert trainer.progress.step == trainer.steps_per_epoch == 3
        read = training_text(source, training, seed=5)
        inputs, last = trainer.data[:, :-1].flatten(), trainer.data[-1, -1:]
        assert torch.equal(torch.cat([inputs, last]), read)
    assert not torch.equal(read, training_text(source, training, seed=6))


@pytest.mark.parametrize("train", [train_on_source, train_on_texts])
def test_epochs_and_another_vocabulary_are_refused(
    source: AutomatonSource, train: Callable[..., object]
) -> None:
    with pytest.raises(ValueError, match=r"give steps, got epochs=2: fresh text has no epochs"):
        train(source, seed=0, training=TrainConfig(epochs=2))
    with pytest.raises(ValueError, match="the source has 3 tokens, the model 4"):
        train(
            source,
            seed=0,
            training=TrainConfig(steps=1, num_streams=2),
            model=LSTMConfig(vocabulary_size=4),
        )


@pytest.mark.parametrize("train", [train_on_source, train_on_texts])
def test_any_model_of_the_interface_can_be_trained(
    source: AutomatonSource, train: Callable[..., LanguageModel]
) -> None:
    makes: dict[str, Callable[[], LanguageModel]] = {
        "GRU": lambda: RecurrentModel("GRU", vocabulary_size=3, embedding_size=4, hidden_size=4),
        "transformer": lambda: TransformerModel(vocabulary_size=3, width=8, max_length=256),
    }
    for name, make in makes.items():
        carried = name == "GRU" or train is train_on_texts  # which reads each text at once
        training = TrainConfig(steps=3, num_streams=2, carry_state=carried)
        trained = train(source, seed=0, training=training, model=make)
        assert type(trained) is type(make())
        assert not trained.training
        seed_everything(0)
        assert not torch.equal(next(trained.parameters()), next(make().parameters()))


def test_whole_texts_refuse_settings_that_would_do_nothing(source: AutomatonSource) -> None:
    training = TrainConfig(steps=2, num_streams=2, weight_decay=0.5, window_length=4)
    with pytest.raises(ValueError, match=r"weight_decay.* mean nothing"):
        train_on_texts(source, seed=0, training=training)
