"""Sources with exact entropy and probabilities: against closed forms, brute force and samples."""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from annotation_checker import unchecked
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.models.ngram import NGramModel
from companion.sources.automaton import AutomatonSource
from companion.sources.grammar import (
    ADJECTIVES,
    NOUNS,
    OPINIONS,
    VERBS,
    VOCABULARY,
    GrammarConfig,
    ReviewGrammar,
    compile_grammar,
)
from companion.sources.markov import HiddenMarkovSource, MarkovSource
from companion.sources.reviews import GrammarSource
from companion.text.rows import END_ID


def chi_square_limit(df: int) -> float:
    """Pearson's chi-square at level .001 (Wilson and Hilferty's approximation)."""
    return df * (1 - 2 / (9 * df) + 3.09 * math.sqrt(2 / (9 * df))) ** 3


def make_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_markov(seed: int, size: int, order: int) -> MarkovSource:
    rng = np.random.default_rng(seed)
    return MarkovSource(rng.dirichlet(np.ones(size), size**order), order=order)


def random_hidden(seed: int, states: int, size: int, stay: float = 0.5) -> HiddenMarkovSource:
    rng = np.random.default_rng(seed)
    transition = stay * np.eye(states) + (1 - stay) * rng.dirichlet(np.ones(states), states)
    return HiddenMarkovSource(transition, rng.dirichlet(np.ones(size), states))


def block_standard_error(nats: torch.Tensor, blocks: int = 1000) -> float:
    """Standard error of the mean of a dependent sequence, from the spread of its blocks' means."""
    means = nats.reshape(blocks, -1).mean(1)
    return float(means.std() / math.sqrt(blocks))


#: The default grammar; compiling it takes a second.
default_grammar = functools.cache(GrammarSource)


@pytest.fixture(scope="module")
def grammar() -> GrammarSource:
    return default_grammar()


@pytest.fixture(scope="module")
def reviews(grammar: GrammarSource) -> list[torch.Tensor]:
    """About 10**6 tokens."""
    return grammar.sample(42_000, generator=make_generator(11))


# --- Markov -------------------------------------------------------------------------------------


def test_two_state_markov_entropy_rate_equals_the_textbook_formula():
    # Leaves 0 with probability a and 1 with b: pi = (b, a) / (a + b) (Cover & Thomas, 4.2).
    a, b = 0.2, 0.5
    source = MarkovSource([[1 - a, a], [b, 1 - b]])

    def h(p: float) -> float:
        return -p * math.log(p) - (1 - p) * math.log(1 - p)

    assert source.entropy_rate() == pytest.approx((b * h(a) + a * h(b)) / (a + b), abs=1e-14)
    np.testing.assert_allclose(source.stationary, [b / (a + b), a / (a + b)], atol=1e-14)


@pytest.mark.parametrize("order", [1, 2])
def test_a_markov_source_scored_by_itself_gives_its_entropy_rate(order):
    source = random_markov(3, 4, order)
    nats = source.nats(source.sample(10**6, generator=make_generator(order)))
    # Three standard errors, here about .002 nats.
    error = block_standard_error(nats)
    assert error < 0.001
    assert abs(float(nats.mean()) - source.entropy_rate()) < 3 * error


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 3), order=st.integers(1, 3))
def test_markov_texts_of_each_length_have_total_probability_one(seed, size, order):
    source = random_markov(seed, size, order)
    for length in (1, 2, 3, 5):
        texts = list(itertools.product(range(size), repeat=length))
        with unchecked():
            logs = [source.log_prob(text) for text in texts]
        assert math.fsum(map(math.exp, logs)) == pytest.approx(1, abs=1e-10)
        best = source.most_probable(length)
        assert best.log_prob == pytest.approx(max(logs), abs=1e-10)
        assert source.log_prob(best.tokens) == pytest.approx(best.log_prob, abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    order=st.integers(1, 3),
    prefix=st.lists(st.integers(0, 2), max_size=6),
)
def test_markov_next_token_probabilities_are_ratios_of_text_probabilities(seed, order, prefix):
    source = random_markov(seed, 3, order)
    p = source.next_token_probs(prefix)
    ratios = [math.exp(source.log_prob([*prefix, w]) - source.log_prob(prefix)) for w in range(3)]
    np.testing.assert_allclose(p, ratios, atol=1e-10)
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)


