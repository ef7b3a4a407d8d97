"""Drawings of the part "Practice"."""

import itertools

from companion.figures.drawings.canvas import INK, MAIN, OTHER, Canvas
from companion.figures.drawings.catalogue import drawn


@drawn(
    "encoder-decoder",
    chapter="translation",
    height=330,
    alt="""An encoder of LSTM cells reads the three words Saturday, third and March in both
    directions and writes a memory for each. A decoder, which begins with what the encoder knows at
    its ends, writes samedi, trois and mars. While it writes trois it reads the three memories with
    weights of 4, 93 and 3 per cent: a thick line leads from the memory of third, thin ones from the
    others.""",
)
def _encoder_decoder(c: Canvas) -> None:
    places = (88.0, 198.0, 308.0)
    width, height = 76.0, 28.0
    words, reads, memory, writes, out = 312.0, 256.0, 190.0, 62.0, 16.0
    c.text(20, reads - 36, "encoder", anchor="start", bold=True)
    c.text(20, writes + 36, "decoder", anchor="start", bold=True)
    for i, x in enumerate(places):
        c.text(x, words, ("Saturday", "third", "March")[i])
        c.arrow((x, words - 10), (x, reads + height / 2 + 2))
        c.box(x - width / 2, reads - height / 2, width, height, "LSTM")
        c.arrow((x, reads - height / 2), (x, memory + height / 2 + 2))
        c.box(
            x - width / 2, memory - height / 2, width, height, f"memory {i + 1}", color=MAIN,
            bold=True,
        )  # fmt: skip
        c.box(x - width / 2, writes - height / 2, width, height, "LSTM")
        c.arrow((x, writes - height / 2), (x, out + 11))
        c.text(x, out, ("samedi", "trois", "mars")[i], bold=i == 1)
    for left, right in itertools.pairwise(places):
        c.arrow((left + width / 2, reads - 6), (right - width / 2, reads - 6))
        c.arrow((right - width / 2, reads + 6), (left + width / 2, reads + 6))
        c.arrow((left + width / 2, writes), (right - width / 2, writes))
    for x, share, label in zip(places, (0.04, 0.93, 0.03), ("4 %", "93 %", "3 %"), strict=True):
        start, end = (x, memory - height / 2), (places[1], writes + height / 2)
        c.line(start, end, color=OTHER, width=1 + 5 * share)
        middle = (start[0] * 0.55 + end[0] * 0.45, start[1] * 0.55 + end[1] * 0.45)
        c.text(middle[0] + (-20 if x < places[1] else 20), middle[1], label)
    c.arrow(
        (places[0] - width / 2, reads), (12, reads), (12, writes), (places[0] - width / 2, writes),
        dashed=True,
    )  # fmt: skip


@drawn(
    "fine-tuning",
    chapter="sentiment",
    height=318,
    alt="""Two towers of three layers: an embedding, an LSTM, and a linear layer. On the left a
    language model predicts the next word of many unlabelled reviews. Its embedding and its LSTM are
    copied to the right, where a new linear layer, trained on few labels, tells positive from
    negative. There the top layer is trained first and at the highest rate, the LSTM later at a
    lower rate, the embedding last at the lowest.""",
)
def _fine_tuning(c: Canvas) -> None:
    left, right, width, height = 14.0, 186.0, 104.0, 38.0
    rows = {"head": 78.0, "lstm": 142.0, "embedding": 206.0}
    c.text(left + width / 2, 18, "language model", bold=True)
    c.text(right + width / 2, 18, "classifier", bold=True)
    for x, top, bottom, head in (
        (left, ("next word",), ("many reviews,", "no labels"), "output"),
        (right, ("negative or", "positive?"), ("few reviews,", "with labels"), "linear"),
    ):
        middle = x + width / 2
        c.text(middle, 46, *top)
        c.arrow((middle, rows["head"]), (middle, 64))
        copied = x == right
        for name, y in rows.items():
            new = name == "head"
            c.box(
                x, y, width, height, head if new else "LSTM" if name == "lstm" else "embedding",
                color=OTHER if new and copied else INK if new else MAIN, bold=not new,
            )  # fmt: skip
            below = y + height
            c.arrow((middle, below + (64 - height)), (middle, below + 1))
        c.text(middle, 290, *bottom)
    for name in ("lstm", "embedding"):
        y = rows[name] + height / 2
        c.arrow((left + width + 3, y), (right - 3, y), color=MAIN)
        c.text((left + width + right) / 2, y - 11, "copy")
    notes = {
        "head": ("first,", "high rate"),
        "lstm": ("later,", "lower"),
        "embedding": ("last,", "lowest"),
    }
    for name, lines in notes.items():
        c.text(right + width + 8, rows[name] + height / 2, *lines, anchor="start")


