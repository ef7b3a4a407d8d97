"""The packages of `companion` and what imports what: `python -m tools.packages` prints it.

A package imports only from those before it in `ORDER`; within a package, no module imports, however
indirectly, one that imports it; and no study imports another.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tools.chapters import ROOT

PACKAGE = ROOT / "companion"

#: The packages, each of which imports only from those before it.
ORDER = (
    "core", "text", "sources", "models", "losses", "generation", "evaluation", "training",
    "compression", "runs", "interop", "generalization", "preferences", "world", "studies",
    "figures", "teaching", "cli", "__main__",
)  # fmt: skip
#: These stand alone: what they need comes in as arguments.
ALONE = ("figures", "teaching")


def modules() -> dict[str, Path]:
    """Files of the package by dotted name, `companion` left off; a package's own name is that of
    its `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = path
    return found


def imports(source: str, module: str, known: Mapping[str, Path] | None = None) -> set[str]:
    """The modules of the package that `source`, the text of `module`, imports, wherever it does."""
    known = modules() if known is None else known
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = ["companion", *module.split(".")][: -node.level]
                base = ".".join([*above, base] if base else above)
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] != "companion":
                continue
            # Of `companion.models.lstm.LSTMConfig` the module is the longest part that is a file.
            found |= {
                next(
                    (dotted for end in range(len(parts), 1, -1)
                     if (dotted := ".".join(parts[1:end])) in known),
                    parts[1] if len(parts) > 1 and not parts[1].startswith("__") else module,
                )
            }  # fmt: skip
    return found - {module}


def wrong_imports(source: str, module: str, known: Mapping[str, Path] | None = None) -> list[str]:
    """Those imports of `source` that point the wrong way, or into a package of no place."""
    own = module.split(".")[0]
    wrong = []
    for other in sorted(imports(source, module, known)):
        package = other.split(".")[0]
        if package == own:
            between_studies = own == "studies" and {module, other}.isdisjoint(
                {"studies", "studies.runner"}
            )
            if between_studies:
                wrong.append(other)
        elif package not in ORDER or ORDER.index(package) >= ORDER.index(own) or own in ALONE:
            wrong.append(other)
    return wrong


def graph() -> dict[str, set[str]]:
    """What each module imports."""
    known = modules()
    return {
        name: imports(path.read_text(encoding="utf-8"), name, known) for name, path in known.items()
    }


def cycle(arrows: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a ring; none where there is no ring."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def main() -> int:
    """Print each package with its number of modules and lines and what it imports; 1 where an
    import points the wrong way."""
    known, arrows, status = modules(), graph(), 0
    for package in ORDER:
        mine = [name for name in known if name.split(".")[0] == package]
        lines = sum(known[name].read_text(encoding="utf-8").count("\n") for name in mine)
        others = {other.split(".")[0] for name in mine for other in arrows[name]} - {package}
        shown = ", ".join(sorted(others, key=lambda name: ORDER.index(name))) or "-"
        print(f"{package:15} {len(mine):3} modules {lines:6} lines   imports {shown}")
    for name, path in known.items():
        for other in wrong_imports(path.read_text(encoding="utf-8"), name, known):
            print(f"against the order: {name} imports {other}")
            status = 1
    ring = cycle(arrows)
    if ring:
        print(f"a ring: {' -> '.join(ring)}")
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