def test_markov_samples_have_the_stationary_frequencies_from_the_first_token_on():
    source = random_markov(5, 3, 2)
    generator = make_generator(0)
    with unchecked():
        starts = torch.stack([source.sample(3, generator=generator) for _ in range(4000)])
    counts = np.zeros(27)
    np.add.at(counts, (starts[:, 0] * 9 + starts[:, 1] * 3 + starts[:, 2]).numpy(), 1)
    expected = 4000 * np.exp(
        [source.log_prob(text) for text in itertools.product(range(3), repeat=3)]
    )
    assert (((counts - expected) ** 2) / expected).sum() < chi_square_limit(26)


def test_an_ngram_of_order_k_plus_one_reaches_the_floor_of_a_markov_source_of_order_k():
    source = random_markov(8, 4, 2)
    train = source.sample(400_000, generator=make_generator(1))
    test = source.sample(100_000, generator=make_generator(2))
    own = float(source.nats(test).mean())
    excess = {}
    for order in (1, 2, 3, 4):
        model = NGramModel.fit(train, order=order, vocabulary_size=4, smoothing="kneser-ney")
        excess[order] = float(model.nats(test).mean()) - own
    # 16 contexts of 25,000 tokens: the excess is about 16 * 3 / (2 * 400,000) = .00006 nats.
    assert -0.0005 < excess[3] < 0.0005
    assert excess[2] > 0.02  # one token of memory is not enough
    assert excess[1] > excess[2]
    assert excess[4] < 0.002


def test_an_impossible_markov_text_has_no_probability_and_no_continuation():
    source = MarkovSource([[0, 1], [0.5, 0.5]], vocabulary=["a", "b"])
    assert source.log_prob(source.encode("a a b")) == -math.inf
    assert source.nats([0, 0, 1]).tolist()[1:] == [math.inf, math.inf]
    with pytest.raises(ValueError, match="never writes 'a a'"):
        source.next_token_probs([0, 0])
    assert (source.sample(2000, generator=make_generator(0)).diff() != 0).any()
    tokens = source.sample(2000, generator=make_generator(0)).tolist()
    assert (0, 0) not in set(itertools.pairwise(tokens))


# --- Hidden Markov ------------------------------------------------------------------------------


def brute_force(source: HiddenMarkovSource, text: tuple[int, ...]) -> float:
    """p(text) as a sum over every hidden path."""
    total = 0.0
    for path in itertools.product(range(len(source.stationary)), repeat=len(text)):
        p = source.stationary[path[0]]
        for here, there in itertools.pairwise(path):
            p *= source.transition[here, there]
        total += p * math.prod(source.emission[s, w] for s, w in zip(path, text, strict=True))
    return total


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    states=st.integers(2, 3),
    text=st.lists(st.integers(0, 2), min_size=1, max_size=6),
)
def test_forward_filtering_equals_the_sum_over_hidden_paths(seed, states, text):
    source = random_hidden(seed, states, 3)
    assert math.exp(source.log_prob(text)) == pytest.approx(
        brute_force(source, tuple(text)), rel=1e-10
    )
    longer = [brute_force(source, (*text, w)) / brute_force(source, tuple(text)) for w in range(3)]
    np.testing.assert_allclose(source.next_token_probs(text), longer, rtol=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), states=st.integers(1, 4), size=st.integers(2, 3))
def test_hidden_markov_texts_have_total_probability_one_and_the_best_is_the_best(
    seed, states, size
):
    source = random_hidden(seed, states, size)
    for length in (1, 2, 5):
        with unchecked():
            logs = [source.log_prob(t) for t in itertools.product(range(size), repeat=length)]
        assert math.fsum(map(math.exp, logs)) == pytest.approx(1, abs=1e-10)
        best = source.most_probable(length)
        assert best.log_prob == pytest.approx(max(logs), abs=1e-10)
        assert source.log_prob(best.tokens) == pytest.approx(max(logs), abs=1e-10)


