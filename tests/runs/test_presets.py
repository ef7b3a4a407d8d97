"""Every preset is a model that can be built, and a setting is either understood or refused."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch
from annotation_checker import unchecked

from companion.models.lstm import LSTMConfig, LSTMLanguageModel
from companion.runs.presets import PRESETS, get_preset, override, settings_of
from companion.text import tokenizers
from companion.training.config import TrainConfig
from companion.training.trainer import train

SMALL = PRESETS["small"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_a_model_that_predicts(name):
    preset = get_preset(name)
    model = LSTMLanguageModel(preset.model_config(vocabulary_size=50)).eval()
    with torch.no_grad():
        logits, _ = model(torch.zeros(1, 3, dtype=torch.long))
    assert logits.shape == (1, 3, 50)
    assert preset.description


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_a_tokenizer_and_options_it_takes(name):
    kinds = {
        "byte": tokenizers.ByteTokenizer,
        "character": tokenizers.CharacterTokenizer,
        "word": tokenizers.WordTokenizer,
        "bpe": tokenizers.BPETokenizer,
    }
    preset = get_preset(name)
    options = inspect.signature(kinds[preset.tokenizer].fit).parameters
    assert set(preset.tokenizer_options) <= set(options)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_on_a_cpu(name):
    """Two steps of its own recipe, with fewer streams; bfloat16 is for GPUs."""
    preset = get_preset(name)
    torch.manual_seed(0)
    model = LSTMLanguageModel(preset.model_config(vocabulary_size=50))
    settings = dataclasses.replace(
        preset.train, steps=2, epochs=None, num_streams=2, window_length=6, window_jitter=1.0,
        precision="fp32",
    )  # fmt: skip
    ids = torch.randint(50, (200,), generator=torch.Generator().manual_seed(0))
    result = train(model, ids, settings, valid_ids=ids, device="cpu")
    assert result.steps == 2
    assert result.best_nats_per_token < 6


def test_an_unknown_preset_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"unknown preset 'smal'.*Did you mean 'small'\?"):
        get_preset("smal")
    with pytest.raises(ValueError, match="the presets are small, ") as error:
        get_preset("xyzzy")
    assert "Did you mean" not in str(error.value)


@pytest.mark.parametrize(
    ("setting", "text", "value"),
    [
        ("model.hidden_size", "64", 64),
        ("model.dropout", "0.5", 0.5),
        ("model.dropout", "0", 0.0),
        ("model.tie_weights", "False", False),
        ("train.learning_rate", "1e-3", 1e-3),
        ("train.betas", "0.8,0.95", (0.8, 0.95)),
        ("train.betas", "0.8, 0.95", (0.8, 0.95)),
        ("model.adaptive_cutoffs", "2000,10000", (2000, 10000)),
        ("model.last_size", "none", None),
        ("train.carry_state", "false", False),
        ("train.carry_state", "TRUE", True),
        ("train.patience", "3", 3),
        ("train.patience", "none", None),
        ("train.evaluate_every", "None", None),
        ("train.epochs", "0.5", 0.5),
        ("train.precision", "bf16", "bf16"),
    ],
)
def test_a_setting_is_read_as_the_type_of_its_field(setting, text, value):
    section, name = setting.split(".")
    changed = override(SMALL, {setting: text})
    got = changed.model[name] if section == "model" else getattr(changed.train, name)
    assert got == value
    assert type(got) is type(value)


def test_every_field_can_be_set_and_only_that_field_changes():
    # Setting a field to the value it has changes nothing: each declared type can be read.
    for field in dataclasses.fields(TrainConfig):
        value = getattr(SMALL.train, field.name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert override(SMALL, {f"train.{field.name}": text}).train == SMALL.train, field.name
    full = SMALL.model_config(vocabulary_size=9)
    for field in dataclasses.fields(LSTMConfig):
        if field.name != "vocabulary_size":
            text = str(getattr(full, field.name))
            changed = override(SMALL, {f"model.{field.name}": text})
            assert changed.model_config(vocabulary_size=9) == full, field.name


def test_overriding_leaves_the_preset_itself_as_it_was():
    before = dict(SMALL.model), SMALL.train
    override(SMALL, {"model.hidden_size": "7", "train.num_streams": "3"})
    assert (dict(SMALL.model), SMALL.train) == before
    assert override(SMALL, {}) == SMALL


def test_steps_replace_epochs_and_epochs_replace_steps():
    by_steps = override(SMALL, {"train.steps": "10"})
    assert (by_steps.train.steps, by_steps.train.epochs) == (10, None)
    by_epochs = override(by_steps, {"train.epochs": "2"})
    assert (by_epochs.train.steps, by_epochs.train.epochs) == (None, 2.0)


@pytest.mark.parametrize(
    "order", [("train.epochs", "train.steps"), ("train.steps", "train.epochs")]
)
def test_steps_and_epochs_together_are_refused_in_either_order(order):
    with pytest.raises(ValueError, match="either epochs or steps"):
        override(SMALL, dict.fromkeys(order, "3"))


def test_a_training_without_an_end_is_refused():
    with pytest.raises(ValueError, match="either epochs or steps"):
        override(SMALL, {"train.epochs": "none"})
    # No steps is what a preset with epochs has already.
    assert override(SMALL, {"train.steps": "none"}) == SMALL


@pytest.mark.parametrize(
    ("setting", "text", "message"),
    [
        ("hidden_size", "64", "unknown setting 'hidden_size'. Did you mean 'model.hidden_size'"),
        (
            "width",
            "64",
            r"'width'\. The settings are tokenizer.kind, threads, model.embedding_size, "
            r"train.epochs and \d+ more .all of them: .*companion presets NAME",
        ),
        (
            "model.width",
            "64",
            r"'model.width'\. The settings of model are model.embedding_size, .* and \d+ more ",
        ),
        ("train.lr", "1", r"'train.lr'\. Did you mean 'train.learning_rate'\?"),
        ("train.rate", "1", r"Did you mean 'train.learning_rate' or 'train.final_learning_rate'"),
        ("train.epoch", "1", r"'train.epoch'\. Did you mean 'train.epochs'\?"),
        ("tokenizer", "byte", "unknown setting 'tokenizer'. Did you mean 'tokenizer.kind'"),
        ("tokenizer.kind", "bite", "must be one of byte, character, word, bpe, got 'bite'"),
        (
            "tokenizer.min_count",
            "2",
            "not an option of a bpe tokenizer, which takes vocabulary_size",
        ),
        ("tokenizer.vocabulary_size", "big", "size must be a whole number, got 'big'"),
        ("threads", "0", "threads must be >= 1, got 0"),
        ("model.", "9", "unknown setting 'model.'"),
        ("model.vocabulary_size", "9", "unknown setting 'model.vocabulary_size'"),
        ("model.hidden_size", "64.5", "model.hidden_size must be a whole number, got '64.5'"),
        ("model.hidden_size", "", "model.hidden_size must be a whole number, got ''"),
        ("model.hidden_size", "none", "model.hidden_size must be a whole number, got 'none'"),
        ("model.dropout", "much", "model.dropout must be a number, got 'much'"),
        ("model.tie_weights", "1", "model.tie_weights must be true or false, got '1'"),
        ("train.betas", "0.9", "train.betas must be 2 values with commas between, each a number"),
        ("train.betas", "0.9,0.99,1", "train.betas must be 2 values"),
        ("train.patience", "soon", "train.patience must be a whole number or none, got 'soon'"),
        ("model.hidden_size", "0", "hidden_size must be >= 1, got 0"),
        ("model.dropout", "1", "dropout must be in"),
        ("model.dropout", "nan", "dropout must be in"),
        ("model.tie_weights", "true", "tie_weights needs embedding_size == hidden_size"),
        ("train.num_streams", "0", "num_streams must be > 0, got 0"),
        ("train.learning_rate", "-1", "learning_rate must be > 0"),
        ("train.learning_rate", "nan", "learning_rate must be > 0, got nan"),
        ("train.betas", "0.9,1", "betas must be in"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_by_name(setting, text, message):
    with pytest.raises(ValueError, match=message):
        override(SMALL, {setting: text})


@pytest.mark.parametrize(
    "setting", ["train.epoch", "train.lr", "width", "model.width", "", "train."]
)
def test_an_unknown_setting_is_not_answered_with_all_of_them(setting):
    with pytest.raises(ValueError, match="unknown setting") as error:
        override(SMALL, {setting: "1"})
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("preset", "settings", "words"),
    [
        ("small", {}, "preset must be a Preset, got 'small'; get_preset.* gives one"),
        (SMALL, ["train.epochs=2"], "settings must be a Mapping"),
        (SMALL, {"train.epochs": 2}, 'train.epochs must be a str, got 2; give it as text, "2"'),
    ],
)
def test_what_is_no_preset_and_no_text_is_refused(preset, settings, words):
    with unchecked(), pytest.raises(TypeError, match=words):
        override(preset, settings)


def test_the_models_vocabulary_size_is_not_offered_as_a_setting():
    with pytest.raises(ValueError, match="unknown setting") as error:
        override(SMALL, {"model.width": "1"})
    assert "vocabulary_size" not in str(error.value)
    with pytest.raises(ValueError, match=r"Did you mean 'tokenizer\.vocabulary_size'\?"):
        override(SMALL, {"model.vocabulary_size": "1"})


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_any_preset_takes_any_kind_of_tokenizer_and_keeps_the_options_that_it_has(kind):
    for preset in PRESETS.values():
        changed = override(preset, {"tokenizer.kind": kind})
        assert changed.tokenizer == kind
        if kind == preset.tokenizer:
            assert changed == preset
        else:
            assert changed.tokenizer_options == {}
        fitted = tokenizers.build_tokenizer(kind, ["a b a b"], **changed.tokenizer_options)
        assert fitted.kind == kind


def test_the_options_of_a_tokenizer_are_settings():
    changed = override(SMALL, {"tokenizer.vocabulary_size": "300"})
    assert changed == dataclasses.replace(SMALL, tokenizer_options={"vocabulary_size": 300})
    changed = override(SMALL, {"tokenizer.min_count": "2", "tokenizer.kind": "word"})
    assert (changed.tokenizer, changed.tokenizer_options) == ("word", {"min_count": 2})
    assert override(SMALL, {"threads": "2"}).threads == 2
    assert override(SMALL, {"threads": "none"}).threads is None


@pytest.mark.parametrize("name", PRESETS)
def test_every_choice_of_a_preset_is_shown_by_the_text_that_sets_it_and_explained(name):
    preset = PRESETS[name]
    settings = {each.name: each for each in settings_of(preset)}
    wanted = {f"train.{field.name}" for field in dataclasses.fields(TrainConfig)}
    wanted |= {f"model.{field.name}" for field in dataclasses.fields(LSTMConfig)}
    wanted |= {f"tokenizer.{option}" for option in tokenizers.KINDS[preset.tokenizer].options}
    assert set(settings) == wanted - {"model.vocabulary_size"} | {"tokenizer.kind", "threads"}
    for setting in settings.values():
        assert setting.description.endswith("."), setting.name
        again = override(preset, {setting.name: setting.text})
        assert settings_of(again) == list(settings.values()), setting.name
    assert settings["train.betas"].text == ",".join(map(str, preset.train.betas))
    assert settings["train.learning_rate"].value == preset.train.learning_rate
    assert settings["train.warmup"].description.startswith("Share of the steps in which the le")
