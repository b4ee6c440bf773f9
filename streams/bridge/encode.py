"""Make Kafka records of entries, looks and the bridge's own messages."""

from __future__ import annotations

import json
import traceback
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from streams import topology, wire
from streams.bridge import bullmq
from streams.bridge.ids import format_id
from streams.bridge.limits import Limits
from streams.bridge.stream import Entry, Look, Raw, Stream, fields_of
from streams.core.job import partition_of

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_KEY_BYTES: Final = 10_000
_AHEAD_MS: Final = 60_000
_MOST_AROUND: Final = 60_000
"""Most that key and headers of a record take: each name in them is bounded."""
_MOST_HEADER: Final = 100
_LONG_FIELD: Final = 10_000
_SHORT_FIELD: Final = 200

_rfc3339 = lru_cache(maxsize=4096)(wire.rfc3339)


class Record(NamedTuple):
    """One record, its partition decided. `topic` is the short name."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int
    headers: wire.Headers


class Encoder:
    """Records of one stream. Not for use by several tasks at once."""

    def __init__(
        self,
        stream: Stream,
        partitions: int,
        wall_ms: Callable[[], int],
        *,
        max_text_bytes: int = 65_536,
        limits: Limits | None = None,
    ) -> None:
        """`partitions` of the topics keyed by job; `wall_ms` = wall clock, bounding the records' times.

        `max_text_bytes` of an error's text; `limits` of the topics, as they are when a record is made.
        """
        self._stream = stream
        self._max_text_bytes = max_text_bytes
        self._limits = limits or Limits()
        self._partitions = partitions
        self._wall_ms = wall_ms
        self._prefix = f"{stream.name}/"
        self._source_header = ("ce_source", f"/{stream.name}".encode())
        self._types: dict[str, list[tuple[str, bytes]]] = {}
        self._jobs: dict[int, tuple[wire.Raw, list[str]]] = {}
        self._latest_ms = 0
        self._surely_fits = 0
        self.set_aside: list[str] = []
        """Reasons of this turn's dead letters."""

    def begin(self) -> None:
        """Start of a turn."""
        self._jobs.clear()
        self.set_aside.clear()
        self._latest_ms = self._wall_ms() + _AHEAD_MS
        self._surely_fits = self._limits.of(topology.EVENTS) - _MOST_AROUND

    def end(self) -> None:
        """End of a turn: its hashes are forgotten, which thousands of quiet queues would hold on to else."""
        self._jobs.clear()

    def entry(self, entry: Entry) -> list[Record]:
        """The entry's record on events, and what had to be set aside of it."""
        fields, cut = self._cut(entry.fields) if "failedReason" in entry.fields else (entry.fields, [])
        value: dict[str, Any] = {
            "kind": "entry",
            "source": self._stream.source,
            "queue": self._stream.queue,
            "job_id": entry.job_id,
            "event": entry.event,
            "epoch": self._stream.epoch,
            "stream_id": entry.stream_id,
            "fields": fields,
            "queue_paused": entry.queue_paused,
            "job": None,
            "enriched": False,
        }
        if entry.job is not None:
            value["job"], cut_of_job = self._job(entry.job)
            value["job_as_of"] = entry.job_as_of
            value["enriched"] = not entry.left_out
            if cut_of_job or entry.left_out:
                cut = [*cut, *cut_of_job, *(f"job.{bullmq.our_name(name)}" for name in entry.left_out)]
        if entry.event == bullmq.WAITING:
            value["where"] = entry.where
            if entry.stalled:
                value["stalled"] = True
        elif entry.exhausted is not None:
            value["exhausted"] = entry.exhausted
        if cut:
            value["cut"] = cut
        headers = self._headers(self._prefix + self._id(entry.stream_id), entry.event, entry.job_id, entry.at[0])
        return self._record(value, entry.at[0], headers, entry)

    def look(self, look: Look) -> list[Record]:
        """The look's record on events."""
        stream_id = format_id(look.at)
        job, cut = (None, []) if look.job is None else self._job(look.job)
        value = {
            "kind": "look",
            "source": self._stream.source,
            "queue": self._stream.queue,
            "job_id": look.job_id,
            "event": "observed",
            "reason": look.reason,
            "epoch": self._stream.epoch,
            "stream_id": stream_id,
            "observed_at": look.observed_at,
            "found": look.found,
            "where": look.where,
            "due_at": look.due_at,
            "lock_ttl_ms": look.lock_ttl_ms,
            "queue_paused": look.queue_paused,
            "job": job,
            "enriched": look.job is not None and not look.left_out,
        }
        if look.request is not None:
            value["request"] = look.request
        if look.replica:
            value["replica"] = True
        if cut or look.left_out:
            value["cut"] = [*cut, *(f"job.{bullmq.our_name(name)}" for name in look.left_out)]
        ce_id = f"{self._prefix}{look.job_id}/observed/{self._id(stream_id)}/{look.observed_at}"
        headers = self._headers(ce_id, "observed", look.job_id, look.observed_at)
        return self._record(value, look.observed_at, headers, look)

    def malformed(self, raw: Raw) -> Record:
        """The dead letter of an entry without `event`."""
        fields = fields_of(raw)
        value = _dumps_bytes(fields)
        return self._dead(raw[0], fields.get("jobId", ""), value, "missing_field", "the entry has no field event")

    def failed(self, item: Entry | Look, error: Exception) -> Record:
        """The dead letter of what could not be made a record of: our own fault."""
        job_id = clean(item.job_id)
        value = _dumps_bytes(item.fields if isinstance(item, Entry) else {"jobId": item.job_id})
        return self._dead(_id_of(item), job_id, value, "internal", where(error))

    def _id(self, stream_id: str) -> str:
        """A stream id within all histories of its stream."""
        return f"{stream_id}~{self._stream.epoch}" if self._stream.epoch else stream_id

    def _cut(self, fields: dict[str, str]) -> tuple[dict[str, str], list[str]]:
        texts = bullmq.Texts(self._max_text_bytes)
        return {**fields, "failedReason": texts.fit("fields.failedReason", fields["failedReason"])}, texts.cut

    def _record(self, value: dict[str, Any], at_ms: int, headers: wire.Headers, item: Entry | Look) -> list[Record]:
        extra: list[Record] = []
        try:
            encoded = wire.dumps(value)
            key = (self._prefix + item.job_id).encode()
        except (TypeError, UnicodeEncodeError):
            extra.append(self._not_text(value, item))
            value = clean(value)
            encoded, key = wire.dumps(value), f"{self._prefix}{value['job_id']}".encode()
        if item.left_out:
            extra.append(self._left_out(item))
        if len(encoded) > self._surely_fits or len(key) > _MAX_KEY_BYTES:
            most = self._limits.value_bytes(topology.EVENTS, key, headers)
            if len(encoded) > most or len(key) > _MAX_KEY_BYTES:
                extra.append(self._too_large(item, len(encoded), most))
                lighter = slim(value, most)
                if lighter is None or len(key) > _MAX_KEY_BYTES:
                    return extra
                encoded = lighter
        at = min(at_ms, self._latest_ms)
        record = Record(topology.EVENTS, partition_of(key, self._partitions), key, encoded, at, headers)
        return [record, *extra]

    def _not_text(self, value: dict[str, Any], item: Entry | Look) -> Record:
        original = _dumps_bytes(value["fields"] if isinstance(item, Entry) else {"jobId": item.job_id})
        return self._dead(_id_of(item), item.job_id, original, "wrong_type", "not UTF-8; replaced on events")

    def _too_large(self, item: Entry | Look, size_bytes: int, most: int) -> Record:
        """Of an entry all that was in the stream is kept; of the job nothing: Redis has it."""
        original = _dumps_bytes(_whole(item) if isinstance(item, Entry) else {"jobId": item.job_id})
        error = f"the record has {size_bytes} bytes, {most} fit on events; published there without its job"
        return self._dead(_id_of(item), item.job_id, original, "too_large", error)

    def _left_out(self, item: Entry | Look) -> Record:
        named = ", ".join(f"{name} {size}" for name, size in item.left_out.items())
        error = f"not read, since they fit into no record (bytes): {named}"
        original = _dumps_bytes(_whole(item) if isinstance(item, Entry) else {"jobId": item.job_id})
        return self._dead(_id_of(item), item.job_id, original, "too_large", error)

    def _job(self, hash_: dict[str, str]) -> tuple[wire.Raw, list[str]]:
        known = self._jobs.get(id(hash_))
        if known is None:
            texts = bullmq.Texts(self._max_text_bytes)
            known = self._jobs[id(hash_)] = wire.Raw(dump_job(hash_, texts)), texts.cut
        return known

    def _headers(self, ce_id: str, event: str, job_id: str, at_ms: int) -> wire.Headers:
        kind = "job" if job_id else "queue"
        fixed = self._types.get(event + kind)
        if fixed is None:
            fixed = self._fixed(event, kind)
        return [*fixed, ("ce_id", _bytes(ce_id)), ("ce_time", _rfc3339(min(at_ms, self._latest_ms)))]

    def _fixed(self, event: str, kind: str) -> wire.Headers:
        headers = [
            ("ce_specversion", b"1.0"),
            ("content-type", b"application/json"),
            ("ce_type", b"bullmq.%b.%b.v1" % (kind.encode(), _bytes(event[:_LONG_FIELD]))),
            self._source_header,
        ]
        if len(self._types) < 1000:  # noqa: PLR2004 - custom events may bear any name
            self._types[event + kind] = headers
        return headers

    def _dead(self, stream_id: str, job_id: str, value: bytes, reason: str, error: str) -> Record:
        self.set_aside.append(reason)
        key = _bytes(self._prefix + job_id)[:_MAX_KEY_BYTES]
        now = self._wall_ms()
        headers = [
            ("dlq_stream", self._stream.keys.events),
            ("dlq_stream_id", stream_id.encode()),
            ("dlq_reason", reason.encode()),
            ("dlq_error", error.encode("utf-8", "replace")),
            ("dlq_at", str(now).encode()),
        ]
        most = self._limits.value_bytes(topology.DEAD_LETTERS, key, headers)
        if len(value) > most:
            headers.append(("dlq_length", str(len(value)).encode()))
            value = value[:most]
        return Record(topology.DEAD_LETTERS, 0, key, value, now, headers)