def block_entropies(source: HiddenMarkovSource, n: int) -> tuple[float, float]:
    """H(X_n | X_1..n-1, S_1) and H(X_n | X_1..n-1), by enumeration: Cover & Thomas' two bounds."""

    def entropy(length: int, start: np.ndarray) -> float:
        alpha = start[None]  # p(text, next hidden state)
        for _ in range(length):
            alpha = np.einsum("xi,iw,ij->xwj", alpha, source.emission, source.transition)
            alpha = alpha.reshape(-1, len(start))
        p = alpha.sum(1)
        return float(-(p * np.log(p)).sum())

    upper = entropy(n, source.stationary) - entropy(n - 1, source.stationary)
    lower = sum(
        share * (entropy(n, row) - entropy(n - 1, row))
        for share, row in zip(source.stationary, np.eye(len(source.stationary)), strict=True)
    )
    return lower, upper


@pytest.mark.parametrize(
    ("states", "size", "stay"), [(2, 3, 0.9), (3, 3, 0.3), (3, 4, 0.7), (4, 3, 0.4)]
)
def test_hidden_markov_bounds_agree_with_enumerated_block_entropies(states, size, stay):
    source = random_hidden(7, states, size, stay)
    lower, upper, _ = source.entropy_bounds()
    assert 0 < upper - lower <= 1e-4
    for n in (1, 2, 4, 8):
        low, high = block_entropies(source, n)
        # Both intervals hold the true rate, so they overlap; ours is the tighter one at last.
        assert low <= upper + 1e-9
        assert lower <= high + 1e-9
    assert source.entropy_rate() == pytest.approx((lower + upper) / 2, abs=1e-15)


def test_a_hidden_markov_source_scored_by_itself_gives_its_entropy_rate():
    source = random_hidden(2, 3, 4, 0.8)
    nats = source.nats(source.sample(10**6, generator=make_generator(4)))
    error = block_standard_error(nats)
    assert error < 0.002
    assert abs(float(nats.mean()) - source.entropy_rate()) < 3 * error + 5e-5


def test_a_hidden_markov_source_that_shows_its_state_has_the_markov_entropy():
    transition = [[0.7, 0.2, 0.1], [0.3, 0.3, 0.4], [0.05, 0.9, 0.05]]
    hidden = HiddenMarkovSource(transition, np.eye(3))
    # Half the width of the bounds.
    assert hidden.entropy_rate() == pytest.approx(MarkovSource(transition).entropy_rate(), abs=5e-5)


def test_entropy_rate_refuses_when_the_bounds_stay_apart():
    source = random_hidden(1, 3, 3, 0.9)
    wide = source.entropy_bounds(max_beliefs=1)
    assert wide.upper - wide.lower > 1e-4
    source.__dict__["_default_bounds"] = wide
    with pytest.raises(ValueError, match="only known to lie in"):
        source.entropy_rate()


def test_hidden_states_are_sampled_by_their_own_law():
    source = random_hidden(9, 3, 4)
    tokens, states = source.sample_with_states(60_000, generator=make_generator(3))
    counts = np.zeros((3, 3, 4))
    np.add.at(counts, (states[:-1].numpy(), states[1:].numpy(), tokens[1:].numpy()), 1)
    visits = counts.sum((1, 2), keepdims=True)
    expected = visits * source.transition[:, :, None] * source.emission[None]
    assert (((counts - expected) ** 2) / expected).sum() < chi_square_limit(3 * 11)


# --- Automata -----------------------------------------------------------------------------------


