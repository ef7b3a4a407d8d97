"""Training a classifier: it learns, layers wait for their turn and have their rates, and a language
model that is fine-tuned stays as it was."""

import dataclasses

import pytest
import torch
from annotation_checker import unchecked

from companion.models.classifier import class_logits
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.text.labelled import LabelledTexts
from companion.training.classification import FineTuningConfig, train_classifier

SIZES = LSTMConfig(vocabulary_size=6, embedding_size=4, hidden_size=8)


def texts(n: int = 60) -> LabelledTexts:
    """Class 1 holds token 2 somewhere; all begin with the end token 0."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(3, 6, (n, 7), generator=generator)
    inputs[:, 0] = 0
    labels = torch.arange(n) % 2
    lengths = torch.randint(3, 8, (n,), generator=generator)
    for row in range(1, n, 2):
        place = 1 + int(torch.randint(int(lengths[row]) - 1, (), generator=generator))
        inputs[row, place] = 2
    return LabelledTexts(inputs=inputs, lengths=lengths, labels=labels)


def language_model() -> LSTMLanguageModel:
    torch.manual_seed(3)
    return LSTMLanguageModel(SIZES).eval()


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_a_classifier_from_scratch_learns_what_it_is_shown():
    some = texts()
    made = train_classifier(SIZES, some, FineTuningConfig(steps=60), seed=0)
    assert not made.training
    right = class_logits(made, some).argmax(dim=-1) == some.labels
    assert float(right.double().mean()) > 0.95


def test_a_language_model_is_copied_and_stays_as_it_was():
    body = language_model()
    before = weights(body)
    made = train_classifier(body, texts(), FineTuningConfig(steps=3, unfreeze_every=0), seed=0)
    assert all(torch.equal(value, body.state_dict()[name]) for name, value in before.items())
    assert not torch.equal(made.body.embedding.weight, body.embedding.weight)
    assert torch.equal(made.body.output.weight, body.output.weight)  # not used, so not trained
    assert all(parameter.requires_grad for parameter in made.parameters())


@pytest.mark.parametrize(
    ("steps", "changed"), [(2, ""), (4, "lstm"), (6, "lstm embedding")], ids=str
)
def test_lower_layers_wait_until_it_is_their_turn(steps, changed):
    body = language_model()
    config = FineTuningConfig(steps=steps, unfreeze_every=2)
    made = train_classifier(body, texts(), config, seed=0)
    for part in ("lstm", "embedding"):
        before, after = weights(getattr(body, part)), weights(getattr(made.body, part))
        same = all(torch.equal(before[name], after[name]) for name in before)
        assert same == (part not in changed.split())


def test_lower_layers_move_less():
    """Adam's first steps are as long as the rate, so rates show in how far weights move."""
    body = language_model()

    def moved(decay: float) -> float:
        config = FineTuningConfig(steps=1, unfreeze_every=0, rate_decay=decay, weight_decay=0)
        made = train_classifier(body, texts(), config, seed=0)
        return float((made.body.embedding.weight - body.embedding.weight).detach().abs().max())

    assert moved(1.0) == pytest.approx(2.6**2 * moved(2.6), rel=1e-3)


def test_from_scratch_all_layers_are_trained_at_once_at_one_rate():
    config = FineTuningConfig(steps=5, unfreeze_every=2, rate_decay=4)
    plain = dataclasses.replace(config, unfreeze_every=0, rate_decay=1)
    one, other = (train_classifier(SIZES, texts(), each, seed=0) for each in (config, plain))
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


def test_the_same_seed_gives_the_same_classifier():
    config = FineTuningConfig(steps=3)
    one, other, third = (train_classifier(SIZES, texts(), config, seed=s) for s in (3, 3, 4))
    assert torch.equal(one.head.weight, other.head.weight)
    assert not torch.equal(one.head.weight, third.head.weight)


def test_a_text_with_weight_zero_teaches_nothing():
    some = texts(8)
    config = FineTuningConfig(steps=4)
    flags = torch.ones(8)
    flags[3] = 0
    other = LabelledTexts(
        inputs=some.inputs, lengths=some.lengths, labels=some.labels.clone().index_fill_(
            0, torch.tensor([3]), 0
        ),
    )  # fmt: skip
    one, two = (
        train_classifier(SIZES, each, config, seed=0, weights=flags) for each in (some, other)
    )
    assert torch.equal(one.head.weight, two.head.weight)
    three = train_classifier(SIZES, other, config, seed=0)
    assert not torch.equal(one.head.weight, three.head.weight)


def test_wrong_arguments_are_refused():
    some, config = texts(4), FineTuningConfig(steps=1)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 1\), got 0 to 1"):
        train_classifier(SIZES, some, config, seed=0, num_classes=1)
    with unchecked(), pytest.raises(ValueError, match="weights must be 4 numbers >= 0"):
        train_classifier(SIZES, some, config, seed=0, weights=torch.ones(3))
    with pytest.raises(ValueError, match="weights must be 4 numbers >= 0"):
        train_classifier(SIZES, some, config, seed=0, weights=-torch.ones(4))
    small = dataclasses.replace(SIZES, vocabulary_size=5)
    with pytest.raises(ValueError, match=r"tokens of the model, in \[0, 5\), got 5"):
        train_classifier(small, some, config, seed=0)
    for changes, words in (
        ({"steps": 0}, "steps must be >= 1"),
        ({"rate_decay": 0.5}, "rate_decay must be >= 1"),
        ({"unfreeze_every": -1}, "unfreeze_every must be >= 0"),
        ({"weight_decay": -1.0}, "weight_decay must be >= 0"),
        ({"pooling": ("min",)}, "each of pooling"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"learning_rate": 0.0}, "learning_rate must be > 0"),
    ):
        with pytest.raises(ValueError, match=words):
            dataclasses.replace(config, **changes)
