"""Drawings of the part "Objective mismatch"."""

import math

from companion.figures.drawings.canvas import INK, MAIN, OTHER, Canvas
from companion.figures.drawings.catalogue import drawn


@drawn(
    "two-divergences",
    chapter="likelihood_is_not_quality",
    height=330,
    alt="""Two pictures of a source with two humps and a model with one. Forward: the model is
    wide, covers both humps, and gives probability to the valley between them, where the source
    never writes; forgetting costs without bound, inventing costs little. Reverse: the model sits
    on one hump; inventing an impossible text costs infinitely much, forgetting the other hump
    costs little.""",
)
def _two_divergences(c: Canvas) -> None:
    def hump(x: float, middle: float, width: float) -> float:
        return math.exp(-((x - middle) ** 2) / (2 * width * width))

    def source(base: float, x: float) -> float:
        return base - 62 * hump(x, 105, 24) - 52 * hump(x, 255, 24)

    pictures = (
        (
            112, "forward: KL(source ‖ model)", (178, 82, 34),
            "a forgotten text costs without bound,", "an invented one costs little",
        ),
        (
            276, "reverse: KL(model ‖ source)", (105, 24, 66),
            "an impossible text costs infinitely much,", "a forgotten one costs little",
        ),
    )  # fmt: skip
    for base, title, (middle, width, height), first, second in pictures:
        c.text(12, base - 96, title, anchor="start", bold=True, size=13)

        def model(
            x: float, b: int = base, m: int = middle, w: int = width, h: int = height
        ) -> float:
            return b - h * hump(x, m, w)

        c.graph(model, 12, 348, color=OTHER, base=base)
        c.graph(lambda x, b=base: source(b, x), 12, 348, color=INK, dashed=True)  # type: ignore[misc]
        c.line((12, base), (348, base), width=1)
        c.text(180, base + 23, first, second)
    c.text(346, 30, "model", anchor="end")
    c.line((280, 30), (300, 30), color=OTHER, width=2)
    c.text(346, 48, "source", anchor="end")
    c.line((276, 48), (296, 48), dashed=True, width=2)


@drawn(
    "four-failures",
    chapter="proxies_and_goodhart",
    height=346,
    alt="""Four ways in which a proxy fails. Regressional: noise enters the proxy beside the gold
    reward, so the highest score is partly luck. Extremal: proxy and gold agree where the data are
    and part far out. Causal: gold moves the proxy, and pushing the proxy does not move gold.
    Adversarial: an author moves the proxy through polish, which costs less than quality.""",
)
def _four_failures(c: Canvas) -> None:
    def panel(x: float, y: float, title: str, *says: str) -> None:
        c.box(x, y, 168, 162, tint=0.03)
        c.text(x + 84, y + 16, title, bold=True)
        c.text(x + 84, y + 137, *says)

    def gold_and_proxy(x: float, y: float) -> None:
        c.box(x + 10, y + 36, 50, 26, "gold", color=MAIN)
        c.box(x + 102, y + 36, 56, 26, "proxy")
        c.arrow((x + 60, y + 49), (x + 100, y + 49))

    panel(8, 6, "regressional", "the best score", "is partly luck")
    gold_and_proxy(8, 6)
    c.box(110, 90, 56, 26, "noise", color=OTHER)
    c.arrow((138, 90), (138, 70), color=OTHER)

    panel(184, 6, "extremal", "they agree where the data", "are, and part far out")
    base = 112.0
    c.bar(200, 36, 52, 76, color=INK, fill=0.08)
    c.text(226, 103, "data")
    c.graph(lambda x: base - 26 - 0.42 * (x - 198), 198, 328, dashed=True)
    c.graph(lambda x: base - 26 - 0.45 * (x - 198) + 0.0046 * (x - 198) ** 2, 198, 328, color=MAIN)
    c.text(290, 37, "proxy", anchor="end")
    c.text(316, 110, "gold", anchor="end")

    panel(8, 176, "causal", "pushing the proxy", "does not move gold")
    gold_and_proxy(8, 176)
    c.box(110, 260, 56, 26, "push", color=OTHER)
    c.arrow((138, 260), (138, 240), color=OTHER)
    c.arrow((110, 273), (43, 273), (43, 240), color=OTHER, dashed=True)
    for way in (-5, 5):
        c.line((72 - way, 268), (72 + way, 278), color=OTHER, width=2)

    panel(184, 176, "adversarial", "to look good costs less", "than to be good")
    gold_and_proxy(184, 176)
    c.box(192, 260, 56, 26, "author", color=OTHER)
    c.arrow((220, 260), (220, 240), color=OTHER, dashed=True)
    c.arrow((248, 273), (314, 273), (314, 240), color=OTHER, width=2.5)
    c.text(304, 262, "polish", anchor="end")


