"""What stands in the HTML of a model that runs in the page."""

from __future__ import annotations

import base64
import json
from typing import Any

from companion.teaching.play import METADATA, WEIGHTS


def file_in(page: str) -> bytes:
    """The weights of the first model in some HTML."""
    found = WEIGHTS.search(page)
    assert found is not None
    return base64.b64decode(found[1], validate=True)


def settings_in(file: bytes) -> dict[str, Any]:
    """What the file says of the tokens and of the form."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    settings: dict[str, Any] = json.loads(header["__metadata__"][METADATA])
    return settings
