"""The book's figures: results in, Axes out. Nothing here touches a model.

`use_style()` once, in a chapter's second cell. Every `plot_*` takes `ax=None`, makes an Axes of the
book's size where it gets none, and returns the Axes it drew on.
"""

from companion.figures.fonts import legible
from companion.figures.generalization import plot_composition, plot_goals, plot_shortcut
from companion.figures.memorization import plot_exposure, plot_remedies
from companion.figures.refusals import (
    plot_capability_and_leak,
    plot_coverage,
    plot_refusal_and_leak,
)
from companion.figures.rewards import (
    plot_best_of_n,
    plot_decoders,
    plot_policies,
    plot_preference_tuning,
)
from companion.figures.shift import (
    plot_adaptation,
    plot_detection,
    plot_error_by_context,
    plot_shift_parts,
)
from companion.figures.style import (
    COLORS,
    INK,
    NAMED_COLORS,
    REFERENCE,
    SIZE,
    band,
    floor_line,
    new_axes,
    use_style,
    visible,
)
from companion.figures.training import (
    plot_fit,
    plot_history,
    plot_next_tokens,
    plot_over_text,
    plot_reliability,
)
from companion.figures.tuning import plot_search, plot_setting, plot_trials

__all__ = [
    "COLORS",
    "INK",
    "NAMED_COLORS",
    "REFERENCE",
    "SIZE",
    "band",
    "floor_line",
    "legible",
    "new_axes",
    "plot_adaptation",
    "plot_best_of_n",
    "plot_capability_and_leak",
    "plot_composition",
    "plot_coverage",
    "plot_decoders",
    "plot_detection",
    "plot_error_by_context",
    "plot_exposure",
    "plot_fit",
    "plot_goals",
    "plot_history",
    "plot_next_tokens",
    "plot_over_text",
    "plot_policies",
    "plot_preference_tuning",
    "plot_refusal_and_leak",
    "plot_reliability",
    "plot_remedies",
    "plot_search",
    "plot_setting",
    "plot_shift_parts",
    "plot_shortcut",
    "plot_trials",
    "use_style",
    "visible",
]