WEIGHT = st.one_of(st.just(0.0), st.floats(0.05, 1))
#: Tables of automata of 1-4 states over 3 tokens: any transitions, an end from everywhere.
TABLES = st.lists(
    st.tuples(st.floats(0.1, 1), WEIGHT, WEIGHT, st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=4,
)


def small_automaton(table, end: float = 0.0) -> AutomatonSource:
    """The automaton of a table, `end` added to the weight of ending in every state."""
    p = torch.tensor([row[:3] for row in table], dtype=torch.float64)
    p[:, END_ID] += end
    p = p / p.sum(1, keepdim=True)
    targets = torch.tensor([[0, row[3], row[4]] for row in table]).clamp(max=len(table) - 1)
    return AutomatonSource(["<end>", "a", "b"], p, torch.where(p > 0, targets, -1))


@settings(max_examples=40, deadline=None)
@given(table=TABLES)
def test_automaton_sums_equal_the_linear_system(table):
    source = small_automaton(table)
    # visits = start + visits * P without the end: an independent way to the same expectations.
    states = source.num_states
    step = np.zeros((states, states))
    for s in range(states):
        for w in (1, 2):
            if source.transition_probs[s, w] > 0:
                step[s, int(source.transition_states[s, w])] += float(source.transition_probs[s, w])
    visits = np.linalg.solve(np.eye(states) - step.T, np.eye(states)[0])
    np.testing.assert_allclose(source.visits, visits, atol=1e-10)
    p = source.transition_probs.numpy()
    entropy = -(visits @ (p * np.log(np.where(p > 0, p, 1))).sum(1))
    assert source.entropy_per_text() == pytest.approx(entropy, abs=1e-10)
    assert source.entropy_rate() == pytest.approx(entropy / visits.sum(), abs=1e-10)
    assert source.mean_length() == pytest.approx(visits.sum(), abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(table=TABLES, length=st.integers(1, 6))
@pytest.mark.slow
def test_automaton_best_text_and_stream_equal_brute_force(table, length):
    source = small_automaton(table)
    with unchecked():
        streams = {t: source.log_prob(t) for t in itertools.product(range(3), repeat=length)}
    assert math.fsum(map(math.exp, streams.values())) == pytest.approx(1, abs=1e-10)
    best = source.most_probable(length)
    assert best.log_prob == pytest.approx(max(streams.values()), abs=1e-10)
    assert source.log_prob(best.tokens) == pytest.approx(best.log_prob, abs=1e-10)
    whole = source.most_probable()
    assert source.is_legal(whole.tokens, complete=True)
    assert source.log_prob(whole.tokens) == pytest.approx(whole.log_prob, abs=1e-10)
    texts = [(*words, END_ID) for n in range(6) for words in itertools.product((1, 2), repeat=n)]
    with unchecked():
        assert whole.log_prob >= max(source.log_prob(text) for text in texts) - 1e-12


@settings(max_examples=30, deadline=None)
@given(one=TABLES, other=TABLES)
def test_automaton_divergence_equals_the_sum_over_texts(one, other):
    # Going on has at most probability 2 / 22, so texts of more than five words (6e-7 of them, each
    # word worth less than ln 40) change the sum by less than 1e-4.
    p, q = small_automaton(one, end=20), small_automaton(other, end=20)
    found = p.kl_divergence(q)
    assert p.kl_divergence(p) == pytest.approx(0, abs=1e-12)
    total = 0.0
    for n in range(6):
        for words in itertools.product((1, 2), repeat=n):
            with unchecked():
                mine, theirs = p.log_prob((*words, END_ID)), q.log_prob((*words, END_ID))
            if mine > -math.inf:
                total += math.exp(mine) * (mine - theirs)
    if total == math.inf:
        assert found == math.inf
    elif found < math.inf:
        assert found * p.mean_length() == pytest.approx(total, abs=1e-4)


def test_divergence_between_two_small_automata_equals_the_hand_computation():
    # Texts a^n <end>, going on with probability 1/2 and 1/4: KL per state is
    # .5 ln 2 + .5 ln(2/3), each text of p visits two states, and has two tokens.
    def geometric(go_on: float) -> AutomatonSource:
        p = torch.tensor([[1 - go_on, go_on]], dtype=torch.float64)
        return AutomatonSource(["<end>", "a"], p, torch.tensor([[0, 0]]))

    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert geometric(0.5).mean_length() == pytest.approx(2)
    assert geometric(0.5).kl_divergence(geometric(0.25)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("p", "target", "message"),
    [
        ([[0.5, 0.6]], [[0, 0]], "sum to 1"),
        ([[0.5, 0.5]], [[0, 1]], "name a state"),
        ([[0.5, 0.5]], [[0, -1]], "name a state"),
        ([[0.5, 0.5], [0.5, 0.5]], [[1, 0], [0, 0]], "back to state 0"),
        ([[0.5, 0.5], [0, 1.0]], [[0, 1], [-1, 1]], "from state 1 none can"),
        ([[1.0]], [[0]], "vocab = 2"),
    ],
)
def test_a_table_that_is_no_automaton_is_refused(p, target, message):
    with pytest.raises(ValueError, match=message):
        AutomatonSource(["<end>", "a"], torch.tensor(p), torch.tensor(target))


def test_rows_that_sum_to_one_within_rounding_are_normalised():
    """Were they not, a row of 1.000006 whose end is rarer than that would never end."""
    p = torch.tensor([[0.001, 0.999006]], dtype=torch.float64)
    source = AutomatonSource(["<end>", "a"], p, torch.tensor([[0, 0]]))
    assert float(source.transition_probs.sum()) == pytest.approx(1, abs=1e-15)
    # Geometric: 1 / p(end) tokens; 1,006 where going on has the probability that was given.
    assert source.mean_length() == pytest.approx(1000.006, rel=1e-9)


def test_a_source_stays_as_it_is_when_the_tables_it_was_made_of_change():
    p, targets = torch.tensor([[0.5, 0.5]], dtype=torch.float64), torch.tensor([[0, 0]])
    source = AutomatonSource(["<end>", "a"], p, targets)
    p[0, 0], targets[0, 1] = 0.9, -1
    assert source.transition_probs.tolist() == [[0.5, 0.5]]
    assert source.transition_states.tolist() == [[0, 0]]


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_extreme_draws_stay_within_their_state(draw, monkeypatch):
    """The other states cannot write what state 0 can, whose six sixths add up to more than 1."""
    sixths, others = [1 / 6] * 6 + [0.0] * 2, [0.5] + [0.0] * 5 + [0.25] * 2
    p = torch.tensor([sixths, others, others], dtype=torch.float64)
    targets = torch.tensor([[0, 1, 1, 1, 1, 1, -1, -1], *[[0, -1, -1, -1, -1, -1, 2, 2]] * 2])
    source = AutomatonSource(["<end>", *"abcdefg"], p, targets)
    draws = iter([0.5, draw, draw])

    def rand(n, **_):
        return torch.full((n,), next(draws, 0.25), dtype=torch.float64)

    monkeypatch.setattr(torch, "rand", rand)
    (text,) = source.sample(1, generator=torch.Generator())
    assert source.is_legal(text, complete=True)


# --- The review grammar -------------------------------------------------------------------------


def test_the_default_grammar_has_the_size_the_book_states(grammar):
    assert grammar.vocabulary == list(VOCABULARY)
    assert len(VOCABULARY) == 131
    assert len(set(VOCABULARY)) == 131
    assert VOCABULARY[END_ID] == "<end>"
    assert grammar.entropy_rate() == pytest.approx(2.179, abs=0.001)
    assert grammar.mean_length() == pytest.approx(24.0, abs=0.01)


def test_every_state_of_the_grammar_has_probabilities_that_sum_to_one(grammar):
    sums = grammar.transition_probs.sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-12)
    assert (grammar.visits > 0).all()  # the compiler makes no state that no text visits


def test_a_grammar_scored_by_itself_gives_its_entropy(grammar, reviews):
    lengths = torch.tensor([len(text) for text in reviews], dtype=torch.float64)
    nats = -grammar.log_probs(reviews)
    assert lengths.sum() > 10**6
    # Per token it is a ratio of two means over texts; its standard error by the delta method.
    rate = grammar.entropy_rate()
    residual = nats - rate * lengths
    error = float(residual.std() / math.sqrt(len(reviews)) / lengths.mean())
    assert error < 0.001
    assert abs(float(nats.sum() / lengths.sum()) - rate) < 3 * error
    error = float(lengths.std() / math.sqrt(len(reviews)))
    assert abs(float(lengths.mean()) - grammar.mean_length()) < 3 * error


def test_the_batched_walk_the_single_one_and_log_prob_agree(grammar, reviews):
    texts = [*reviews[:30], reviews[0][:4], torch.tensor([1, 1, 0])]
    padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    states, logs = grammar.walk(padded), grammar.log_probs(texts)
    for i, text in enumerate(texts):
        assert torch.equal(grammar.walk(text), states[i, : len(text)])
        assert grammar.log_prob(text) == pytest.approx(float(logs[i]), abs=1e-9)
        if i < 31:
            assert grammar.state_after(text[:3]) == int(states[i, 3])
    assert logs[31] == -math.inf
    # Two texts after each other are as probable as each, and leave the walk at the start.
    both = torch.cat(texts[:2])
    assert grammar.log_prob(both) == pytest.approx(float(logs[0] + logs[1]), abs=1e-9)
    assert grammar.state_after(both) == 0


def test_samples_visit_tokens_as_often_as_the_grammar_says(grammar, reviews):
    # First tokens are independent over texts, so Pearson's test applies to them; and so are the
    # tokens drawn in one state.
    first = torch.bincount(torch.stack([text[0] for text in reviews]), minlength=131).double()
    expected = len(reviews) * grammar.next_token_probs([])
    seen = expected > 0
    assert first[~seen].sum() == 0
    chi_square = (((first - expected) ** 2) / expected)[seen].sum()
    assert chi_square < chi_square_limit(int(seen.sum()) - 1)
    prefix = grammar.encode("the")
    second = torch.tensor([int(text[1]) for text in reviews if int(text[0]) == prefix[0]])
    counts = torch.bincount(second, minlength=131).double()
    expected = len(second) * grammar.next_token_probs(prefix)
    seen = expected > 0
    assert counts[~seen].sum() == 0
    chi_square = (((counts - expected) ** 2) / expected)[seen].sum()
    assert chi_square < chi_square_limit(int(seen.sum()) - 1)


def test_the_most_probable_review_beats_every_sample(grammar, reviews):
    best = grammar.most_probable()
    assert grammar.decode(best.tokens) == "it is great . <end>"
    assert grammar.log_prob(best.tokens) == pytest.approx(best.log_prob, abs=1e-12)
    more = grammar.sample(60_000, generator=make_generator(12))
    assert len(reviews) + len(more) > 10**5
    samples = torch.cat([grammar.log_probs(reviews), grammar.log_probs(more)])
    assert float(samples.max()) <= best.log_prob + 1e-12
    assert -best.log_prob < -math.log(5e-4)
    prefix = grammar.encode("the directors who")
    rest = grammar.most_probable(prefix=prefix)
    assert rest.tokens[:3] == prefix
    assert rest.tokens[-1] == END_ID
    assert grammar.log_prob(rest.tokens) == pytest.approx(rest.log_prob, abs=1e-12)


def derivations(grammar: ReviewGrammar, floor: float):
    """Every text of probability >= floor, once for each derivation: straight from the rules."""
    ways = functools.cache(grammar.ways)
    unfinished = [((), "0", grammar.start, 1.0)]
    while unfinished:
        words, opinion, stack, p = unfinished.pop()
        if not stack or words[-1:] == ("<end>",):
            yield words, p
        elif isinstance(top := stack[0], str):
            unfinished.append(((*words, top), OPINIONS.get(top, opinion), stack[1:], p))
        else:
            unfinished += [
                (words, opinion, right + stack[1:], p * share)
                for share, right in ways(top, opinion)
                if p * share >= floor
            ]


@pytest.mark.parametrize("depth", [0, 1])
def test_the_automaton_gives_every_text_the_probability_of_its_one_derivation(depth):
    rules = ReviewGrammar(GrammarConfig(depth=depth, another_sentence=0.2))
    with unchecked():
        source = GrammarSource(rules.config)
    found: dict[tuple[str, ...], float] = {}
    for words, p in derivations(rules, 2e-5):
        assert words not in found, f"two derivations of {words}"  # unambiguous
        found[words] = p
    assert len(found) > 1000
    with unchecked():
        for words, p in found.items():
            assert source.log_prob(source.encode(" ".join(words))) == pytest.approx(
                math.log(p), abs=1e-9
            )
    best = source.most_probable()
    assert best.log_prob == pytest.approx(math.log(max(found.values())), abs=1e-9)
    assert tuple(source.decode(best.tokens).split()) == max(found, key=lambda words: found[words])


def test_the_compiler_refuses_an_ambiguous_grammar():
    class Ambiguous(ReviewGrammar):
        def _relative(self, opinion, number, kind, depth):
            (p, right), other = super()._relative(opinion, number, kind, depth)
            return [(p / 2, right), (p / 2, right), other]

    with pytest.raises(ValueError, match="ambiguous grammar"):
        compile_grammar(Ambiguous(GrammarConfig()))


GOOD = [
    "the films by the director are great .",
    "the critic who the old actors behind the song admire loves this film .",
    "it is dull and terrible . they mock it .",
    "overall , the gripping old french story that some writers praise charms every viewer .",
    "i love the film that moves these young critics .",
    "these films that move the critic were funny .",
    "they remember the heroes who are charming .",
    "the film that every critic loves is great .",
]
BAD = {
    "number across a phrase": "the films by the director is",
    "number in a relative clause": "the film that move",
    "number in a plural relative clause": "the films that moves",
    "number of a copula in a relative clause": "the heroes who is",
    "number of the verb after a left-out object": "the film that the actors loves",
    "number of the verb of one who acts on several": "the films that this actor love",
    "number across a relative clause": "the critic who the actors admire love",
    "who is for people": "the film who",
    "that is for works": "the critic that",
    "works do not watch": "the film watches",
    "nobody bores a work": "the film bores the film",
    "order of adjectives": "the old great",
    "young is for people": "the young film",
    "the opinion persists": "it is dull . it is great",
    "the opinion persists from an adjective to a verb": "the wonderful film bores",
    "these wants a plural": "these film",
    "no word twice over and": "it is dull and dull",
    "no third level": "the critic in the film about the song by",
    "speakers do not describe themselves": "i are",
    "a sentence has a verb": "the film .",
}


@pytest.mark.parametrize("text", GOOD)
def test_grammatical_reviews_are_legal(grammar, text):
    tokens = grammar.encode(text)
    assert grammar.is_legal(tokens)
    assert not grammar.is_legal(tokens, complete=True)
    assert grammar.is_legal([*tokens, END_ID], complete=True)
    assert grammar.log_prob([*tokens, END_ID]) > -math.inf
    assert grammar.decode(tokens) == text


@pytest.mark.parametrize("why", BAD)
def test_each_rule_of_the_grammar_is_kept(grammar, why):
    tokens = grammar.encode(BAD[why])
    assert grammar.is_legal(tokens[:-1])
    assert not grammar.is_legal(tokens)
    assert grammar.log_prob(tokens) == -math.inf
    assert int(grammar.walk(torch.tensor([*tokens, 1]))[-1]) == -1
    with pytest.raises(ValueError, match="never writes"):
        grammar.next_token_probs(tokens)


def test_the_opinion_of_a_review_is_that_of_all_its_words(grammar, reviews):
    tally = {"+": 0, "-": 0, "0": 0}
    for text in reviews[:3000]:
        opinion = grammar.opinion(text)
        tally[opinion] += 1
        words = {OPINIONS.get(word) for word in grammar.decode(text).split()} - {None}
        assert words == (set() if opinion == "0" else {opinion})
    # A share of .55 of n opinions, within four standard deviations.
    n = tally["+"] + tally["-"]
    assert abs(tally["+"] - 0.55 * n) < 4 * math.sqrt(n * 0.55 * 0.45)
    assert 0 < tally["0"] < 300


def test_divergence_and_illegal_mass_of_known_distributions(grammar, reviews):
    text = reviews[0]
    states = grammar.walk(text)
    p = grammar.transition_probs[states]
    torch.testing.assert_close(grammar.kl_from(p.log(), states), torch.zeros(len(text)).double())
    assert float(grammar.illegal_mass(p, states).abs().max()) == 0
    uniform = torch.full((len(text), 131), 1 / 131)
    entropy = -torch.xlogy(p, p).sum(1)
    torch.testing.assert_close(
        grammar.kl_from(uniform.log(), states), math.log(131) - entropy, rtol=0, atol=1e-6
    )
    legal = (p > 0).sum(1)
    torch.testing.assert_close(
        grammar.illegal_mass(uniform, states), 1 - legal / 131, rtol=0, atol=1e-6, check_dtype=False
    )


@pytest.mark.parametrize(
    ("shift", "smallest", "largest"),
    [
        ({"adjective_exponent": -0.7}, 0.02, 0.5),
        ({"noun_exponent": -0.7}, 0.02, 0.5),
        ({"relative_clause": 0.4}, 0.005, 0.5),
        ({"relative_clause": 0.0, "prepositional_phrase": 0.0}, 0.001, 0.5),
        ({"depth": 3}, math.inf, math.inf),
        ({"adjective_order": ("age", "origin", "opinion")}, math.inf, math.inf),
    ],
)
def test_a_shifted_grammar_has_a_divergence_that_a_perfect_model_pays(
    grammar, shift, smallest, largest
):
    with unchecked():
        shifted = GrammarSource(GrammarConfig(**shift))
    unavoidable = shifted.kl_divergence(grammar)
    assert smallest <= unavoidable <= largest
    if math.isfinite(unavoidable):
        # Cross-entropy of a sample under the old source = new entropy + KL.
        texts = shifted.sample(4000, generator=make_generator(5))
        tokens = sum(map(len, texts))
        excess = shifted.log_probs(texts) - grammar.log_probs(texts)
        error = float(excess.std()) * math.sqrt(len(texts)) / tokens
        assert abs(float(excess.sum()) / tokens - unavoidable) < 4 * error


def test_depth_and_zero_probabilities_shape_the_automaton(grammar):
    with unchecked():
        flat = GrammarSource(GrammarConfig(depth=0))
        without = GrammarSource(GrammarConfig(relative_clause=0.0, prepositional_phrase=0.0))
    assert flat.num_states < 1000 < grammar.num_states
    assert without.entropy_rate() == pytest.approx(flat.entropy_rate(), abs=1e-12)
    assert not flat.is_legal(flat.encode("the film that"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": -1}, "depth must be >= 0, got -1"),
        ({"plural": 1.5}, "plural must be a probability in \\[0, 1\\], got 1.5"),
        ({"another_sentence": 1.0}, "never ends"),
        ({"relative_clause": 0.7, "prepositional_phrase": 0.4}, "must be <= 1, got 1.1"),
        ({"adjective_order": ("age", "age")}, "each once"),
        ({"adjective_order": ("size",)}, "adjective_order must hold some of"),
    ],
)
def test_bad_grammar_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GrammarConfig(**arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MarkovSource([[0.5, 0.6], [0.5, 0.5]]),
            "row of transition must be >= 0 and sum to 1",
        ),
        (lambda: MarkovSource([[0.5, 0.5]] * 3), "needs 2 rows, got 3"),
        (lambda: MarkovSource(np.eye(2)), "more than one distribution is stationary"),
        (lambda: MarkovSource([[1.0]], order=0), "order must be >= 1, got 0"),
        (lambda: MarkovSource([[0.5, 0.5]] * 2, vocabulary=["a", "a"]), "2 different words"),
        (lambda: HiddenMarkovSource(np.eye(2), [[0.5, 0.5]] * 2), "more than one distribution"),
        (lambda: HiddenMarkovSource([[1.0]], [[0.5, 0.5]] * 2), r"\[states, states\] and emission"),
        (lambda: random_markov(0, 3, 1).log_prob([3]), r"in \[0, 3\), got 3"),
        (lambda: random_markov(0, 3, 1).encode("0 x"), "vocabulary: x"),
        (lambda: random_markov(0, 3, 1).sample(0, generator=make_generator(0)), "n must be >= 1"),
        (lambda: default_grammar().encode("the movie"), "vocabulary: movie"),
        (lambda: default_grammar().log_prob([131]), r"in \[0, 131\), got 131"),
    ],
)
def test_bad_sources_and_texts_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_seed_gives_one_sample(grammar):
    for source, n in ((grammar, 50), (random_markov(1, 3, 2), 200), (random_hidden(1, 2, 3), 200)):
        one, same, other = (source.sample(n, generator=make_generator(s)) for s in (1, 1, 2))
        join = torch.cat if isinstance(one, list) else torch.atleast_1d
        assert torch.equal(join(one), join(same))
        assert not torch.equal(join(one), join(other))


def test_the_lexicon_gives_each_form_one_opinion_and_part_of_speech():
    forms = [
        (form, key)
        for table in (NOUNS, VERBS, ADJECTIVES)
        for key, entry in table.items()
        for word in entry.split()
        for form in word.split("/")
    ]
    assert len({form for form, _ in forms}) == len(forms)


def test_two_automata_with_other_words_have_no_kl() -> None:
    p, states = torch.full((1, 2), 0.5), torch.tensor([[0, 0]])
    one, other = (AutomatonSource(["<end>", word], p, states) for word in "ab")
    assert one.kl_divergence(one) == 0
    with pytest.raises(ValueError, match="must have the same vocabulary in the same order"):
        one.kl_divergence(other)
