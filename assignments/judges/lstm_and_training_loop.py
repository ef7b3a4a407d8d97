"""Judge of *an LSTM cell, its state, and a training loop with bugs*."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from assignments.judges.shared import letters, times
from companion.teaching.checks import Mistake
from companion.teaching.marking import Task

# --- 1. the cell ---------------------------------------------------------------------------------


def some_tensors(generator: np.random.Generator, *shapes: tuple[int, ...]) -> tuple[Any, ...]:
    """Normal float32 tensors."""
    return tuple(torch.tensor(generator.normal(size=s), dtype=torch.float32) for s in shapes)


def some_cell(generator: np.random.Generator) -> tuple[Any, ...]:
    """An input, states and weights."""
    return some_tensors(generator, (3, 2), (3, 4), (3, 4), (16, 2), (16, 4), (16,))


def step(x: Any, h: Any, c: Any, W: Any, U: Any, b: Any, bug: str = "") -> tuple[Any, Any]:
    """One step, and mistakes in it."""
    parts = (x @ W.T + h @ U.T + b).chunk(4, dim=-1)
    orders = {"ifog": (0, 1, 3, 2), "figo": (1, 0, 2, 3), "igfo": (0, 2, 1, 3)}
    i, f, g, o = (parts[n] for n in orders.get(bug, (0, 1, 2, 3)))
    g = g.sigmoid() if bug == "candidate" else g.tanh()
    c = f.sigmoid() * c + i.sigmoid() * g
    return o.sigmoid() * (c if bug == "tanh" else c.tanh()), c


def with_bug(bug: str) -> Any:
    """`step` with a mistake."""
    return lambda *case: step(*case, bug=bug)


ORDER = "the quarters of z are the gates in another order; torch's is i, f, g, o"
STEP_MISTAKES = (
    *(Mistake(with_bug(bug), ORDER) for bug in ("ifog", "figo", "igfo")),
    Mistake(with_bug("candidate"), "the candidate goes through tanh; only gates are sigmoids"),
    Mistake(with_bug("tanh"), "the output gate multiplies tanh(c'), not c' itself"),
    Mistake(lambda *case: step(*case)[::-1], "the pair is (c, h); return (h, c)"),
    Mistake(
        lambda x, h, c, W, U, b: step(x, h * 0, c, W, U, b),
        "the state h is not used: add h @ U.T",
    ),
)


def gradient(student, x, h, c, W, U, b):  # type: ignore[no-untyped-def]  # noqa: D103
    W = W.clone().requires_grad_()
    new_h, new_c = student.lstm_step(x, h, c, W, U, b)
    (new_h.sum() + 2 * new_c.sum()).backward()
    return W.grad


def right_gradient(*case: Any) -> Any:
    """The gradient of the judge's own cell."""
    return gradient(SimpleNamespace(lstm_step=step), *case)


# --- 2. over time --------------------------------------------------------------------------------


def some_run(generator: np.random.Generator) -> tuple[Any, ...]:
    """As many rows as times, so that a swapped axis is not an error but a number."""
    return some_tensors(generator, (5, 5, 2), (5, 4), (5, 4), (16, 2), (16, 4), (16,))


def run(inputs: Any, h: Any, c: Any, *weights: Any, dim: int = 1, carry: bool = True) -> Any:
    """Outputs and states, and mistakes in them."""
    outputs, start = [], (h, c)
    for x in inputs.unbind(dim):
        h, c = step(x, *((h, c) if carry else start), *weights)
        outputs.append(h)
    return torch.stack(outputs, dim), h, c


def run_over_time(student, inputs, h, c, W, U, b):  # type: ignore[no-untyped-def]  # noqa: D103
    def lstm_step(x, h, c, W, U, b):  # type: ignore[no-untyped-def]
        i, f, g, o = (x @ W.T + h @ U.T + b).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c

    # A mistake in the cell is not charged twice.
    student.use("lstm_step", lstm_step)
    return student.run_lstm(inputs, h, c, W, U, b)


