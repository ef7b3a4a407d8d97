"""Drawings of the part "Training"."""

from collections.abc import Sequence

from companion.figures.drawings.canvas import INK, MAIN, OTHER, Canvas
from companion.figures.drawings.catalogue import drawn


@drawn(
    "text-to-tokens",
    chapter="text_to_tokens",
    height=348,
    alt="""From documents to numbers. Documents are cleaned, and those that another one contains
    are dropped. What is left is split by document into training, validation and test text. A
    tokenizer is fitted on the training text only and cuts all three into tokens, which become
    ids: lowest becomes low and est, and these 259 and 257.""",
)
def _text_to_tokens(c: Canvas) -> None:
    def pages(xs: Sequence[float], y: float, color: str = INK) -> None:
        for x in xs:
            c.box(x, y, 20, 26, color=color, radius=2)
            for i in range(3):
                c.line((x + 4, y + 7 + 6 * i), (x + 16, y + 7 + 6 * i), color=color, width=1)

    all_pages = [16 + 28 * i for i in range(7)]
    pages(all_pages, 12)
    c.text(222, 25, "collect documents", anchor="start")
    c.arrow((110, 42), (110, 60))
    kept = [x for i, x in enumerate(all_pages) if i not in (2, 5)]
    pages(kept, 64)
    for i in (2, 5):
        x = all_pages[i]
        c.box(x, 64, 20, 26, color=OTHER, dashed=True, radius=2, tint=0)
        c.line((x + 3, 68), (x + 17, 86), color=OTHER)
        c.line((x + 17, 68), (x + 3, 86), color=OTHER)
    c.text(222, 77, "clean; drop repeats", anchor="start")
    c.arrow((110, 94), (110, 112))
    c.text(222, 103, "split by document", anchor="start")
    for x, width, name, count in (
        (10, 164, "train", 3),
        (184, 80, "valid", 1),
        (274, 76, "test", 1),
    ):
        c.box(x, 116, width, 56, color=MAIN if count == 3 else INK, tint=0.06)
        middle = x + width / 2
        pages([middle - 10 + 28 * (i - (count - 1) / 2) for i in range(count)], 122)
        c.text(middle, 161, name)
    c.arrow((92, 174), (92, 196), color=MAIN)
    c.text(102, 186, "fit on this only", anchor="start")
    c.box(42, 198, 100, 30, "tokenizer", color=MAIN, bold=True)
    c.arrow((92, 230), (92, 252))
    c.line((224, 174), (224, 241), (94, 241))
    c.line((312, 174), (312, 241), (94, 241))
    for y, label, left, right, width in (
        (254, "text", "lowest", "", 106), (286, "tokens", "low", "est", 50),
        (318, "ids", "259", "257", 50),
    ):  # fmt: skip
        c.box(42, y, width, 24, left, tint=0.06, radius=2)
        if right:
            c.box(98, y, width, 24, right, tint=0.06, radius=2)
        c.text(162, y + 12, label, anchor="start")


@drawn(
    "hidden-state",
    chapter="recurrent_network",
    height=236,
    alt="""A recurrent network reads one word at a time: great, and, never, too. At each step the
    same weights make a new hidden state of the word and of the old hidden state, and from it the
    probabilities of the next word. All that is known of earlier words comes through the arrow from
    state to state.""",
)
def _hidden_state(c: Canvas) -> None:
    words = ("great", "and", "never", "too")
    c.text(180, 18, "memory goes from state to state", bold=True)
    for number, word in enumerate(words):
        x = 48 + 88 * number
        c.box(x - 28, 88, 56, 40, "state", str(number + 1), tint=0.06)
        c.arrow((x, 88), (x, 58))
        c.text(x, 48, "next?")
        c.arrow((x, 178), (x, 130))
        c.text(x, 194, word)
        if number:
            c.arrow((x - 60, 108), (x - 30, 108), color=MAIN, width=3)
    c.text(180, 220, "the same weights at every step")


