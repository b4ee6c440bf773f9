"""What the local stack tells its user when it cannot go on: one line that ends with what to do."""

from __future__ import annotations

from typing import Final

INSTALL: Final = "pip install 'bullmq-streams[local]'"


class LocalStackError(Exception):
    """The local stack cannot do what was asked. The text names the cause and the remedy."""