def fit(record: Record, limits: Limits) -> list[Record]:
    """A record that was made under other limits, lighter where it does not fit any more; a table's is left as it is."""
    most = limits.value_bytes(record.topic, record.key, record.headers)
    if len(record.value) <= most:
        return [record]
    if record.topic == topology.DEAD_LETTERS:
        told = ("dlq_length", str(len(record.value)).encode())
        headers = record.headers if any(name == told[0] for name, _ in record.headers) else [*record.headers, told]
        return [record._replace(value=record.value[: most - len(told[1]) - _MOST_HEADER], headers=headers)]
    if record.topic != topology.EVENTS:
        return [record]
    value = wire.loads(record.value)
    lighter = slim(value, most)
    dead = _dead_letter(record, value, f"the record has {len(record.value)} bytes, {most} fit on events")
    return [*([record._replace(value=lighter)] if lighter is not None else []), *fit(dead, limits)]


def _dead_letter(record: Record, value: dict[str, Any], error: str) -> Record:
    original = {"event": value["event"], "jobId": value["job_id"], **value.get("fields", {})}
    headers = [
        ("dlq_stream_id", value["stream_id"].encode()),
        ("dlq_reason", b"too_large"),
        ("dlq_error", error.encode()),
        ("dlq_at", str(record.timestamp_ms).encode()),
    ]
    key = record.key[:_MAX_KEY_BYTES]
    return Record(topology.DEAD_LETTERS, 0, key, wire.dumps(original), record.timestamp_ms, headers)


