"""Whether a tag may be released, and the release's notes.

`python -m tools.release v1.2.0` prints the changelog's section on the version, or what is wrong.
"""

from __future__ import annotations

import re
import sys

from tools import chapters


def notes(tag: str, changelog: str, version: str) -> str:
    """The notes of the release that `tag` names; ValueError where it is not ready."""
    if tag != f"v{version}":
        raise ValueError(
            f"the tag is {tag} and the version {version}: set the version in "
            f"companion/__init__.py and CITATION.cff, or tag v{version}"
        )
    sections = re.split(r"(?m)^## ", changelog)
    found = [section for section in sections if section.split(maxsplit=1)[:1] == [version]]
    if not found:
        raise ValueError(f"CHANGELOG.md has no section: ## {version}")
    heading, _, text = found[0].partition("\n")
    if "unreleased" in heading:
        raise ValueError(f"CHANGELOG.md calls {version} unreleased: put the date there")
    return text.strip() + "\n"


def main() -> None:
    """Command line: the tag."""
    if len(sys.argv) != 2:
        raise SystemExit("name the tag: python -m tools.release v1.2.0")
    changelog = (chapters.ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    try:
        print(notes(sys.argv[1], changelog, chapters.version()), end="")
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
