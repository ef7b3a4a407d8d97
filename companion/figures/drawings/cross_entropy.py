"""Drawings of the part "Cross-entropy"."""

from companion.figures.drawings.canvas import INK, MAIN, OTHER, Canvas
from companion.figures.drawings.catalogue import drawn


@drawn(
    "code-length",
    chapter="surprise_and_code_length",
    height=292,
    alt="""A text as an interval. The interval from 0 to 1 is cut by the probabilities of the
    first letter, 1/2 for a and 1/4 each for b and c; the piece of b is cut again by those of the
    next letter. The piece of the text "ba" is 1/8 wide, which is 3 bits: the sum of the surprises
    at b, 2 bits, and at a, 1 bit.""",
)
def _code_length(c: Canvas) -> None:
    left, width, height = 20, 320, 30
    rows = (
        (34, (("a", 1 / 2), ("b", 1 / 4), ("c", 1 / 4)), 1),
        (122, (("a", 1 / 2), ("b", 1 / 4), ("c", 1 / 4)), 0),
    )
    c.text(left, 20, "all texts: width 1, 0 bits", anchor="start")
    for y, pieces, chosen in rows:
        at = float(left)
        for i, (letter, share) in enumerate(pieces):
            step = width * share
            c.box(
                at, y, step, height, letter, radius=0, bold=i == chosen,
                color=OTHER if i == chosen else INK, tint=0.25 if i == chosen else 0.04,
            )  # fmt: skip
            if i == chosen:
                c.line((at, y + height), (left, y + 88), dashed=True, width=1)
                c.line((at + step, y + height), (left + width, y + 88), dashed=True, width=1)
            at += step
    c.text(200, 102, "“b”: width 1/4, surprise 2 bits")
    c.text(30, 192, "“ba”: width 1/8, 2 + 1 bits", anchor="start")
    c.box(left, 210, width, height, radius=0, color=OTHER, tint=0.25)
    c.text(180, 225, "any number in here names the text")
    c.text(180, 260, "bits of a text = − log₂ of its width", bold=True)
    c.text(180, 278, "= the sum of its surprises", bold=True)


@drawn(
    "cross-entropy-parts",
    chapter="cross_entropy_and_perplexity",
    height=274,
    alt="""Three bars of bits per word on a source of entropy 1.75. The model that knows the
    source pays 1.75. One that gives each of four words a quarter pays 2, of which 0.25 are KL.
    One that has the source backwards pays 2.625, of which 0.875 are KL. The entropy is the same
    in all three.""",
)
def _cross_entropy_parts(c: Canvas) -> None:
    left, unit = 20, 122
    floor = left + 1.75 * unit
    c.text(left, 16, "cross-entropy, bits per word", anchor="start", bold=True)
    rows = (
        ("a model that knows the source", 0.0, "1.75", ""),
        ("a quarter for each of four words", 0.25, "2", ".25"),
        ("a model that has it backwards", 0.875, "2.625", "KL .875"),
    )
    for i, (who, kl, total, label) in enumerate(rows):
        y = 46 + 66 * i
        c.text(left, y, who, anchor="start")
        c.text(340, y, total, anchor="end", bold=True)
        c.box(left, y + 11, floor - left, 28, "entropy 1.75", color=MAIN, tint=0.25, radius=0)
        if kl:
            c.box(floor, y + 11, kl * unit, 28, label, color=OTHER, tint=0.25, radius=0)
    c.line((floor, 224), (floor, 240), dashed=True)
    c.text(floor - 8, 234, "belongs to the source:", anchor="end")
    c.text(floor - 8, 250, "no training removes it", anchor="end")
    c.text(floor + 8, 234, "belongs to", anchor="start")
    c.text(floor + 8, 250, "the model", anchor="start")


