"""Text that BullMQ wrote as JSON, or that somebody else put in its place."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | None) -> Any:
    """The value of a JSON text; None for none. What is no JSON is kept as the text that it is."""
    if text is None or text == "null":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
