"""Studies: one module answers one question of the book.

A study has a `Config` (`settings_class`), a `Result` (dataclass of plain numbers and lists) and
`run(config, *, seed, progress=False) -> Result`. Chapters run it and use its result; the command
line runs it over several seeds; `companion.figures` plots it. Studies do not import each other.
"""

from companion.evaluation.claims import spread, stored_report
from companion.studies.runner import configured, load_study, one_thread, run_study, study_names

__all__ = [
    "configured",
    "load_study",
    "one_thread",
    "run_study",
    "spread",
    "stored_report",
    "study_names",
]
