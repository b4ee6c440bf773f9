"""What a test needs and a machine may lack: skipped here with a word, a failure in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str, remedy: str) -> NoReturn:
    """Skip the test, or fail it where the environment says CI=true: a gate must not pass by skipping."""
    text = f"{what}; {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)