@drawn(
    "dialogue-turns",
    chapter="dialogue",
    height=344,
    alt="""An LSTM reads a dialogue of two turns line by line. The user wants a glane, the bot asks
    for the ingredient, the user says of cedar, the bot asks for the day. Only the bot's lines are
    marked as learned; the state goes on from line to line. A table below has what the checker
    keeps: after turn one the kind is glane, after turn two the ingredient is cedar, and the day is
    open.""",
)
def _dialogue_turns(c: Canvas) -> None:
    left, width, height = 92.0, 256.0, 30.0
    rows = (
        ("user", "i want a glane .", False), ("bot", "a glane , which ingredient ?", True),
        ("user", "of cedar .", False), ("bot", "a glane of cedar , which day ?", True),
    )  # fmt: skip
    c.text(24, 14, "who", anchor="start", bold=True)
    c.text(left, 14, "the LSTM reads all, learns the bot's", anchor="start", bold=True)
    for number, (who, said, learned) in enumerate(rows):
        y = 30 + 48.0 * number
        c.text(24, y + height / 2, who, anchor="start", bold=learned)
        if learned:
            c.box(left, y, width, height, said, color=MAIN, bold=True, tint=0.25)
        else:
            c.box(left, y, width, height, said)
        if number + 1 < len(rows):
            c.arrow((left + 24, y + height), (left + 24, y + 46))
            if number == 1:
                c.text(left + 36, y + height + 9, "state", anchor="start", italic=True)
    c.text(24, 234, "what the checker keeps", anchor="start", bold=True)
    columns = (24.0, 136.0, 248.0)
    for row, (when, values) in enumerate(
        (("", ("kind", "ingredient", "day")), ("1", ("glane", "open", "open")),
         ("2", ("glane", "cedar", "open")))
    ):  # fmt: skip
        y = 248 + 32.0 * row
        for x, value in zip(columns, values, strict=True):
            if row == 0:
                c.text(x + 50, y + 13, value)
            else:
                c.box(x, y, 100, 26, value, color=OTHER if value == "open" else MAIN)
        if when:
            c.text(12, y + 13, when)


@drawn(
    "budget",
    chapter="scale_and_cost",
    height=338,
    alt="""Three rectangles of the same area, whose heights are parameters and whose widths are
    tokens: a high narrow one, a square one and a low wide one. The area, times six, is the number
    of operations, so all three trainings cost the same, and they leave different losses. Below, a
    chain: operations, divided by the speed, are GPU-hours; times the watts they are kilowatt-hours;
    times the grid's grams they are CO2; and hours times a price are dollars.""",
)
def _budget(c: Canvas) -> None:
    base = 150.0
    c.text(180, 14, "6 × parameters × tokens = operations", bold=True)
    shapes = ((52.0, 44.0, 100.0, OTHER), (134.0, 66.0, 66.67, MAIN), (234.0, 100.0, 44.0, OTHER))
    for left, width, height, color in shapes:
        c.box(left, base - height, width, height, color=color, tint=0.25)
    names = (("large model,", "few tokens"), ("in between",), ("small model,", "many tokens"))
    for (left, width, _, _), lines in zip(shapes, names, strict=True):
        c.text(left + width / 2, base + 20, *lines)
    c.line((34, base), (34, 46))
    c.arrow((34, base), (34, 42))
    c.arrow((34, base), (350, base))
    c.text(18, 34, "N", bold=True)
    c.text(350, base + 13, "D", bold=True)
    c.text(180, 208, "the loss differs, the cost does not", italic=True)
    links = (
        ("operations", 14.0), ("GPU-hours", 102.0), ("kWh", 190.0), ("kg CO2", 278.0),
    )  # fmt: skip
    top, width = 256.0, 70.0
    for name, left in links:
        c.box(left, top, width, 28, name, color=MAIN)
    for (_, left), label in zip(links, ("÷ speed", "× watts", "× grid"), strict=False):
        c.arrow((left + width, top + 14), (left + 88, top + 14))
        c.text(left + width + 9, top - 12, label)
    c.arrow((137, top + 28), (137, top + 50))
    c.text(146, top + 39, "× price", anchor="start")
    c.box(102, top + 50, width, 28, "dollars", color=MAIN)


