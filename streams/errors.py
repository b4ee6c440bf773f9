"""Errors that are told to the user in a few words instead of a traceback."""

from __future__ import annotations

from typing import ClassVar


class UserError(Exception):
    """Its text says what is wrong and what to do, one line for each thing; the command ends with `exit_code`."""

    exit_code: ClassVar[int] = 1
