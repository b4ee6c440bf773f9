"""Records of the topic `events`: what makes one acceptable, and where it stands in the order of its stream."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from streams.core.job import job_key
from streams.core.text import LARGEST

Event = dict[str, Any]
"""A checked value of `events` (contract 2.1): an entry of BullMQ's stream, or an observation."""

OBSERVED: Final = "observed"
ENTRY: Final = "entry"
LOOK: Final = "look"
"""The two kinds of record."""

REASONS: Final = ("not_json", "not_object", "missing_field", "wrong_type", "bad_key", "too_large", "internal")
"""The closed set of `dlq_reason`."""

OPENS_NO_LIFE: Final = frozenset(
    {"duplicated", "deduplicated", "debounced", "stalled", "retries-exhausted", "progress", "removed"}
)
"""Entries that name a job without saying where it is: an unknown job is asked for, not invented."""

_STREAM_ID: Final = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_PARTS_END: Final = 2**64
"""Both parts of a stream id are unsigned, of 64 bits."""

_DASH: Final = -2
"""Where the dash stands in ids whose sequence has one digit."""


class BadRecordError(ValueError):
    """A record that cannot be folded. `reason` is one of REASONS; the text says what was wrong and where."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Order(NamedTuple):
    """A record's place in one history of its stream: (`stream_id`, entry before observation, `observed_at`)."""

    ms: int
    seq: int
    observation: bool
    observed_at: int


def is_look(event: Event) -> bool:
    """Whether a record is an observation: records say it, older ones (without `kind`) show it by their shape.

    The word alone tells nothing: anybody may write an entry called `observed` into a stream.
    """
    if "kind" in event:
        said: bool = event["kind"] == LOOK
        return said
    return event["event"] == OBSERVED and "observed_at" in event and "fields" not in event


def ms_of(stream_id: str) -> int:
    """The time in a stream id; ids are unsigned, times are not: what lies beyond is the last time that there is."""
    ms = int(stream_id[:_DASH] if stream_id[_DASH] == "-" else stream_id.partition("-")[0])
    return min(ms, LARGEST)


def order_of(stream_id: str, observed_at: int | None) -> Order:
    """The place of an entry (`observed_at` None) or of an observation."""
    ms, _, seq = stream_id.partition("-")
    return Order(int(ms), int(seq), observed_at is not None, observed_at or 0)


def is_after(stream_id: str, observed_at: int | None, position: str, position_observed_at: int | None) -> bool:
    """Whether the first stands strictly behind the second in the order of their stream, both of one history."""
    if len(stream_id) == len(position) and stream_id[_DASH] == position[_DASH] == "-" and stream_id != position:
        return stream_id > position  # as text they sort as numbers do: the case of nearly all events
    return order_of(stream_id, observed_at) > order_of(position, position_observed_at)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_stream_id(value: object) -> bool:
    if not isinstance(value, str) or _STREAM_ID.fullmatch(value) is None:
        return False
    return all(int(part) < _PARTS_END for part in value.split("-"))


