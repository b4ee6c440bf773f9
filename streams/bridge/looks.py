"""Looks at jobs: each group of them one MULTI, so that place, hash and lock belong to one stream id."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from streams.bridge import bullmq
from streams.bridge.ids import START, Id, parse_id
from streams.bridge.stream import Look, Stream
from streams.bridge.walk import Begin, Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAD_WIDTH = 4
_PER_TURN = 200
_PATIENCE_S = 5.0


@dataclass(slots=True, frozen=True)
class Head:
    """What every MULTI begins with: the server's clock, the stream's last id, the queue's pause.

    `after` = the last entry still in the stream; `added` None where the stream is gone.
    """

    at: Id
    after: Id
    added: int | None
    length: int
    paused: bool
    paused_list: bool
    observed_at: int
    first: Id | None = None
    deleted: Id = START


def read_head(replies: list[Any]) -> Head:
    """The first HEAD_WIDTH replies. Raises the server's error where it is not that of an absent stream."""
    (seconds, micros), info, (paused,), paused_list = replies[:HEAD_WIDTH]
    observed_at = int(seconds) * 1000 + int(micros) // 1000
    if isinstance(info, Exception):
        if "no such key" not in str(info):
            raise info
        return Head(START, START, None, 0, paused is not None, bool(paused_list), observed_at)
    last = info["last-entry"]
    after = parse_id(last[0]) if last else START
    at = parse_id(info["last-generated-id"])
    first = info["first-entry"]
    return Head(
        at,
        after,
        info.get("entries-added"),
        info["length"],
        paused is not None,
        bool(paused_list),
        observed_at,
        parse_id(first[0]) if first else None,
        parse_id(info.get("max-deleted-entry-id", "0-0")),
    )


@dataclass(slots=True, frozen=True)
class Ask:
    """Commands of one MULTI, and what makes looks of the replies."""

    commands: list[bytes]
    read: Callable[[list[Any]], list[Look]]


def asks(stream: Stream, now_s: float) -> Iterator[Ask]:
    """What is to be looked at now. Nothing while earlier looks wait for entries to pass them."""
    if stream.looks and not _given_up(stream, now_s):
        return
    stream.looked_at_s = now_s
    if stream.wanted:
        wanted = dict(islice(stream.wanted.items(), _PER_TURN))
        yield _ask_jobs(stream, wanted, lambda: _answered(stream, wanted))
    for walk in stream.walks:
        if walk.ids:
            ids = list(islice(walk.ids, _PER_TURN))
            yield _ask_jobs(stream, dict.fromkeys(ids, walk.reason), _advance(walk, len(ids)), walk.request)
        elif walk.places:
            yield _ask_page(stream, walk)


def _given_up(stream: Stream, now_s: float) -> bool:
    """Whether looks have waited for entries that were trimmed meanwhile: then they are made again."""
    if stream.buffer or now_s - stream.looked_at_s < _PATIENCE_S:
        return False
    for look in stream.looks:
        stream.wanted.setdefault(look.job_id, look.reason)
    stream.looks.clear()
    return True


def _answered(stream: Stream, wanted: dict[str, str]) -> None:
    for job_id, reason in wanted.items():
        if stream.wanted.get(job_id) == reason:
            del stream.wanted[job_id]


def _advance(walk: Walk, count: int) -> Callable[[], None]:
    def advance() -> None:
        for _ in range(count):
            walk.ids.popleft()
        walk.done += count

    return advance


def _ask_jobs(stream: Stream, wanted: dict[str, str], answered: Callable[[], None], request: str | None = None) -> Ask:
    commands = list(stream.keys.head)
    for job_id in wanted:
        commands.extend(stream.keys.probe(bullmq.raw(job_id)))
    newest = stream.newest

    def read(replies: list[Any]) -> list[Look]:
        head = read_head(replies)
        starts = range(HEAD_WIDTH, len(replies), bullmq.PROBE_WIDTH)
        looks = [
            _look(head, newest, job_id, reason, replies[at : at + bullmq.PROBE_WIDTH])
            for at, (job_id, reason) in zip(starts, wanted.items(), strict=True)
        ]
        for look in looks:
            look.request = request
        answered()
        return looks

    return Ask(commands, read)


def _ask_page(stream: Stream, walk: Walk) -> Ask:
    newest = stream.newest

    def read(replies: list[Any]) -> list[Look]:
        head = read_head(replies)
        elements = replies[HEAD_WIDTH]
        place, ids = walk.turn([] if isinstance(elements, Exception) else elements)
        walk.jobs += len(ids)
        if walk.looks:
            if walk.begin is None:
                walk.begin = Begin(stream.epoch, stand(head, newest)[0], head.observed_at)
            walk.ids.extend(ids)
            return []
        return [_placed(head, newest, job_id, walk.reason, place) for job_id in ids]

    return Ask([*stream.keys.head, walk.command(stream.keys)], read)


def stand(head: Head, newest: Id) -> tuple[Id, Id]:
    """A look's id, and the entry it has to wait for. `newest` = the last entry read when the look was sent off.

    Where the stream is gone, or its ids went back, the look is newer than all that was read of it. Read by
    now means nothing: the reader may have got entries that the look does not know.
    """
    if head.added is None or head.at < newest:
        return newest, newest
    return head.at, max(head.after, newest)


def _placed(head: Head, newest: Id, job_id: str, reason: str, place: str) -> Look:
    at, after = stand(head, newest)
    return Look(at, after, job_id, reason, head.observed_at, found=True, where=place, queue_paused=head.paused)


def _look(head: Head, newest: Id, job_id: str, reason: str, replies: list[Any]) -> Look:
    at, after = stand(head, newest)
    hash_, *rest = replies
    look = Look(at, after, job_id, reason, head.observed_at, found=False, where=None, queue_paused=head.paused)
    if bullmq.is_job(hash_):
        look.found = True
        look.where, look.due_at, look.lock_ttl_ms = bullmq.where_of(rest, paused_list=head.paused_list)
        look.job = hash_
    return look
