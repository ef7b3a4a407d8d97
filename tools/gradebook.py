"""What nbgrader does for assignments: student versions, and a gradebook with its CSV.

`python -m tools.gradebook release NAME ...` writes the student versions to assignments/release.
`python -m tools.gradebook export MARKS.json GRADES.csv` puts marks, as `tools.assignments mark`
writes them, into an nbgrader gradebook beside them (MARKS.db), and exports it.

It runs in an environment with the extra `teach` and needs nothing else of this project.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ASSIGNMENTS = Path(__file__).resolve().parent.parent / "assignments"


def student_version(notebook: Any) -> Any:
    """An nbgrader source notebook without solutions and outputs, and locked."""
    from nbgrader import preprocessors

    steps = (
        preprocessors.LockCells, preprocessors.ClearSolutions, preprocessors.ClearOutput,
        preprocessors.CheckCellMetadata, preprocessors.ComputeChecksums,
    )  # fmt: skip
    for step in steps:
        notebook, _ = step().preprocess(notebook, {})
    return notebook


def release(names: Sequence[str]) -> None:
    """Write the student versions of the named assignments."""
    import nbformat

    for name in names:
        source = ASSIGNMENTS / "source" / name / f"{name}.ipynb"
        notebook = student_version(nbformat.read(source, as_version=4))
        target = ASSIGNMENTS / "release" / name / f"{name}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        text = nbformat.writes(notebook, version=nbformat.NO_CONVERT).rstrip("\n") + "\n"
        target.write_text(text, encoding="utf-8")


def export(marks: dict[str, Any], database: Path, table: Path) -> None:
    """Put `marks` into the gradebook and write nbgrader's CSV of all that it holds.

    marks: `assignment`; `cells`, points that there are by cell; `students`, points by cell of each.
    """
    from nbgrader.api import Gradebook
    from nbgrader.plugins import CsvExportPlugin

    # nbgrader calls alembic, which lies beside this interpreter.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    name = marks["assignment"]
    with Gradebook(f"sqlite:///{database}") as book:
        book.update_or_create_assignment(name)
        book.update_or_create_notebook(name, name)
        for cell, points in marks["cells"].items():
            book.update_or_create_grade_cell(cell, name, name, max_score=points, cell_type="code")
        for student, points_of in marks["students"].items():
            book.update_or_create_student(student)
            book.update_or_create_submission(name, student)
            for cell, points in points_of.items():
                book.find_grade(cell, name, name, student).auto_score = points
        book.db.commit()
        plugin = CsvExportPlugin()
        plugin.to = str(table)
        plugin.export(book)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tools.gradebook")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("release").add_argument("names", nargs="*")
    exporting = commands.add_parser("export")
    exporting.add_argument("marks", type=Path)
    exporting.add_argument("table", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "release":
        everything = sorted(path.name for path in (ASSIGNMENTS / "source").iterdir())
        release(arguments.names or everything)
    else:
        marks = json.loads(arguments.marks.read_text(encoding="utf-8"))
        database = arguments.marks.resolve().with_suffix(".db")
        export(marks, database, arguments.table.resolve())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
