"""What `doctor` finds in the queues of a source: which ones the bridge will refuse, which are trimmed too soon."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from streams.bridge import bullmq, discovery, refusal
from streams.bridge.link import Link
from streams.bridge.looks import read_head
from streams.commands.findings import Finding
from streams.settings import Source

LEAST_BULLMQ: Final = 4
DEFAULT_ENTRIES: Final = 10_000
NEARLY_NOTHING: Final = 100
_SHOWN: Final = 5
_AT_ONCE: Final = 500
_REMEDIES: Final = {
    "bad_name": "give the queue a name that is UTF-8 and has at most 1,000 bytes: it stands in keys on Kafka",
    "wrong_type": "another program uses the key: rename it there, or leave the queue out by exclude",
    "no_permission": "give the user the right to read these keys, or leave the queue out by exclude",
    "unreadable": "see what Redis says, or leave the queue out by exclude",
}


@dataclass(slots=True)
class Opened:
    """What opening the queues has shown. `refused`: by reason, the names escaped, each with Redis' own words."""

    queues: list[str] = field(default_factory=list)
    refused: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def refuse(self, name: str, reason: refusal.Reason, said: str) -> None:
        """It cannot be opened."""
        self.refused.setdefault(reason, []).append((refusal.printable(name), said))


async def examine(check: str, source: Source, link: Link) -> AsyncIterator[Finding]:
    """All findings about the queues. Raises one of link.Away."""
    opened = await open_all(source, link)
    for finding in refusals(check, opened):
        yield finding
    queues = opened.queues
    if not queues:
        wanted = ", ".join(source.queues)
        message = f"no queue matches {wanted} under the prefix {source.prefix}"
        yield Finding(
            "warning", check, message, "they appear with the first Queue of BullMQ; else check prefix and queues"
        )
        return
    yield Finding("ok", check, f"{len(queues)} queue{'s' * (len(queues) != 1)}: {_list(queues)}")
    limits, versions = await _metas(link, source.prefix, queues)
    for finding in (*judge_limits(check, limits), *_versions(check, versions)):
        yield finding


async def open_all(source: Source, link: Link) -> Opened:
    """Find and open every queue as the bridge does: one that cannot be opened is put aside, the others go on."""
    opened = Opened()
    names = []
    for name in sorted(await discovery.find(link, source.prefix, source.queues, source.exclude)):
        wrong = refusal.bad_name(name)
        if wrong is None:
            names.append(name)
        else:
            opened.refuse(name, "bad_name", wrong)
    for start in range(0, len(names), _AT_ONCE):
        part = names[start : start + _AT_ONCE]
        answers = await link.transactions([bullmq.Keys(source.prefix, name).trial for name in part])
        for name, answer in zip(part, answers, strict=True):
            try:
                read_head(refusal.replies(answer))
            except Exception as error:  # noqa: BLE001 - whatever it is, the bridge will not read the queue
                opened.refuse(name, refusal.reason_of(error), refusal.said_by(error))
            else:
                opened.queues.append(name)
    return opened


def refusals(check: str, opened: Opened) -> Iterator[Finding]:
    """One finding for each reason."""
    for reason, queues in sorted(opened.refused.items()):
        names = _list([name for name, _ in queues])
        message = (
            f"the bridge refuses {len(queues)} queue{'s' * (len(queues) != 1)} ({reason}): {names}; {queues[0][1]}"
        )
        yield Finding("error", check, message, _REMEDIES[reason])


async def _metas(link: Link, prefix: str, queues: list[str]) -> tuple[dict[str, int], Counter[str]]:
    """Stream limit by queue, and how often each version of BullMQ wrote a queue."""
    replies: list[Any] = []
    for start in range(0, len(queues), _AT_ONCE):
        part = queues[start : start + _AT_ONCE]
        replies += await link.send([bullmq.Keys(prefix, queue).limits for queue in part], len(part))
    limits, versions = {}, Counter[str]()
    for queue, reply in zip(queues, replies, strict=True):
        if isinstance(reply, Exception):
            continue
        limit, version = bullmq.number(reply[0]), reply[1]
        if limit is not None:
            limits[queue] = limit
        versions[version or "unknown"] += 1
    return limits, versions


def judge_limits(check: str, limits: dict[str, int]) -> Iterator[Finding]:
    """Whether the streams keep enough to be read; `limits` in entries by queue."""
    remedy = "new Queue(name, {streams: {events: {maxLen: 100000}}}) in every program that opens the queue"
    low = sorted(queue for queue, limit in limits.items() if limit < DEFAULT_ENTRIES)
    if low:
        message = f"the event stream keeps less than {DEFAULT_ENTRIES:,} entries in: {_list(low)}"
        yield Finding("warning", check, f"{message}; a burst is trimmed before it can be read", remedy)
    none = sorted(queue for queue, limit in limits.items() if limit <= NEARLY_NOTHING)
    if none:
        message = f"the event stream keeps next to nothing ({NEARLY_NOTHING} entries or less) in: {_list(none)}"
        yield Finding("warning", check, f"{message}; their jobs are only known by looking at them", remedy)
    usual = sum(limit == DEFAULT_ENTRIES for limit in limits.values())
    if usual:
        message = f"{usual} queue{'s' * (usual != 1)} with BullMQ's default of {DEFAULT_ENTRIES:,} stream entries"
        yield Finding("info", check, f"{message}, the events of less than a second at full speed", remedy)


def _versions(check: str, versions: Counter[str]) -> Iterator[Finding]:
    seen = ", ".join(f"{version} ({count})" for version, count in sorted(versions.items()))
    yield Finding("info", check, f"last written by: {seen}")
    old = sorted(v for v in versions if 0 < major(v.rpartition(":")[2]) < LEAST_BULLMQ)
    if old:
        message = f"{', '.join(old)} is older than BullMQ {LEAST_BULLMQ}, the first that is supported"
        yield Finding("warning", check, message, "upgrade BullMQ")


def major(version: str) -> int:
    """Of `5.81.5`, 5; 0 where it is no version."""
    digits = version.partition(".")[0]
    return int(digits) if digits.isdecimal() else 0


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
