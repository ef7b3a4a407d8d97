"""Which sources a measurement was made with."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commit(*paths: str) -> str:
    """The commit that is checked out; marked where the package, or one of `paths`, differs.

    Away from git, as on a rented machine, the fingerprint of the package's sources.
    """
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"no git; sources {fingerprint()}"
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", "companion", *paths], cwd=ROOT
    )
    return head + (" with changes" if changed.returncode else "")


def fingerprint() -> str:
    """SHA-256 of the package's sources: their paths and contents, in order."""
    found = hashlib.sha256()
    for path in sorted((ROOT / "companion").rglob("*.py")):
        found.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()
