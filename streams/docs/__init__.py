"""Documentation made from the code. `python -m streams.docs` writes it; a test says when a file is stale."""

from __future__ import annotations