@drawn(
    "automaton",
    chapter="known_source",
    height=282,
    alt="""A small part of the automaton of the review grammar. From the start, "it" has
    probability .08, then "is" .27. Then "great", .10, leads to a state with a good opinion, and
    "dull", .08, to one with a bad opinion; from there only words of that opinion may follow.
    After the full stop, .85, the review ends with probability .37. A text is one walk, and its
    log-probability is the sum along it.""",
)
def _automaton(c: Canvas) -> None:
    y, up, down = 128, 70, 186
    for x in (30, 100, 170):
        c.circle(x, y, 14, "?")
    for height, sign, color in ((up, "+", MAIN), (down, "−", OTHER)):
        for x in (248, 326):
            c.circle(x, height, 14, sign, color=color, tint=0.2)
        c.arrow((264, height), (310, height))
    c.circle(326, y, 14, "")
    c.circle(326, y, 9, "", tint=0.4)
    c.text(30, y + 30, "start")
    c.arrow((46, y), (84, y))
    c.text(65, y - 24, "it", ".08")
    c.arrow((116, y), (154, y))
    c.text(135, y - 24, "is", ".27")
    c.arrow((180, y - 12), (238, up + 12))
    c.text(198, up + 6, "great", ".10", anchor="end")
    c.arrow((180, y + 12), (238, down - 12))
    c.text(198, down - 6, "dull", ".08", anchor="end")
    c.text(287, up - 13, "“.” .85")
    c.text(287, down + 14, "“.” .85")
    c.arrow((326, up + 16), (326, y - 16))
    c.arrow((326, down - 16), (326, y + 16))
    c.text(306, y, "<end> .37", anchor="end")
    c.arrow((326, up - 16), (326, 32), color=MAIN, dashed=True)
    c.text(314, 28, "another sentence, .63,", "without a bad word", anchor="end")
    c.arrow((326, down + 16), (326, 224), color=OTHER, dashed=True)
    c.text(314, 228, "another sentence, .63,", "without a good word", anchor="end")
    c.text(10, 222, "a state: what may", "follow, and the", "opinion so far", anchor="start")
    c.text(180, 266, "p(it is great . <end>) = .08 × .27 × .10 × .85 × .37")


@drawn(
    "two-states",
    chapter="known_source",
    height=262,
    opens=False,
    alt="""The automaton of two states. State 0 writes "very" with probability 1/2 and stays, or
    "good" with 1/2 and goes to state 1, which writes the end token. Below, the probability of
    being in each state at each word: in state 0 it is 1, 1/2, 1/4 and so on, 2 in all; in state 1
    it is 0, 1/2, 1/4 and so on, 1 in all. These sums are the expected visits. State 0 has the
    entropy .693 and state 1 none, so the rate is 2 times .693 over 3, which is .462 nats.""",
)
def _two_states(c: Canvas) -> None:
    y = 78
    c.circle(100, y, 18, "0", color=MAIN, tint=0.2)
    c.circle(230, y, 18, "1", color=OTHER, tint=0.2)
    c.arrow((30, y), (82, y))
    c.text(50, y - 14, "begin")
    c.arrow((88, y - 16), (88, 36), (112, 36), (112, y - 15), color=MAIN)
    c.text(100, 22, "very ½")
    c.arrow((118, y), (212, y))
    c.text(165, y - 14, "good ½")
    c.arrow((248, y), (300, y))
    c.text(306, y, "<end>", anchor="start")
    c.text(272, y - 14, "1")
    columns = (150, 190, 230, 262, 310)
    c.text(10, 122, "at word", anchor="start")
    for x, number in zip(columns, ("1", "2", "3", "…", "visits"), strict=True):
        c.text(x, 122, number, bold=number == "visits")
    c.line((10, 134), (350, 134), width=0.75)
    for row, (name, values, color) in enumerate(
        (
            ("p(in state 0)", ("1", "½", "¼", "…", "2"), MAIN),
            ("p(in state 1)", ("0", "½", "¼", "…", "1"), OTHER),
        )
    ):
        height = 152 + 28 * row
        c.text(10, height, name, anchor="start")
        for x, value in zip(columns, values, strict=True):
            c.text(x, height, value)
        c.box(columns[-1] - 20, height - 11, 40, 22, color=color, tint=0.2)
    c.text(10, 214, "entropy of the next word: ln 2 = .693 in 0, none in 1", anchor="start")
    c.text(180, 244, "rate = (2 × .693 + 1 × 0) / (2 + 1) = .462", bold=True)
