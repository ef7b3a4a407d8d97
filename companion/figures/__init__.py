"""The book's figures: results in, Axes out. No function here needs a model.

Call `use_style()` once, in a chapter's second cell. A `plot_*` of one panel takes `ax=None`,
creates an Axes of the book's size if it is None, and returns the Axes it drew on; one of several
panels makes its own figure and returns all Axes. `drawing(name)` is a schematic.
"""

from companion.figures.bias import (
    plot_association,
    plot_bias_left,
    plot_gaps,
    plot_planted_bias,
)
from companion.figures.compression import plot_compressed_refusals, plot_compression
from companion.figures.dialogue import (
    dialogue_html,
    plot_scores_against_success,
    plot_users_met,
)
from companion.figures.drawings import Drawing, drawing
from companion.figures.fonts import legible
from companion.figures.generalization import (
    plot_composition,
    plot_composition_kinds,
    plot_exchange,
    plot_goals,
)
from companion.figures.memorization import (
    plot_exposure,
    plot_fit,
    plot_remedies,
    plot_strengths,
)
from companion.figures.networks import plot_lstm_cell, plot_unrolled
from companion.figures.real_model import (
    plot_answer_kl,
    plot_surprisals,
    plot_ways_of_asking,
)
from companion.figures.refusals import (
    plot_anchors,
    plot_capability_and_leak,
    plot_coverage,
    plot_demands,
    plot_depth,
    plot_refusal_and_leak,
)
from companion.figures.rewards import (
    plot_best_of_n,
    plot_decoders,
    plot_policies,
    plot_preference_tuning,
    plot_tradeoffs,
)
from companion.figures.scaling import (
    cost_html,
    plainly,
    plot_batch_sizes,
    plot_extrapolation,
    plot_floors,
    plot_scaling_losses,
)
from companion.figures.sentiment import (
    decisions_html,
    plot_cue_groups,
    plot_labels,
    plot_stages,
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
    plot_next_tokens,
    plot_over_text,
    plot_reliability,
)
from companion.figures.translation import (
    attention_html,
    plot_beam_widths,
    plot_translation_doses,
    plot_translation_lengths,
)
from companion.figures.tuning import plot_search, plot_setting, plot_trials

__all__ = [
    "COLORS",
    "INK",
    "NAMED_COLORS",
    "REFERENCE",
    "SIZE",
    "Drawing",
    "attention_html",
    "band",
    "cost_html",
    "decisions_html",
    "dialogue_html",
    "drawing",
    "floor_line",
    "legible",
    "new_axes",
    "plainly",
    "plot_adaptation",
    "plot_anchors",
    "plot_answer_kl",
    "plot_association",
    "plot_batch_sizes",
    "plot_beam_widths",
    "plot_best_of_n",
    "plot_bias_left",
    "plot_capability_and_leak",
    "plot_composition",
    "plot_composition_kinds",
    "plot_compressed_refusals",
    "plot_compression",
    "plot_coverage",
    "plot_cue_groups",
    "plot_decoders",
    "plot_demands",
    "plot_depth",
    "plot_detection",
    "plot_error_by_context",
    "plot_exchange",
    "plot_exposure",
    "plot_extrapolation",
    "plot_fit",
    "plot_floors",
    "plot_gaps",
    "plot_goals",
    "plot_labels",
    "plot_lstm_cell",
    "plot_next_tokens",
    "plot_over_text",
    "plot_planted_bias",
    "plot_policies",
    "plot_preference_tuning",
    "plot_refusal_and_leak",
    "plot_reliability",
    "plot_remedies",
    "plot_scaling_losses",
    "plot_scores_against_success",
    "plot_search",
    "plot_setting",
    "plot_shift_parts",
    "plot_stages",
    "plot_strengths",
    "plot_surprisals",
    "plot_tradeoffs",
    "plot_translation_doses",
    "plot_translation_lengths",
    "plot_trials",
    "plot_unrolled",
    "plot_users_met",
    "plot_ways_of_asking",
    "use_style",
    "visible",
]
