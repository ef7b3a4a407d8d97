"""Tried on each assignment: plausible wrong submissions, and abuse."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from companion.teaching.marking import Marks


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A submission made of the reference, and what it must lose."""

    name: str
    edits: Sequence[tuple[str, str, str]] = ()
    """Solution cell, text of it, and what stands there instead."""
    replaced: Mapping[str, str] = field(default_factory=dict)
    """Solution cells with another source."""
    removed: Sequence[str] = ()
    """Cells that are gone."""
    first: str = ""
    """A cell in front of all others."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Tasks that earn nothing, and words that their feedback must hold."""

    def notebook(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The submission. ValueError where an edit does not fit the reference once."""
        notebook = copy.deepcopy(dict(source))
        by_id = {
            cell["metadata"]["nbgrader"]["grade_id"]: cell
            for cell in notebook["cells"]
            if "nbgrader" in cell["metadata"]
        }
        for name, old, new in self.edits:
            text = "".join(by_id[name]["source"])
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {old!r} must stand once in the cell {name}")
            by_id[name]["source"] = text.replace(old, new)
        for name, text in self.replaced.items():
            by_id[name]["source"] = text
        gone = [by_id[name] for name in self.removed]
        notebook["cells"] = [cell for cell in notebook["cells"] if cell not in gone]
        if self.first:
            cell = {"cell_type": "code", "metadata": {}, "source": self.first}
            notebook["cells"].insert(0, cell)
        return notebook

    def unexpected(self, marks: Marks) -> list[str]:
        """What came out otherwise than it should."""
        found = []
        for each in marks.marks:
            lost = each.task in self.lost
            if lost == (each.points > 0):
                found.append(f"{each.task}: {each.points:g} points. {each.words}")
            elif lost and self.lost[each.task] not in each.words:
                found.append(f"{each.task}: the feedback names another mistake: {each.words}")
        unknown = set(self.lost) - {each.task for each in marks.marks}
        return found + [f"no task is called {name}" for name in sorted(unknown)]
