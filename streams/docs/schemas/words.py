"""What the schemas share: closed sets of words, ids and times."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Ms = Annotated[int, Field(ge=0)]
StreamId = Annotated[str, Field(pattern=r"^\d{1,20}-\d{1,20}$", examples=["1795478836845-0"])]
State = Literal["waiting", "active", "completed", "failed", "delayed", "paused", "stuck"]
StateOrRemoved = Literal["waiting", "active", "completed", "failed", "delayed", "paused", "stuck", "removed"]
SourceState = Literal[
    "waiting", "prioritized", "waiting-children", "delayed", "active", "completed", "failed", "unknown"
]
SourceStateOrRemoved = Literal[
    "waiting", "prioritized", "waiting-children", "delayed", "active", "completed", "failed", "unknown", "removed"
]
Place = Literal["wait", "paused", "active", "delayed", "prioritized", "waiting-children", "completed", "failed"]
Cause = Literal[
    "added", "scheduled", "picked_up", "completed", "failed", "attempt_failed", "due", "promoted", "retried",
    "stalled", "rescued", "lock_lost", "rate_limited", "moved", "children_done", "paused", "resumed", "removed",
    "vanished", "replaced", "observed",
]  # fmt: skip
Rule = Literal["failed", "stuck"]
DeadLetterReason = Literal["not_json", "not_object", "missing_field", "wrong_type", "bad_key", "too_large", "internal"]


class Shape(BaseModel):
    """A JSON object; fields without a default are always there."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)