def _is_fields(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _is_ms(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _is_whole_or_null(value: object) -> bool:
    return value is None or (type(value) is int and -LARGEST - 1 <= value <= LARGEST)


def _is_kind(value: object) -> bool:
    return value in (ENTRY, LOOK) if isinstance(value, str) else False


def _is_text_or_null(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_job(value: object) -> bool:
    return value is None or isinstance(value, dict)


_Check = tuple[str, Callable[[object], bool], str]
_COMMON: Final[tuple[_Check, ...]] = (
    ("source", _is_text, "text"),
    ("queue", _is_text, "text"),
    ("job_id", _is_text, "text"),
    ("event", _is_text, "text"),
    ("stream_id", _is_stream_id, "a stream id such as 1795478836845-0"),
)
_ENTRY: Final[tuple[_Check, ...]] = (("fields", _is_fields, "an object of texts"),)
_KIND: Final[tuple[_Check, ...]] = (("kind", _is_kind, f"{ENTRY!r} or {LOOK!r}"),)
_LOOK: Final[tuple[_Check, ...]] = (
    ("observed_at", _is_ms, "milliseconds since the epoch"),
    ("found", _is_flag, "true or false"),
)
_OPTIONAL: Final[tuple[_Check, ...]] = (
    ("job", _is_job, "an object or null"),
    ("epoch", _is_ms, "a whole number, 0 or more"),
    ("exhausted", _is_whole_or_null, "a whole number or null"),
)
_OPTIONAL_OF_A_LOOK: Final[tuple[_Check, ...]] = (
    ("where", _is_text_or_null, "text or null"),
    ("due_at", _is_whole_or_null, "a whole number or null"),
    ("lock_ttl_ms", _is_whole_or_null, "a whole number or null"),
)
_JOB_TEXTS: Final = ("name", "failed_reason")
_JOB_NUMBERS: Final = (
    "timestamp",
    "delay",
    "priority",
    "attempts_made",
    "attempts_started",
    "stalled_count",
    "processed_on",
    "finished_on",
)


def _require(value: Event, checks: tuple[_Check, ...]) -> None:
    for name, accepts, wanted in checks:
        if name not in value:
            raise BadRecordError("missing_field", f"the field {name!r} is missing")
        if not accepts(value[name]):
            raise BadRecordError("wrong_type", f"{name!r} should be {wanted}, not {value[name]!r:.80}")


def _require_job(job: dict[str, Any]) -> None:
    for name in _JOB_TEXTS:
        text = job.get(name)
        if text is not None and not isinstance(text, str):
            raise BadRecordError("wrong_type", f"'job.{name}' should be text, not {text!r:.80}")
    for name in _JOB_NUMBERS:
        number = job.get(name)
        if not _is_whole_or_null(number):
            raise BadRecordError("wrong_type", f"'job.{name}' should be a whole number of 64 bits, not {number!r:.80}")
    if not isinstance(job.get("opts", {}), dict):
        raise BadRecordError("wrong_type", f"'job.opts' should be an object, not {job['opts']!r:.80}")
    if not isinstance(job.get("stacktrace", []), list):
        raise BadRecordError("wrong_type", "'job.stacktrace' should be a list")
    if not is_parent(job.get("parent")):
        raise BadRecordError("wrong_type", f"'job.parent' should name a job or be null, not {job['parent']!r:.80}")


def is_parent(value: object) -> bool:
    """Whether this may stand as a job's `parent`: null, or an object whose `id` and `queue` are texts or null."""
    if value is None:
        return True
    if not isinstance(value, dict):
        return False
    return all(name in value and _is_text_or_null(value[name]) for name in ("id", "queue"))


def check(value: object, key: bytes | None) -> Event:
    """The value as an Event. Raises BadRecordError when it is none, or when `key` is not the key of its job."""
    if not isinstance(value, dict):
        raise BadRecordError("not_object", f"an event is a JSON object, not {type(value).__name__}")
    _require(value, _COMMON)
    if "kind" in value:
        _require(value, _KIND)
    look = is_look(value)
    if look and value["event"] != OBSERVED:
        raise BadRecordError("wrong_type", f"'event' of a look should be {OBSERVED!r}, not {value['event']!r:.80}")
    _require(value, _LOOK if look else _ENTRY)
    optional = (*_OPTIONAL, *_OPTIONAL_OF_A_LOOK) if look else _OPTIONAL
    _require(value, tuple(one for one in optional if one[0] in value))
    if value.get("job"):
        _require_job(value["job"])
    wanted = job_key(value["source"], value["queue"], value["job_id"])
    if key != wanted.encode("utf-8", "surrogatepass"):
        raise BadRecordError("bad_key", f"the key {key!r:.120} is not that of the value's job, {wanted!r:.120}")
    return value
