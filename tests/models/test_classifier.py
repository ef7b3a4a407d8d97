"""The text classifier: pooling by hand, padding that changes nothing, any language model below, and
layers in the order in which fine-tuning unfreezes them.

Models compute in float64, where the order of sums moves the last digits alone.
"""

import pytest
import torch
from annotation_checker import unchecked

from companion.models.classifier import (
    ClassifierConfig,
    TextClassifier,
    class_logits,
    layer_groups,
    pooled,
)
from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.models.ngram import NGramModel
from companion.models.recurrent import RecurrentModel
from companion.models.transformer import TransformerModel
from companion.text.labelled import LabelledTexts
from companion.training.classification import FineTuningConfig, train_classifier

SAME = {"rtol": 0, "atol": 1e-12}
WORDS = 7


def lstm(**changes) -> LSTMLanguageModel:
    torch.manual_seed(0)
    sizes = {"embedding_size": 4, "hidden_size": 6} | changes
    return LSTMLanguageModel(LSTMConfig(vocabulary_size=WORDS, **sizes)).double().eval()


def transformer() -> TransformerModel:
    torch.manual_seed(0)
    return TransformerModel(vocabulary_size=WORDS, width=8, num_heads=2).double().eval()


def recurrent() -> RecurrentModel:
    torch.manual_seed(0)
    return (
        RecurrentModel("GRU", vocabulary_size=WORDS, embedding_size=4, hidden_size=6)
        .double()
        .eval()
    )


BODIES = {"lstm": lstm, "transformer": transformer, "recurrent": recurrent}


def classifier_of(body, **changes) -> TextClassifier:
    torch.manual_seed(1)
    made = TextClassifier(body, ClassifierConfig(num_classes=3, **changes))
    return made.double().eval()


def texts() -> LabelledTexts:
    """Rows of 5, 2 and 3 tokens, whose padding is anything."""
    inputs = torch.randint(WORDS, (3, 5), generator=torch.Generator().manual_seed(2))
    return LabelledTexts(
        inputs=inputs, lengths=torch.tensor([5, 2, 3]), labels=torch.tensor([0, 1, 2])
    )


def test_pooling_is_the_last_the_maximum_and_the_mean_of_each_row():
    features = torch.tensor([[[1.0, -5.0], [3.0, -7.0], [90.0, 90.0]], [[2.0, 0.0]] * 3])
    lengths = torch.tensor([2, 3])
    expected = torch.tensor([[3.0, -7.0, 3.0, -5.0, 2.0, -6.0], [2.0, 0.0, 2.0, 0.0, 2.0, 0.0]])
    torch.testing.assert_close(pooled(features, lengths, ("last", "max", "mean")), expected)
    torch.testing.assert_close(pooled(features, lengths, ("mean",)), expected[:, 4:])


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_padding_and_the_rest_of_the_batch_change_nothing(body):
    classifier, some = classifier_of(body()), texts()
    together = classifier(some.inputs, some.lengths)
    for row, length in enumerate(some.lengths.tolist()):
        alone = classifier(some.inputs[row : row + 1, :length], some.lengths[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], **SAME)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_every_token_counts(body):
    """The control of the test above: what is no padding does change the logits."""
    classifier, some = classifier_of(body()), texts()
    before = classifier(some.inputs, some.lengths)
    for row, length in enumerate(some.lengths.tolist()):
        for place in (0, length - 1):
            changed = some.inputs.clone()
            changed[row, place] = (changed[row, place] + 1) % WORDS
            after = classifier(changed, some.lengths)
            assert float((after[row] - before[row]).detach().abs().max()) > 1e-9


def test_class_logits_keep_the_order_and_the_mode():
    """In training mode half of the features would be dropped."""
    classifier, some = classifier_of(lstm(), dropout=0.5).train(), texts()
    found = class_logits(classifier, some, batch_size=2)
    assert classifier.training
    classifier.eval()
    expected = classifier(some.inputs, some.lengths).detach().float()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    gaps = torch.pdist(expected)  # the rows differ, so another order would show
    assert float(gaps.min()) > 1e-3


