"""Training a translator, and what it then writes."""

import pytest
import torch

from companion.evaluation.translation import exact_match, pair_nats
from companion.models.seq2seq import Seq2SeqConfig
from companion.text.parallel import Pair
from companion.text.tokenizers import CharacterTokenizer, WordTokenizer
from companion.training.translation import TranslationConfig, train_translator

pytestmark = pytest.mark.slow  # one translator is trained for most of them

LETTERS = "abcdefgh"
#: The target is the source backwards: only attention, or a good memory, can do it.
PAIRS = [
    Pair(" ".join(word), word[::-1])
    for word in (a + b + c for a in LETTERS for b in LETTERS for c in LETTERS)
]
#: Any half, or a letter would never stand where it is tested.
ORDER = torch.randperm(len(PAIRS), generator=torch.Generator().manual_seed(0)).tolist()
SEEN, UNSEEN = ([PAIRS[i] for i in half] for half in (ORDER[::2], ORDER[1::2]))
SMALL = TranslationConfig(embedding_size=16, hidden_size=32, steps=150, learning_rate=2e-2)


def trained(config: TranslationConfig = SMALL, pairs=PAIRS, seed: int = 0):
    source = WordTokenizer.fit([pair.source for pair in PAIRS])
    target = CharacterTokenizer.fit([pair.target for pair in PAIRS])
    return train_translator(pairs, config, source=source, target=target, seed=seed)


@pytest.fixture(scope="module")
def backwards():
    return trained(pairs=SEEN)


def test_a_translator_learns_to_write_backwards(backwards):
    """Half of the words were trained on, the others are tested."""
    translations = backwards.translate([pair.source for pair in UNSEEN], batch_size=50)
    assert exact_match(translations, [pair.target for pair in UNSEEN]) > 0.95
    nats, tokens = pair_nats(backwards, UNSEEN)
    assert float(nats.sum() / tokens.sum()) < 0.1
    assert not backwards.model.training


def test_its_attention_goes_backwards_too(backwards):
    """The most read source token is the one to be written, for each of the three."""
    right = 0
    for pair in UNSEEN[::16]:
        read, wrote, weights = backwards.attention(pair.source, pair.target)
        assert weights.shape == (len(wrote), len(read)) == (4, 4)
        right += sum(read[int(weights[t].argmax())] == wrote[t] for t in range(3))
    # Not an exact property: the encoder may keep a letter in its neighbour's state.
    assert right >= 0.5 * 3 * len(UNSEEN[::16])


def test_beam_search_of_width_one_is_greedy(backwards):
    for pair in UNSEEN[::50]:
        (found,) = backwards.search(pair.source, width=1)
        assert found.finished
        assert [found.text] == backwards.translate([pair.source])
        nats, tokens = pair_nats(backwards, [Pair(pair.source, found.text)])
        assert found.log_prob == pytest.approx(-float(nats), abs=1e-4)
        assert found.num_tokens == int(tokens) - 1


def test_the_order_of_the_sentences_is_kept(backwards):
    sentences = ["a b c", "d e f", "a", "h g f"]
    together = backwards.translate(sentences, batch_size=2)
    assert together == [backwards.translate([each])[0] for each in sentences]


def test_a_translation_is_cut_off_after_max_tokens(backwards):
    assert backwards.translate(["a b c"], max_tokens=2) == ["cb"]
    found = backwards.search("a b c", width=2, max_tokens=2)[0]
    assert not found.finished
    assert found.num_tokens == 2


def test_the_same_seed_gives_the_same_translator():
    few = TranslationConfig(embedding_size=4, hidden_size=8, steps=3)
    one, other, third = (trained(few, seed=seed).model.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="steps must be >= 1"):
        TranslationConfig(steps=0)
    with pytest.raises(ValueError, match="attention must be one of"):
        TranslationConfig(attention="luong")
    with pytest.raises(ValueError, match="one pair or more"):
        trained(pairs=[])
    with pytest.raises(ValueError, match="even"):
        Seq2SeqConfig(source_size=2, target_size=2, hidden_size=3)