RUN_MISTAKES = (
    Mistake(
        lambda *case: run(*case, dim=0),
        "batch and time are swapped: the loop runs over the first axis, and time is the second",
    ),
    Mistake(
        lambda *case: run(*case, carry=False),
        "every time starts from the first state; carry (h, c) on",
    ),
    Mistake(
        lambda *case: (run(*case)[0].transpose(0, 1), *run(*case)[1:]),
        "the outputs have time first; stack them along dim=1",
    ),
)


# --- 3. streams ----------------------------------------------------------------------------------


def some_text(generator: np.random.Generator, size: int = 0) -> tuple[Any, ...]:
    """A text for three streams, and a length of windows that leaves a shorter last one."""
    size = size or int(generator.integers(44, 60))
    length = int(generator.choice([n for n in (4, 5) if (size - 1) // 3 % n]))
    return torch.tensor(generator.integers(90, size=size)), 3, length


def some_texts(generator: np.random.Generator) -> list[tuple[Any, ...]]:
    """Three texts; the number of streams divides the length of one."""
    thrice = 3 * int(generator.integers(15, 20))
    return [some_text(generator), some_text(generator), some_text(generator, thrice)]


def windows(ids: Any, rows: int, length: int, bug: str = "") -> list[tuple[Any, Any]]:
    """Windows of streams, and mistakes in them."""
    size = (len(ids) - 1) // rows
    inputs, targets = ids[: size * rows], ids[1 : size * rows + 1]
    if bug == "copied":
        targets = inputs
    if bug == "two ahead":
        targets = torch.cat([ids[2:], ids[:1]])[: size * rows]
    if bug == "interleaved":
        inputs, targets = (each.view(size, rows).T for each in (inputs, targets))
    inputs, targets = inputs.reshape(rows, size), targets.reshape(rows, size)
    stop = size - size % length if bug == "whole only" else size
    return [(inputs[:, t : t + length], targets[:, t : t + length]) for t in range(0, stop, length)]


def windows_with(bug: str) -> Any:
    """`windows` with a mistake."""
    return lambda *case: windows(*case, bug=bug)


WINDOW_MISTAKES = (
    Mistake(
        windows_with("interleaved"),
        "the tokens were dealt out one to each row, so no row is a text; give each row a "
        "contiguous piece: view(num_streams, size)",
    ),
    Mistake(windows_with("copied"), "the targets are the inputs; they are one token ahead"),
    Mistake(windows_with("two ahead"), "the targets are two tokens ahead, off by one"),
    Mistake(windows_with("whole only"), "the last window is missing: it may be shorter"),
)


# --- 4. the loop ---------------------------------------------------------------------------------


def some_loop(generator: np.random.Generator) -> tuple[Any, ...]:
    """A seed, windows of a text that differ in length, and a norm that clips."""
    ids = torch.tensor(generator.integers(5, size=91))
    pairs = windows(ids, 3, 7)
    return int(generator.integers(2**31)), pairs, 0.3


def one_window(generator: np.random.Generator) -> tuple[Any, ...]:
    """The first window alone, so that nothing that goes wrong later is seen."""
    seed, pairs, max_norm = some_loop(generator)
    return seed, pairs[:1], max_norm, True


def run_loop(student, seed, pairs, max_norm, first=False):  # type: ignore[no-untyped-def]  # noqa: D103
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self):  # type: ignore[no-untyped-def]
            super().__init__()
            self.embedding = nn.Embedding(5, 8)
            self.rnn = nn.RNN(8, 8, batch_first=True)
            self.head = nn.Linear(8, 5)

        def forward(self, inputs, state=None):  # type: ignore[no-untyped-def]
            outputs, state = self.rnn(self.embedding(inputs), state)
            # Dropout without chance: half of the units, the same each time, and 1 / (1 - 1/2).
            if self.training:
                outputs = outputs * torch.tensor([0.0, 2.0] * 4)
            return self.head(outputs), state

    torch.set_default_dtype(torch.float32)  # a cell may have set another
    torch.manual_seed(seed)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    losses = student.train_epoch(model, optimizer, pairs, max_norm)
    if first:
        return float(losses[0])
    parameters = torch.cat([p.detach().flatten() for p in model.parameters()])
    return [float(loss) for loss in losses], parameters


def train_epoch(model: Any, optimizer: Any, pairs: Any, max_norm: float, bug: str = "") -> Any:
    """The loop, and mistakes in it."""
    model.train(bug != "eval")
    losses, state = [], None
    for inputs, targets in pairs:
        if state is not None:
            state = None if bug == "no state" else state.detach()
        logits, state = model(inputs, state)
        nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
        loss = nats / (len(targets) if bug == "rows" else targets.numel())
        if bug != "no zero_grad":
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if bug == "clip after":
            optimizer.step()
        if bug != "no clip":
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        if bug != "clip after":
            optimizer.step()
        losses.append(loss.item())
    return losses


def loop_with(bug: str) -> Any:
    """What the loop with a mistake gives."""

    def train(*arguments: Any) -> Any:
        return train_epoch(*arguments, bug=bug)

    return lambda *case: run_loop(SimpleNamespace(train_epoch=train), *case)


FIRST_MISTAKES = (
    Mistake(
        loop_with("eval"),
        "dropout is off: model.eval() is for measuring, model.train() for training",
    ),
    Mistake(
        loop_with("rows"),
        "the sum is divided by the number of rows; divide by the number of targets, "
        "targets.numel()",
    ),
)
LOOP_MISTAKES = (
    *(
        Mistake(loop_with(bug), words)
        for bug, words in {
            "eval": FIRST_MISTAKES[0].hint,
            "rows": FIRST_MISTAKES[1].hint,
            "no state": "the state is set to None at each window; carry it on, detached",
            "no zero_grad": "gradients add up over the windows; call optimizer.zero_grad()",
            "clip after": "the gradient is clipped after the step, which used it unclipped",
            "no clip": "the gradient is not clipped",
        }.items()
    ),
)

REASONS = {
    "A": "a wrong state is as good a start as any, and remembers another text",
    "B": "more training helps both, and tells nothing of memory",
    "C": "late in a window both have read many tokens of it; what is left is older memory",
    "D": "the number of streams changes neither what is remembered nor the window's edge",
}

TASKS = [
    Task(
        name="the cell", cell="cell-test", points=4, answer="lstm_step",
        cases=times(3, some_cell), reference=step, tolerance=1e-4, mistakes=STEP_MISTAKES,
        hint="c' = f c + i g and h' = o tanh(c')",
    ),
    Task(
        name="the cell's gradient", cell="cell-test", points=1, answer="lstm_step",
        cases=times(2, some_cell), reference=right_gradient, driver=gradient, tolerance=1e-3,
        hint="does a gradient flow? look for detach(), item(), .data and torch.tensor(...)",
    ),
    Task(
        name="over time", cell="over-time-test", points=3, answer="run_lstm",
        cases=times(2, some_run), reference=run, driver=run_over_time,
        tolerance=1e-4, mistakes=RUN_MISTAKES,
        hint="lstm_step at each time, from the states of the time before",
    ),
    Task(
        name="streams and windows", cell="streams-test", points=4, answer="windows",
        cases=some_texts, reference=windows, mistakes=WINDOW_MISTAKES,
        hint="contiguous rows, targets one ahead, windows side by side",
    ),
    Task(
        name="the loop: the first loss", cell="loop-test", points=2, answer="train_epoch",
        cases=times(2, one_window), reference=loop_with(""), driver=run_loop,
        tolerance=1e-4, mistakes=FIRST_MISTAKES,
        hint="the mean surprisal of the window's targets, with dropout on, before the step",
    ),
    Task(
        name="the loop: all that follows", cell="loop-test", points=4, answer="train_epoch",
        cases=times(2, some_loop), reference=loop_with(""), driver=run_loop, tolerance=1e-3,
        mistakes=LOOP_MISTAKES,
        hint="more than one bug is left; or, where it says 'backward a second time', the state "
        "is not detached",
    ),
    Task(
        name="a control", cell="control-test", points=2, answer="controls",
        judged=letters("controls", {"A", "C"}, REASONS),
    ),
]  # fmt: skip
