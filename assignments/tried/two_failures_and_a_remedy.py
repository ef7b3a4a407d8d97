"""Plausible wrong submissions: an edit of the reference, what it loses, and the hint it gets."""

from assignments.tried import Tried

TRIED = [
    Tried(
        name="the visible test's thresholds, hard-coded",
        edits=[
            (
                "diagnosis",
                "    if gap_old > near:",
                "    near, enough = 0.05, 0.9\n    if gap_old > near:",
            )
        ],
        lost={"a diagnosis": "those of the visible test"},
    ),
    Tried(
        name="the objective blamed before the loss is at its floor",
        replaced={
            "diagnosis": "def diagnose(gap_old, gap_new, wish_old, near, enough):\n"
            "    if wish_old < enough:\n        return 'objective'\n"
            "    if gap_old > near:\n        return 'undertrained'\n"
            "    return 'generalization' if gap_new > near else 'none'"
        },
        lost={"a diagnosis": "comes first"},
    ),
    *(
        Tried(
            name=f"a number at its threshold: {new}",
            edits=[("diagnosis", old, new)],
            lost={"a diagnosis": "of exactly `near`"},
        )
        for old, new in (
            ("gap_old > near", "gap_old >= near"),
            ("gap_new > near", "gap_new >= near"),
            ("wish_old < enough", "wish_old <= enough"),
        )
    ),
    Tried(
        name="masking in place of conditioning",
        edits=[
            (
                "constraint",
                "    joint = first[:, None] * second * allowed\n    return joint / joint.sum()",
                "    return masked(first, second, allowed)",
            )
        ],
        lost={"conditioning": "this is masking"},
    ),
    Tried(
        name="conditioning in place of masking",
        edits=[
            (
                "constraint",
                "    start = first * allowed.any(axis=1)",
                "    return conditioned(first, second, allowed)\n"
                "    start = first * allowed.any(axis=1)",
            )
        ],
        lost={"masking": "without looking ahead"},
    ),
    Tried(
        name="masked where some text is not allowed",
        edits=[("constraint", "allowed.any(axis=1)", "allowed.all(axis=1)")],
        lost={"masking": "only if none is"},
    ),
    Tried(
        name="not divided by the sum",
        edits=[("constraint", "return joint / joint.sum()", "return joint")],
        lost={"conditioning": "divided by their sum"},
    ),
    Tried(
        name="KL divergence the wrong way round",
        edits=[("constraint", "(r * np.log(r / q))", "(q * np.log(q / r))")],
        lost={"the cost of a constraint": "wrong way round"},
    ),
    Tried(
        name="zeros not left out",
        edits=[("constraint", "there = constrained > 0", "there = constrained >= 0")],
        lost={"the cost of a constraint": "0 ln 0"},
    ),
    Tried(
        name="control missing",
        edits=[
            ("interval", "[r - c for r, c in zip(remedy, control)]", "list(remedy)"),
        ],
        lost={"differences by seed": "the control is missing"},
    ),
    Tried(
        name="pairs torn apart",
        edits=[("interval", "zip(remedy, control)", "zip(sorted(remedy), sorted(control))")],
        lost={"differences by seed": "no longer paired"},
    ),
    Tried(
        name="1.96 with few seeds",
        edits=[("interval", "stats.t.ppf(0.975, len(d) - 1)", "1.96")],
        lost={"an interval": "take Student's t"},
    ),
    Tried(
        name="nan in place of a number",
        edits=[("interval", "half = t * d.std(ddof=1)", "half = math.nan * d.std(ddof=1)")],
        lost={"an interval": "got nan"},
    ),
    Tried(
        name="standard deviation over n",
        edits=[("interval", "d.std(ddof=1)", "d.std()")],
        lost={"an interval": "n - 1"},
    ),
    Tried(
        name="the root of n forgotten",
        edits=[("interval", " / math.sqrt(len(d))", "")],
        lost={"an interval": "s / sqrt(n)"},
    ),
    Tried(
        name="a control that tests something else",
        edits=[("control", 'controls = {"A", "B", "D"}', 'controls = {"A", "C"}')],
        lost={"a control": "English is not what"},
    ),
]
