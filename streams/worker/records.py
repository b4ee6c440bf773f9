"""Events and rows as the worker reads them: checked against a shape while they are read, payloads left as they are.

A job's data, result and parent, and the older steps of a history, go from event to row and from row to row
as the bytes they came in: nothing here looks into them, so nothing can change in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Literal, TypedDict

from streams import wire
from streams.core.events import OBSERVED, BadRecordError, Event, check, is_look, is_parent
from streams.core.job import job_key
from streams.core.row import Row
from streams.engine import Codec
from streams.wire import Carried, JSONDecodeError, Moment, ShapeError, Whole


class _Opts(TypedDict, total=False):
    attempts: Any
    delay: Any
    priority: Any
    removeOnFail: Any


class _Job(TypedDict, total=False):
    """What the fold reads of a job's hash."""

    name: str | None
    data: Carried
    opts: _Opts
    timestamp: Whole | None
    delay: Whole | None
    priority: Whole | None
    attempts_made: Whole | None
    attempts_started: Whole | None
    stalled_count: Whole | None
    processed_on: Whole | None
    finished_on: Whole | None
    failed_reason: str | None
    stacktrace: list[Any]
    progress: Any
    return_value: Carried
    parent: Carried
    counts_starts: Any
    deferred_failure: Any


class _Event(TypedDict, total=False):
    """A record of `events`, entry or observation; what else stands in it, the fold does not read."""

    kind: Literal["entry", "look"]
    epoch: Moment
    source: str
    queue: str
    job_id: str
    event: str
    stream_id: str
    fields: dict[str, str]
    queue_paused: Any
    stalled: Any
    exhausted: Whole | None
    job: _Job | None
    where: str | None
    reason: Any
    observed_at: Moment
    found: bool
    due_at: Whole | None
    lock_ttl_ms: Whole | None
    replica: Any


class _Row(TypedDict, total=False):
    id: str
    name: str
    data: Carried
    progress: Any
    delay: int
    timestamp: int
    attempts_made: int
    finished_on: int | None
    processed_on: int | None
    failed_reason: str | None
    state: str
    source: str
    queue: str
    life: int
    source_state: str
    since: int
    due_at: int | None
    position: str
    observed_at: int | None
    seq: int
    max_attempts: int | None
    priority: int
    stalled_count: int
    return_value: Carried
    parent: Carried
    enriched: bool
    estimated: list[str]
    history: list[Carried]
    epoch: int
    _: dict[str, Any]


_is_usual_id: Final = re.compile(r"[0-9]{1,19}-[0-9]{1,19}").fullmatch
"""A stream id that fits into 64 bits for sure."""
_NOT_QUICKLY: Final = (*ShapeError, KeyError, JSONDecodeError)
_read_event: Final[Callable[[bytes], Event]] = wire.reader(_Event)
_read_row: Final[Callable[[bytes], Row]] = wire.reader(_Row)


def row_of(value: bytes) -> Row:
    """A row of the table; one that another release has written in another shape is read as it is."""
    try:
        return _read_row(value)
    except ShapeError:
        row: Row = wire.loads(value)
        return row


ROWS: Final = Codec(read=row_of, write=wire.pack)


def event_of(value: bytes | None, key: bytes | None) -> Event:
    """The event in a record of `events`. Raises BadRecordError.

    What does not have the shape is read again, slowly, by rules that can say what is wrong (`events.check`).
    """
    if not value:
        raise BadRecordError("not_json", "the value is empty")
    try:
        if not value.isascii():
            value.decode()  # the reader does not look into what is carried
        event = _read_event(value)
        of_its_job = key == job_key(event["source"], event["queue"], event["job_id"]).encode()
        if of_its_job and _is_usual_id(event["stream_id"]) and _is_whole(event):
            return event
    except _NOT_QUICKLY:
        pass
    return _explain(value, key)


def _is_whole(event: Event) -> bool:
    job = event.get("job")
    if job == {} or (job and "parent" in job and not is_parent(wire.loads(job["parent"]))):
        return False
    word = event["event"]
    if is_look(event):
        return word == OBSERVED and "observed_at" in event and "found" in event
    return "fields" in event


def _explain(value: bytes, key: bytes | None) -> Event:
    try:
        event = wire.loads(value)
    except JSONDecodeError as error:
        raise BadRecordError("not_json", f"the value is no JSON: {error}") from None
    return check(event, key)
