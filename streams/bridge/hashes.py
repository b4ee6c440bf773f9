"""A job's hash in Redis: BullMQ's fields under our names, whatever anybody wrote into them.

With `bullmq` the only module that knows BullMQ's names. What it returns can always be written as JSON once bytes that
are no UTF-8 have been replaced: numbers fit 64 bits or are None, texts that are too long are cut.
"""

from __future__ import annotations

import json
from math import floor, isfinite, isnan
from operator import is_not
from typing import TYPE_CHECKING, Any, Final

from streams import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence


def raw(text: str) -> bytes:
    """The bytes that redis had, given the text made of them."""
    return text.encode("utf-8", "surrogateescape")


def _as_is(text: str) -> str:
    return text


def decode_job(hash_: dict[str, str], *, embed: bool = False, texts: Texts | None = None) -> dict[str, Any]:
    """A job's hash under our names; absent fields are absent keys, numbers that are none or too large are None.

    `embed` leaves JSON texts as they are, checked, for `wire.dumps` to put in place: half the price, and
    numbers keep every digit. `texts` cuts those that are too long, and keeps their paths. Options that are no object
    and stacks that are no list are left out.
    """
    fields = _EMBEDDED if embed else _PARSED
    job: dict[str, Any] = {}
    for name, text in hash_.items():
        field = fields.get(name)
        if field is not None:
            job[field[0]] = field[1](text)
    job["attempts_made"] = _count(hash_, "attemptsMade", "atm")
    if "attemptsMade" in hash_:
        job["counts_starts"] = True
    job["stalled_count"] = _count(hash_, "stc", "stalledCounter")
    parent = parent_of(hash_)
    if parent is not None:
        job["parent"] = parent
    if texts is not None and not hash_.keys().isdisjoint(_CUT):
        _cut(hash_, job, texts)
    for name, opening in _SHAPED:
        if name in job and (isinstance(job[name], str) or hash_[name].lstrip(_JSON_SPACE)[:1] != opening):
            del job[name]
    return job


def _count(hash_: dict[str, str], *names: str) -> int | None:
    """The first of two fields that says a number, and not 0; None where neither can be read."""
    found: int | None = 0
    for name in names:
        text = hash_.get(name)
        if text is not None:
            found = number(text)
            if found:
                break
    return found


def _cut(hash_: dict[str, str], job: dict[str, Any], texts: Texts) -> None:
    for name in ("failedReason", "defa"):
        if name in hash_:
            ours = _PLAIN[name][0]
            job[ours] = texts.fit(f"job.{ours}", hash_[name])
    stacks = hash_.get("stacktrace", "")
    if len(stacks) > texts.surely_fits:
        value = parsed(stacks)
        if isinstance(value, list):
            fitted = [
                texts.fit(f"job.stacktrace[{n}]", each) if isinstance(each, str) else each
                for n, each in enumerate(value)
            ]
            job["stacktrace"] = fitted if any(map(is_not, fitted, value)) else job["stacktrace"]


class Texts:
    """Cuts the texts of one record to a length, and remembers which."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` of UTF-8, with what is said of the rest."""
        self.max_bytes = max_bytes
        self.surely_fits = max_bytes // 4
        """So many characters fit, whatever they are."""
        self.cut: list[str] = []

    def fit(self, path: str, text: str) -> str:
        """The text, or as much of it as fits with `… (N bytes)` behind, N = its own length."""
        if len(text) <= self.surely_fits:
            return text
        whole = raw(text)
        if len(whole) <= self.max_bytes:
            return text
        self.cut.append(path)
        rest = f"… ({len(whole)} bytes)"
        kept = whole.decode("utf-8", "replace").encode()[: self.max_bytes - len(rest.encode())]
        return kept.decode("utf-8", "ignore") + rest


def number(text: str | None) -> int | None:
    """An integer from BullMQ's decimal text (BullMQ 4 writes some as floats), None where it is none or too large."""
    if text is not None and len(text) <= _SURELY_FITS and text.isascii() and text.isdigit():
        return int(text)
    value = _exact(text)
    return value if value is not None and -LARGEST <= value <= LARGEST else None


def time_of(text: str) -> int | None:
    """As `number`, but what is too large is the nearest that fits: for times and delays."""
    if len(text) <= _SURELY_FITS and text.isascii() and text.isdigit():
        return int(text)
    value = _exact(text)
    return None if value is None else max(-LARGEST, min(LARGEST, value))