def where(error: BaseException) -> str:
    """An exception's type and place, for people; never its text, which may hold data."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).stem}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def _whole(entry: Entry) -> dict[str, str]:
    """The entry's fields as they stood in the stream."""
    return {"event": entry.event, **({"jobId": entry.job_id} if entry.job_id else {}), **entry.fields}


def _id_of(item: Entry | Look) -> str:
    return item.stream_id if isinstance(item, Entry) else format_id(item.at)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace") if text.isascii() else clean(text).encode()


def dump_job(hash_: dict[str, str], texts: bullmq.Texts | None = None) -> bytes:
    """A job's JSON, whatever its hash holds."""
    try:
        return wire.dumps(bullmq.decode_job(hash_, embed=True, texts=texts))
    except TypeError:
        if texts is not None:
            texts.cut.clear()
        return wire.dumps(bullmq.decode_job(clean(hash_), embed=True, texts=texts))


def clean(value: Any) -> Any:
    """The same value with bytes that are no UTF-8 replaced by U+FFFD, in all its strings."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, dict):
        return {clean(name): clean(item) for name, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return value


def slim(value: dict[str, Any], most_bytes: int) -> bytes | None:
    """What is left of a record too large for its topic: no job, no long fields, the change of state itself.

    None where not even that fits.
    """
    kept = {name: item for name, item in value.items() if name not in ("job_as_of", "cut")}
    kept |= {"job": None, "enriched": False}
    fields = value.get("fields", {})
    for lighter in (
        {name: text for name, text in fields.items() if len(text) <= _LONG_FIELD >= len(name)},
        {name: text for name, text in fields.items() if name in bullmq.TELLING and len(text) <= _SHORT_FIELD},
    ):
        if "fields" in value:
            kept["fields"] = lighter
        encoded = wire.dumps(kept)
        if len(encoded) <= most_bytes:
            return encoded
    return None


def _dumps_bytes(fields: dict[str, Any]) -> bytes:
    """JSON with the original bytes, UTF-8 or not."""
    try:
        return wire.dumps(fields)
    except TypeError:
        return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogateescape")


def health(stream_name: str, type_: str, value: dict[str, Any], at_ms: int, ce_id: str) -> Record:
    """A record on health. `stream_name` is `<source>/<queue>`, escaped."""
    headers = wire.cloud_event(ce_id.encode(), f"bullmq.health.{type_}.v1", f"/{stream_name}", at_ms)
    return Record(topology.HEALTH, 0, stream_name.encode(), wire.dumps({"type": type_, **value}), at_ms, headers)
