"""Write the repository's address wherever it is copied.

`python -m tools.repository https://github.com/owner/name` moves the project; without an argument it
brings each chapter's first cell to the present address and branch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tools import chapters


def pages(url: str) -> str:
    """The address of the site that GitHub Pages serves for the repository at `url`."""
    match = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)", url)
    if match is None or url.endswith((".git", "/")):
        raise SystemExit(f"the address must look like https://github.com/owner/name, got {url}")
    owner, name = match.groups()
    return f"https://{owner.lower()}.github.io/{name}/"


def replace_everywhere(old: str, new: str) -> list[str]:
    """Replace the address, and its site's, in every committed text file; the files changed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=chapters.ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    changed = []
    for name in listed.stdout.splitlines():
        path = chapters.ROOT / name
        try:
            before = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        after = re.sub(rf"{re.escape(old)}(?![\w-])", new, before)
        after = after.replace(pages(old), pages(new))
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(name)
    return changed


def write_first_cells() -> list[str]:
    """Bring the first code cell of each chapter to the present address and branch."""
    changed = []
    for path in chapters.toc_notebooks():
        notebook = chapters.read_notebook(path)
        cell = next(c for c in notebook["cells"] if c["cell_type"] == "code")
        source = chapters.first_cell()
        if "import companion" not in "".join(cell["source"]):
            raise SystemExit(f"{path}: the first code cell must be the one that imports companion")
        if "".join(cell["source"]) != source:
            cell["source"] = source.splitlines(keepends=True)
            text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
            path.write_text(text, encoding="utf-8")
            changed.append(str(path.relative_to(chapters.ROOT)))
    return changed


def main() -> None:
    """Command line: the new address, or nothing."""
    old, changed = chapters.repository_url(), []
    if len(sys.argv) > 1:
        pages(sys.argv[1])
        changed = replace_everywhere(old, sys.argv[1])
    changed += write_first_cells()
    print("\n".join(changed) or "nothing to change")


if __name__ == "__main__":
    main()