@drawn(
    "three-stages",
    chapter="competing_objectives",
    height=340,
    alt="""A model goes through documents, instructions and safety training. Below, what the three
    terms of the last stage see: plain questions about florbs have the refusal term alone; questions
    about other things, and documents, also those about florbs, have the term that keeps the model
    useful and the KL term. Questions about florbs that come with a demand are seen by none.""",
)
def _three_stages(c: Canvas) -> None:
    stages = (
        ("documents", "tell facts"),
        ("instructions", "follow users"),
        ("safety", "refuse florbs"),
    )
    for i, (name, what) in enumerate(stages):
        x = 8 + 120 * i
        c.box(x, 10, 104, 30, name, color=MAIN, bold=True)
        c.text(x + 52, 54, what)
        if i < 2:
            c.arrow((x + 105, 25), (x + 119, 25))
    c.text(12, 88, "what the terms of the last stage see", anchor="start", bold=True)
    columns = (
        (206, "refuse"), (263, "useful"), (322, "KL"),
    )  # fmt: skip
    for x, name in columns:
        c.text(x, 116, name, bold=True)
    c.line((8, 128), (352, 128), width=0.75)
    rows = (
        (("florb,", "asked plainly"), (1, 0, 0)),
        (("other thing,", "with demands or not"), (0, 1, 1)),
        (("documents,", "also about florbs"), (0, 1, 1)),
        (("florb, asked", "with a demand"), (0, 0, 0)),
    )
    for i, (text, seen) in enumerate(rows):
        y = 152 + 46 * i
        if not any(seen):
            c.box(6, y - 20, 348, 40, color=OTHER, dashed=True)
        c.text(14, y, *text, anchor="start")
        for (x, _), sees in zip(columns, seen, strict=True):
            if sees:
                c.box(x - 20, y - 11, 40, 22, color=MAIN, tint=0.6)
            elif any(seen):
                c.text(x, y, "–")
    c.text(264, 290, "seen by no term")
    c.text(180, 326, "KL: against the instructed model")


@drawn(
    "reward-and-leash",
    chapter="tuning_toward_a_reward",
    height=250,
    alt="""A policy between the model before tuning and a reward. The reward pulls it away and the
    KL penalty, times beta, holds it back. Along the way the proxy reward rises, and the gold
    reward rises and then falls. A large beta keeps the best policy near the model before, a small
    one lets it go far.""",
)
def _reward_and_leash(c: Canvas) -> None:
    base = 110
    c.line((20, base), (345, base))
    c.line((20, base), (20, 16))
    c.graph(lambda x: base - 12 - 0.27 * (x - 20), 20, 345, dashed=True)
    c.graph(lambda x: base - 12 - 0.27 * (x - 20) + 0.00086 * (x - 20) ** 2, 20, 345, color=MAIN)
    c.text(236, 22, "proxy reward", anchor="end")
    c.text(260, 62, "gold reward")
    c.text(345, 124, "KL from the model before", anchor="end")
    y = 176
    c.box(8, y - 21, 66, 42, "model", "before")
    c.box(150, y - 16, 64, 32, "policy", color=OTHER, bold=True)
    spring = [(74.0, float(y))] + [(84.0 + 8 * i, y + (7 if i % 2 else -7)) for i in range(8)]
    c.line(*spring, (150, y), color=MAIN, width=2)
    c.arrow((214, y), (276, y), color=OTHER, width=2.5)
    c.box(280, y - 16, 68, 32, "reward", color=OTHER)
    c.text(112, y - 22, "β · KL holds")
    c.text(246, y - 14, "pulls")
    c.text(180, 222, "large β: stays near; small β: goes far")
    c.text(180, 240, "best policy ∝ model before × exp(reward / β)", italic=True)


@drawn(
    "remedies",
    chapter="what_fixes_what",
    height=346,
    alt="""Where each remedy acts, what it repairs and what it costs. On the weights: policy
    gradient and DPO raise the reward at a cost in KL and calibration; unlikelihood reduces
    repetition at a cost in grammar and calibration; refusals of begun replies repair these and
    leave other ways of asking. On the next word: a grammar constraint removes wrong sentences at
    almost no cost. On whole texts: best of 16 raises the reward and writes 16 texts for one.""",
)
def _remedies(c: Canvas) -> None:
    places = (
        (
            "weights", 8, 172,
            (
                ("policy gradient, DPO", "helps: reward", "costs: KL, calibration"),
                ("unlikelihood", "helps: repetition", "costs: grammar, calibration"),
                ("deeper refusals", "helps: begun replies", "leaves: other ways to ask"),
            ),
        ),
        (
            "next word", 200, 56,
            (("grammar constraint", "helps: wrong sentences", "costs: almost nothing"),),
        ),
        ("whole text", 276, 62, (("best of 16", "helps: reward", "costs: 16 texts for one"),)),
    )  # fmt: skip
    for i, (place, y, height, remedies) in enumerate(places):
        c.box(8, y, 96, height, place, color=MAIN, bold=True)
        if i:
            c.arrow((56, y - 20), (56, y - 2))
        for j, (name, gain, cost) in enumerate(remedies):
            middle = y + 28 + 58 * j
            c.arrow((142, middle), (106, middle), color=OTHER)
            c.text(150, middle - 15, name, anchor="start", bold=True)
            c.text(150, middle, gain, anchor="start")
            c.text(150, middle + 15, cost, anchor="start")