@drawn(
    "lstm-step",
    chapter="lstm",
    height=262,
    alt="""One step of an LSTM. The old cell is multiplied by the forget gate, which says how much
    to keep; the candidate, times the input gate, is added to it; the result is the new cell. The
    new cell goes through a tanh and, times the output gate, becomes the new hidden state. All
    four read the input and the old hidden state.""",
)
def _lstm_step(c: Canvas) -> None:
    line, middle, gates = 56, 108, 152
    forget, write, what, show = 46, 127, 208, 289
    c.text(8, 20, "old cell", anchor="start", bold=True)
    c.text(352, 20, "new cell", anchor="end", bold=True)
    c.text(180, 20, "keep, and add")
    add = (write + what) / 2
    c.line((8, line), (forget - 12, line), color=MAIN, width=3)
    c.line((forget + 12, line), (add - 12, line), color=MAIN, width=3)
    c.arrow((add + 12, line), (352, line), color=MAIN, width=3)
    c.circle(forget, line, 12, "×", color=MAIN)
    c.circle(add, line, 12, "+", color=MAIN)
    c.circle(add, middle, 12, "×")
    c.circle(show, middle, 12, "×")
    for x, name, question in (
        (forget, "forget", "keep?"), (write, "input", "write?"), (what, "candidate", "what?"),
        (show, "output", "show?"),
    ):  # fmt: skip
        c.box(x - 37, gates, 74, 44, name, question, tint=0.06)
        c.arrow((x, 220), (x, gates + 46))
    c.arrow((forget, gates), (forget, line + 14))
    c.arrow((write, gates), (write, middle), (add - 14, middle))
    c.arrow((what, gates), (what, middle), (add + 14, middle))
    c.arrow((add, middle - 12), (add, line + 14))
    c.arrow((show, gates), (show, middle + 14))
    c.line((show, line), (show, 68), color=MAIN)
    c.box(show - 20, 68, 40, 18, "tanh", color=MAIN, radius=3)
    c.line((show, 86), (show, middle - 12), color=MAIN)
    c.arrow((show + 12, middle), (352, middle), width=2)
    c.text(328, 131, "hidden", "state")
    c.box(9, 220, 317, 34, "the input, and the old hidden state")


@drawn(
    "streams-and-windows",
    chapter="training_loop",
    height=268,
    alt="""A text, the alphabet, is cut into two contiguous streams that lie side by side. Windows
    of four letters walk along both. The state is passed from a window to the next one in the same
    row, its value kept and its graph cut. The targets of the inputs a b c d are b c d e.""",
)
def _streams_and_windows(c: Canvas) -> None:
    c.text(12, 16, "one text, cut into two streams", anchor="start")
    c.box(12, 28, 168, 24, "a b c d … l m", color=MAIN, radius=2)
    c.box(180, 28, 168, 24, "m n o p … y z", color=OTHER, radius=2)
    c.text(12, 82, "side by side, read window by window", anchor="start")
    for k in range(3):
        x = 12 + 118 * k
        c.box(x, 96, 100, 72, tint=0.05)
        for row, (first, color) in enumerate((("a", MAIN), ("m", OTHER))):
            y = 106 + 30 * row
            for i in range(4):
                letter = chr(ord(first) + 4 * k + i)
                c.box(x + 6 + 22 * i, y, 22, 22, letter, color=color, radius=2)
            if k < 2:
                c.arrow((x + 101, y + 11), (x + 117, y + 11), color=color, width=2)
        c.text(x + 50, 182, f"window {k}")
    c.text(180, 208, "→ the state: its value is passed on,")
    c.text(180, 223, "its graph is cut")
    c.text(180, 250, "inputs a b c d,  targets b c d e", bold=True)