def test_layers_are_unfrozen_from_the_head_down():
    classifier = classifier_of(lstm(num_layers=2))
    body = classifier.body
    groups = layer_groups(classifier)
    names = {parameter: name for name, parameter in classifier.named_parameters()}
    listed = [sorted(names[p].rpartition(".")[2] for p in group) for group in groups]
    weights = ("bias_hh", "bias_ih", "weight_hh", "weight_ih")
    assert listed == [
        ["bias", "weight"], [f"{w}_l1" for w in weights], [f"{w}_l0" for w in weights], ["weight"],
    ]  # fmt: skip
    assert groups[-1][0] is body.embedding.weight
    assert not any(body.output.weight is p for group in groups for p in group)


@pytest.mark.parametrize(
    ("body", "below"),
    [
        (lambda: lstm(num_layers=3, variational=True),
         ["lstm.layers.2", "lstm.layers.1", "lstm.layers.0", "embedding"]),
        (transformer, ["norm", "layers.layers.1", "layers.layers.0", "positions", "embedding"]),
    ],
    ids=["stack", "transformer"],
)  # fmt: skip
def test_each_layer_of_a_stack_and_of_a_transformer_is_a_group_of_its_own(body, below):
    classifier = classifier_of(body())
    names = {parameter: name for name, parameter in classifier.body.named_parameters()}
    head, *groups = layer_groups(classifier)
    assert head == list(classifier.head.parameters())
    listed = [{names[parameter] for parameter in group} for group in groups]
    expected = [
        {name for name in names.values() if name.startswith(f"{layer}.")} for layer in below
    ]
    assert listed == expected


@pytest.mark.gpu
def test_layers_are_found_on_a_gpu_and_training_starts_there():
    """cuDNN refuses gradients of a recurrent network in evaluation mode."""
    body = lstm(num_layers=2).float().to("cuda").eval()
    classifier = TextClassifier(body)
    assert [len(group) for group in layer_groups(classifier)] == [2, 4, 4, 1]
    made = train_classifier(body, texts(), FineTuningConfig(steps=3, unfreeze_every=1), seed=0)
    assert made.body.device.type == "cuda"
    sizes = LSTMConfig(vocabulary_size=WORDS, embedding_size=4, hidden_size=6)
    fresh = train_classifier(sizes, texts(), FineTuningConfig(steps=3), seed=0, device="cuda")
    assert fresh.body.device.type == fresh.head.weight.device.type == "cuda"
    assert class_logits(fresh, texts()).device.type == "cpu"


def test_the_groups_leave_frozen_parameters_frozen():
    classifier = classifier_of(lstm())
    classifier.body.embedding.weight.requires_grad_(False)
    layer_groups(classifier)
    assert not classifier.body.embedding.weight.requires_grad
    assert classifier.body.output.weight.requires_grad
    assert classifier.body.embedding.weight.grad is None


def test_a_model_that_counts_has_no_features_for_a_classifier():
    counts = NGramModel.fit(torch.arange(WORDS), order=2, vocabulary_size=WORDS)
    with pytest.raises(ValueError, match="needs features of real numbers, and NGramModel has"):
        TextClassifier(counts)


def test_wrong_lengths_and_settings_are_refused():
    features = torch.zeros(2, 3, 4)
    with pytest.raises(ValueError, match="between 1 and 3, got 4"):
        pooled(features, torch.tensor([4, 1]), ("last",))
    with pytest.raises(ValueError, match="between 1 and 3, got 0"):
        pooled(features, torch.tensor([3, 0]), ("mean",))
    with unchecked(), pytest.raises(ValueError, match="one length a row, 2, got 1"):
        pooled(features, torch.tensor([3]), ("mean",))
    with pytest.raises(ValueError, match="num_classes must be >= 2, got 1"):
        ClassifierConfig(num_classes=1)
    with pytest.raises(ValueError, match="each of pooling must be one of last, max, mean"):
        ClassifierConfig(pooling=("min",))
    with pytest.raises(ValueError, match="one way or several"):
        ClassifierConfig(pooling=())
    with pytest.raises(ValueError, match="one way or several"):
        ClassifierConfig(pooling=("max", "max"))
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\)"):
        ClassifierConfig(dropout=1.0)
    with pytest.raises(ValueError, match="one or more, got 0, 0 and 0"):
        texts().first(0)
