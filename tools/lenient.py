"""A pytest plugin: deprecations do not fail a run. Used as `-p tools.lenient` by `make minimum`.

The lowest versions we allow are years old and warn about each other; that is not ours to mend, and
the newest versions are tested with every warning an error.
"""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Let third parties' deprecation warnings pass."""
    for category in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning"):
        config.addinivalue_line("filterwarnings", f"default::{category}")