@drawn(
    "four-ways",
    chapter="smaller_models",
    height=372,
    alt="""Four ways to make one network smaller. Fewer bits: the weights 1.52, -0.58, 0.19 and 0.31
    become the codes 3, -1, 0 and 1 and one scale, 0.51. Pruning: the two smallest weights become
    zero. Low rank: a wide matrix becomes the product of two thin ones. Distillation: a large
    teacher and a small student read the same text, and the student learns the teacher's
    probabilities.""",
)
def _four_ways(c: Canvas) -> None:
    left, step, size = 112.0, 58.0, 26.0
    weights = ("1.52", "-0.58", "0.19", "0.31")
    c.text(8, 27, "weights", anchor="start", bold=True)
    for i, weight in enumerate(weights):
        c.box(left + step * i, 14, 50, size, weight)
    c.text(8, 79, "fewer bits", anchor="start", bold=True)
    for i, code in enumerate(("3", "-1", "0", "1")):
        c.box(left + step * i, 66, 50, size, code, color=MAIN, bold=True)
        c.arrow((left + step * i + 25, 41), (left + step * i + 25, 65))
    c.text(left, 104, "times the scale 0.51", anchor="start")
    c.text(8, 141, "pruning", anchor="start", bold=True)
    for i, weight in enumerate(("1.52", "-0.58", "0", "0")):
        gone = weight == "0"
        c.box(
            left + step * i, 128, 50, size, weight, color=OTHER if gone else MAIN, dashed=gone,
            bold=not gone,
        )  # fmt: skip
    c.text(8, 205, "low rank", anchor="start", bold=True)
    c.box(left, 178, 76, 54, "V x H")
    c.text(left + 94, 205, "=", bold=True)
    c.box(left + 108, 178, 42, 54, "V x r", color=MAIN, tint=0.25)
    c.text(left + 161, 205, "·", bold=True)
    c.box(left + 172, 192, 60, 26, "r x H", color=MAIN, tint=0.25)
    c.text(8, 300, "distillation", anchor="start", bold=True)
    c.box(left, 266, 84, 44, "teacher")
    c.box(left + 152, 274, 74, 28, "student", color=MAIN, bold=True)
    c.arrow((left + 86, 288), (left + 150, 288), color=MAIN)
    c.text(left + 118, 262, "p(next)", italic=True)
    c.box(left, 338, 226, 24, "the same text")
    c.arrow((left + 42, 337), (left + 42, 312))
    c.arrow((left + 189, 337), (left + 189, 304))


@drawn(
    "two-interfaces",
    chapter="tools_and_a_real_model",
    height=322,
    alt="""Two bridges between this book's package and the library Transformers. On the left the
    package has scoring, decoders, calibration and exposure, which ask a model for logits and a
    state. On the right Transformers has generate and evaluation harnesses, which ask for logits and
    a cache. An adapter lets the left read any causal model of the right, such as a real chat model,
    with the cache as the state; an export lets the right read our LSTM, with its state as the
    cache.""",
)
def _two_interfaces(c: Canvas) -> None:
    left, right, width = 14.0, 206.0, 140.0
    c.text(left + width / 2, 16, "this book's package", bold=True)
    c.text(right + width / 2, 16, "Transformers", bold=True)
    c.box(left, 34, width, 78, "scoring, decoders,", "calibration,", "exposure", color=MAIN)
    c.box(right, 34, width, 78, "generate,", "evaluation", "harnesses", color=OTHER)
    c.box(left, 232, width, 46, "our LSTM", color=MAIN, bold=True)
    c.box(right, 232, width, 46, "a real chat model", color=OTHER, bold=True)
    c.text(left + width / 2, 126, "want: logits, state", italic=True)
    c.text(right + width / 2, 126, "want: logits, cache", italic=True)
    c.arrow((left + 40, 232), (left + 40, 138))
    c.arrow((right + 100, 232), (right + 100, 138))
    c.arrow((right + 34, 232), (right + 34, 212), (left + 106, 164), (left + 106, 138), color=OTHER)
    c.arrow((left + 106, 232), (left + 106, 212), (right + 34, 164), (right + 34, 138), color=MAIN)
    c.text(left + 54, 176, "adapter", anchor="start", bold=True)
    c.text(right + 46, 176, "export", anchor="start", bold=True)
    c.text(180, 300, "the cache is read as a state, and h, c as a cache", italic=True)


@drawn(
    "planted-bias",
    chapter="bias_and_review",
    height=300,
    alt="""A source in which the log odds of a bad trait differ by 1.5 between two invented peoples
    writes texts, from which a model learns. The model's bias is measured in three places: its next
    words, as log odds that can be compared with the 1.5; its word vectors, as an association; and
    a classifier's decisions, as a gap between the peoples. Below, decisions above a threshold go
    into a queue, which two reviewers read.""",
)
def _planted_bias(c: Canvas) -> None:
    c.box(10, 12, 140, 46, "source", "planted: 1.5", color=OTHER, bold=True)
    c.arrow((150, 35), (216, 35))
    c.text(183, 22, "texts")
    c.box(218, 12, 132, 46, "model", color=MAIN, bold=True)
    places = (62.0, 180.0, 298.0)
    for x, name, measure in zip(
        places,
        (("next", "words"), ("word", "vectors"), ("a classifier's", "decisions")),
        (("log odds", "compare: 1.5"), ("association",), ("gap between", "peoples")),
        strict=True,
    ):
        c.arrow((284, 58), (284, 76), (x, 76), (x, 100))
        c.box(x - 52, 102, 104, 44, *name)
        c.text(x, 168, *measure, italic=True)
    c.arrow((298, 186), (298, 222))
    c.text(250, 204, "threshold")
    c.box(246, 224, 104, 42, "queue", color=OTHER)
    c.arrow((246, 245), (152, 245))
    c.box(10, 224, 140, 42, "two reviewers,", "who err", color=INK)
    c.text(180, 286, "miss and false-alarm rates, with their costs", italic=True)
