"""What checks annotations at run time: beartype, where an int is also a float (PEP 484)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from beartype import BeartypeConf, beartype
from jaxtyping import config

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Calls in here are not checked: for sums over thousands of texts, where checking is most of
    the time and has been done on the first of them."""
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)
