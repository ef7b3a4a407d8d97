"""What checks annotations at run time: beartype, where an int is also a float (PEP 484).

On a machine without it tests run with --unchecked, and there is nothing to switch off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

try:
    from beartype import BeartypeConf, beartype
    from jaxtyping import config
except ImportError:
    config = None
else:
    checked = beartype(conf=BeartypeConf(is_pep484_tower=True))


@contextlib.contextmanager
def unchecked() -> Iterator[None]:
    """Calls in here are not checked: for sums over thousands of texts, where checking is most of
    the time and has been done on the first of them."""
    if config is None:
        yield
        return
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)