@drawn(
    "parts-of-a-step",
    chapter="fast_and_large",
    height=290,
    alt="""One step on two processes. A batch of eight rows is divided: four rows go to each
    process. Both have the same weights. Each sums the nats of its rows, divides the sum by its 128
    targets and computes the gradient. The mean of the two gradients is that of the whole batch;
    with it both take the same step.""",
)
def _parts_of_a_step(c: Canvas) -> None:
    c.text(180, 14, "a batch: 8 rows of 32 targets", bold=True)
    for process, color in enumerate((MAIN, OTHER)):
        x = 12 + 176 * process
        for row in range(4):
            c.bar(x, 28 + 10 * row, 160, 6, color=color)
        c.arrow((x + 80, 68), (x + 80, 84), color=color)
        c.box(x, 86, 160, 40, f"process {process + 1}", "the same weights", color=color)
        c.arrow((x + 80, 128), (x + 80, 144), color=color)
        c.box(x, 146, 160, 40, "sum of its nats / 128", "gradient", color=color, tint=0.06)
        c.arrow((x + 80, 188), (x + 80, 204), color=color)
    c.box(12, 206, 336, 30, "mean of the two gradients: that of the batch", bold=True, tint=0.06)
    c.arrow((180, 238), (180, 254))
    c.box(92, 256, 176, 28, "the same step in both", tint=0.06)


@drawn(
    "splits",
    chapter="evaluation_and_tuning",
    height=314,
    alt="""What each text is for. Training text fits the weights; validation text chooses settings
    and fits the temperature; test text is read once and gives the reported loss. Below, two kinds
    of noise: drawing the test documents again, in pairs, compares two models; training again with
    other seeds compares two recipes.""",
)
def _splits(c: Canvas) -> None:
    rows = (
        ("training text", "fit the weights", MAIN),
        ("validation text", "choose the settings,\nfit the temperature", MAIN),
        ("test text", "read once: the loss\nthat is reported", OTHER),
    )
    for i, (name, use, color) in enumerate(rows):
        y = 10 + 54 * i
        c.box(12, y, 130, 40, name, color=color, bold=True)
        c.arrow((144, y + 20), (182, y + 20), color=color)
        c.text(192, y + 20, *use.split("\n"), anchor="start")
    c.line((12, 178), (348, 178), width=0.75)
    c.text(12, 198, "How sure is a difference?", anchor="start", bold=True)
    for i, (noise, answer) in enumerate(
        (("other documents?\ndraw them again", "compares two\nmodels"),
         ("other seeds?\ntrain again", "compares two\nrecipes"))
    ):  # fmt: skip
        y = 214 + 50 * i
        c.box(12, y, 150, 42, *noise.split("\n"), tint=0.06)
        c.arrow((164, y + 21), (202, y + 21))
        c.text(212, y + 21, *answer.split("\n"), anchor="start")


@drawn(
    "decoders",
    chapter="generating_text",
    height=238,
    alt="""One distribution over six words, and what four decoders make of it. Greedy gives all
    probability to the most probable word. A temperature of 1/2 raises the probable and lowers the
    rare. Top-k keeps the three most probable. The nucleus keeps the fewest that have mass .85
    together, here four. What is kept is divided by its sum.""",
)
def _decoders(c: Canvas) -> None:
    model = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
    squares = sum(p * p for p in model)
    decoders = (
        ("greedy", (1.0, 0, 0, 0, 0, 0)),
        ("temperature 1/2", tuple(p * p / squares for p in model)),
        ("top-k, k = 3", tuple(p / 0.8 for p in model[:3])),
        ("nucleus, mass .85", tuple(p / 0.9 for p in model[:4])),
    )
    for i, (name, probs) in enumerate(decoders):
        x, base = 14 + 178 * (i % 2), 100 + 98 * (i // 2)
        c.text(x, base - (86 if i < 2 else 64), name, anchor="start", bold=True)
        for j, (p, q) in enumerate(zip(model, (*probs, 0, 0, 0), strict=False)):
            if q:
                c.bar(x + 26 * j + 3, base - 74 * q, 16, 74 * q)
            c.box(x + 26 * j, base - 74 * p, 22, 74 * p, radius=0, tint=0, dashed=not q)
        c.line((x - 4, base), (x + 156, base))
    c.bar(46, 216, 16, 14)
    c.text(68, 223, "decoder", anchor="start")
    c.box(142, 216, 22, 14, radius=0, tint=0)
    c.text(170, 223, "model", anchor="start")
    c.box(232, 216, 22, 14, radius=0, tint=0, dashed=True)
    c.text(260, 223, "cut off", anchor="start")