def nearest(value: float) -> int:
    """The whole number below, or the nearest that fits into 64 bits; 0 for what is no number."""
    if isnan(value):
        return 0
    return int(max(-LARGEST, min(LARGEST, floor(value) if isfinite(value) else value)))


def _exact(text: str | None) -> int | None:
    """Of a text that is no number at all None; infinity is larger than any."""
    if text is None or len(text) > _LONGEST_NUMBER or not text.isascii() or "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return None
    if isnan(value):
        return None
    return int(value) if isfinite(value) else (LARGEST + 1 if value > 0 else -LARGEST - 1)


def parsed(text: str) -> Any:
    """The JSON value, or the text itself where it is none."""
    try:
        return wire.loads(text)
    except wire.JSONDecodeError:
        lenient = _lenient(text)
        return text if lenient is None else wire.loads(lenient)


def embedded(text: str) -> Any:
    """The JSON text, ready to be embedded, or the text as a string where it is none."""
    try:
        wire.loads(text)
    except wire.JSONDecodeError:
        lenient = _lenient(text)
        return text if lenient is None else wire.Raw(lenient)
    return wire.Raw(text)


def _lenient(text: str) -> bytes | None:
    """JSON that only strict UTF-8 readers refuse (JavaScript's lone surrogates), mended; None where it is no JSON."""
    try:
        value = json.loads(text, parse_constant=_refuse)
        mended = json.dumps(value, ensure_ascii=False).encode("utf-16", "surrogatepass")
        mended_text = mended.decode("utf-16", "replace").encode()
        wire.loads(mended_text)
    except (ValueError, RecursionError):
        return None
    return mended_text


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def parent_of(hash_: dict[str, str]) -> dict[str, Any] | None:
    """`{"id", "queue", …}` of a child's parent, with whatever else BullMQ says of it."""
    if "parent" in hash_:
        parent = parsed(hash_["parent"])
        if isinstance(parent, dict):
            key, id_ = parent.pop("queueKey", None), parent.pop("id", None)
            told = {
                "id": id_ if isinstance(id_, str) else None,
                "queue": key.rpartition(":")[2] if isinstance(key, str) else None,
            }
            return _with_more(told, parent)
    if "parentKey" in hash_:
        parts = hash_["parentKey"].split(":", 2)
        if len(parts) == 3:  # noqa: PLR2004 - prefix, queue, id
            return {"id": parts[2], "queue": parts[1]}
    return None


def _with_more(told: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """What else stands there, but for what cannot be written as JSON again (nested too deep)."""
    try:
        wire.dumps(more)
    except wire.Unpackable:
        return told
    return {**more, **told}


_SHAPED: Final = (("opts", "{"), ("stacktrace", "["))
"""What is of use as an object and as a list alone: anything else is as if it were not there."""
_JSON_SPACE: Final = " \t\n\r"
_CUT: Final = ("failedReason", "defa", "stacktrace")
LARGEST: Final = 2**63 - 1
_SURELY_FITS: Final = 18
"""Digits: the largest number of 64 bits has 19."""
_LONGEST_NUMBER: Final = 400
"""Characters: JavaScript's largest has 309."""

_PLAIN: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "name": ("name", _as_is),
    "failedReason": ("failed_reason", _as_is),
    "defa": ("deferred_failure", _as_is),
    "pb": ("processed_by", _as_is),
    "rjk": ("repeat_job_key", _as_is),
    "deid": ("deduplication_id", _as_is),
    "timestamp": ("timestamp", time_of),
    "delay": ("delay", time_of),
    "priority": ("priority", number),
    "processedOn": ("processed_on", time_of),
    "finishedOn": ("finished_on", time_of),
    "ats": ("attempts_started", number),
}
_JSON: Final = {
    "data": "data",
    "opts": "opts",
    "progress": "progress",
    "returnvalue": "return_value",
    "stacktrace": "stacktrace",
}
_PARSED: Final = {**_PLAIN, **{name: (ours, parsed) for name, ours in _JSON.items()}}
_EMBEDDED: Final = {**_PLAIN, **{name: (ours, embedded) for name, ours in _JSON.items()}}
FIELDS: Final = (*_PARSED, "attemptsMade", "atm", "stc", "stalledCounter", "parent", "parentKey")
"""All fields of a hash that are understood."""


def fields_read(values: Sequence[str | None], without: Container[str] = ()) -> dict[str, str]:
    """The hash, as far as `Keys.fields` has asked for it."""
    names = [name for name in FIELDS if name not in without]
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def our_name(field: str) -> str:
    """What a field of the hash is called in a record."""
    return _PARSED[field][0]
