"""Plausible wrong submissions: an edit of the reference, what it loses, and the hint it gets."""

from assignments.tried import Tried

FIRST, REST = "the loop: the first loss", "the loop: all that follows"
CARRIED = "        state = None if state is None else state.detach()\n"

TRIED = [
    Tried(
        name="gates in another order",
        edits=[("cell", "i, f, g, o = (", "i, f, o, g = (")],
        lost={
            "the cell": "torch's is i, f, g, o",
            "the cell's gradient": "does a gradient flow",
        },
    ),
    Tried(
        name="tanh of the memory forgotten",
        edits=[("cell", "o.sigmoid() * c.tanh(), c", "o.sigmoid() * c, c")],
        lost={
            "the cell": "multiplies tanh(c')",
            "the cell's gradient": "",
        },
    ),
    Tried(
        name="nan in place of a number",
        edits=[("cell", "o.sigmoid() * c.tanh(), c", "math.nan * c, c")],
        lost={
            "the cell": "got nan",
            "the cell's gradient": "does a gradient flow",
        },
    ),
    Tried(
        name="the gradient cut",
        edits=[("cell", "x @ W.T", "x @ W.detach().T")],
        lost={"the cell's gradient": "look for detach()"},
    ),
    Tried(
        name="time-major mix-up",
        edits=[
            ("over-time", "inputs.unbind(dim=1)", "inputs.unbind(dim=0)"),
            ("over-time", "torch.stack(outputs, dim=1)", "torch.stack(outputs, dim=0)"),
        ],
        lost={"over time": "batch and time are swapped"},
    ),
    Tried(
        name="the state not carried over time",
        edits=[
            ("over-time", "        h, c = lstm_step(x, h, c", "        h, c = lstm_step(x, h0, c0"),
            ("over-time", "    outputs = []", "    outputs, h0, c0 = [], h, c"),
        ],
        lost={"over time": "carry (h, c) on"},
    ),
    Tried(
        name="tokens dealt out to the rows",
        edits=[
            ("streams", "ids[:used].view(num_streams, size)", "ids[:used].view(size, -1).T"),
            (
                "streams",
                "ids[1 : used + 1].view(num_streams, size)",
                "ids[1 : used + 1].view(size, -1).T",
            ),
        ],
        lost={"streams and windows": "contiguous piece"},
    ),
    Tried(
        name="rows as long as if the last token had a target",
        edits=[("streams", "(len(ids) - 1) // num_streams", "len(ids) // num_streams")],
        lost={"streams and windows": "contiguous rows"},
    ),
    Tried(
        name="another default dtype, and all right",
        first="import torch\ntorch.set_default_dtype(torch.float64)",
    ),
    Tried(
        name="targets not shifted",
        edits=[("streams", "ids[1 : used + 1]", "ids[:used]")],
        lost={"streams and windows": "one token ahead"},
    ),
    Tried(
        name="the short window dropped",
        edits=[("streams", "range(0, size, length)", "range(0, size - length + 1, length)")],
        lost={"streams and windows": "may be shorter"},
    ),
    Tried(
        name="the visible test's answer, hard-coded",
        replaced={
            "streams": "def windows(ids, num_streams, length):\n"
            "    a, b = torch.tensor([[0, 1, 2], [5, 6, 7]]), torch.tensor([[3, 4], [8, 9]])\n"
            "    return [(a, a + 1), (b, b + 1)]"
        },
        lost={"streams and windows": "contiguous rows"},
    ),
    Tried(
        name="bug left: evaluation mode",
        edits=[("loop", "model.train()", "model.eval()")],
        lost={FIRST: "dropout is off", REST: "dropout is off"},
    ),
    Tried(
        name="bug left: averaged over rows",
        edits=[("loop", "nats / targets.numel()", "nats / len(targets)")],
        lost={FIRST: "number of rows", REST: "number of rows"},
    ),
    Tried(
        name="bug left: no zero_grad",
        edits=[("loop", "        optimizer.zero_grad()\n", "")],
        lost={REST: "add up over the windows"},
    ),
    Tried(
        name="no detach",
        edits=[("loop", CARRIED, "")],
        lost={REST: "the state is not detached"},
    ),
    Tried(
        name="bug left: the state forgotten at each window",
        edits=[("loop", CARRIED, "        state = None\n")],
        lost={REST: "carry it on"},
    ),
    Tried(
        name="bug left: clipped after the step",
        edits=[
            (
                "loop",
                "        nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n"
                "        optimizer.step()\n",
                "        optimizer.step()\n"
                "        nn.utils.clip_grad_norm_(model.parameters(), max_norm)\n",
            )
        ],
        lost={REST: "clipped after the step"},
    ),
    Tried(
        name="control missing",
        edits=[("control", 'controls = {"A", "C"}', 'controls = {"B", "C"}')],
        lost={"a control": "more training helps both"},
    ),
]
