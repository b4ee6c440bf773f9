"""Looks at jobs: each group of them one MULTI, so that place, hash and lock belong to one stream id."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from streams.bridge import bullmq
from streams.bridge.ids import START, Id, parse_id
from streams.bridge.sizes import MULTI_BYTES, MULTI_JOBS
from streams.bridge.stream import VERIFY, Look, Stream
from streams.bridge.walk import Begin, Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from streams.bridge.pace import Pace

HEAD_WIDTH = 4
_PATIENCE_S = 5.0
_ID_BYTES = 100
_EXISTS_BYTES = 10
_WALKED_AT_ONCE = 4
"""MULTIs of a comparison's jobs in one turn: a turn waits for Kafka and for the entries that its looks know of."""
_VERIFIED = 1000
"""Jobs of which is asked at once whether they are there."""
_WALKED = ("snapshot", "pause", "resume")
"""Reasons for which jobs are looked at because they stand in a list, where markers stand too."""


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

    @property
    def is_gone(self) -> bool:
        """Whether there is no stream."""
        return self.added is None and self.at == START and not self.length


def read_head(replies: list[Any]) -> Head:
    """The first HEAD_WIDTH replies. Raises the server's error where there is one but that of an absent stream."""
    head = replies[:HEAD_WIDTH]
    for reply in head:
        if isinstance(reply, Exception) and "no such key" not in str(reply):
            raise reply
    (seconds, micros), info, (paused,), paused_list = head
    observed_at = int(seconds) * 1000 + int(micros) // 1000
    if isinstance(info, Exception):
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
        parse_id(info.get("max-deleted-entry-id") or "0-0"),
    )


@dataclass(slots=True, frozen=True)
class Ask:
    """Commands of one MULTI, and what makes looks of the replies."""

    commands: list[bytes]
    read: Callable[[list[Any]], list[Look]]
    expected_bytes: int


def upcoming(stream: Stream, now_s: float, pace: Pace) -> list[str]:
    """Jobs that `asks` will look at next, as far as their hashes are read."""
    ids = list(islice(stream.wanted, MULTI_JOBS))
    for walk in stream.walks:
        if walk.hurried or not pace.wait_s(now_s):
            ids.extend(islice(walk.ids, MULTI_JOBS * _WALKED_AT_ONCE))
    return ids


def asks(stream: Stream, now_s: float, pace: Pace, limit: int = MULTI_JOBS) -> Iterator[Ask]:
    """What is to be looked at now, at most `limit` jobs a time. Nothing while earlier looks wait for entries.

    A comparison that nobody waits for keeps to `pace`.
    """
    if stream.looks and not _given_up(stream, now_s):
        return
    stream.looked_at_s = now_s
    if stream.wanted:
        wanted = {job_id: stream.wanted[job_id] for job_id in _fitting(stream, stream.wanted, limit)}
        yield _ask_jobs(stream, wanted, lambda: _answered(stream, wanted), lambda job_id: _want(stream, wanted, job_id))
    if stream.verify:
        yield _ask_whether_there(stream, list(islice(stream.verify, _VERIFIED)))
    for walk in stream.walks:
        if walk.ids:
            if not walk.hurried and pace.wait_s(now_s):
                continue
            ids = _fitting(stream, walk.ids, limit * _WALKED_AT_ONCE)
            pace.spend(len(ids), now_s)
            yield from (_ask_walked(stream, walk, ids[at : at + limit]) for at in range(0, len(ids), limit))
        elif walk.places:
            yield _ask_page(stream, walk)


def _fitting(stream: Stream, job_ids: Iterable[str], limit: int) -> list[str]:
    """The first of them that fit into one MULTI."""
    fitting: list[str] = []
    room = MULTI_BYTES
    for job_id in islice(job_ids, limit):
        room -= stream.sizes.of(job_id).size_bytes
        if fitting and room < 0:
            break
        fitting.append(job_id)
    return fitting


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
            stream.searched.discard(job_id)


def _want(stream: Stream, wanted: dict[str, str], job_id: str) -> None:
    stream.wanted[job_id] = wanted[job_id]


def _ask_walked(stream: Stream, walk: Walk, ids: list[str]) -> Ask:
    """The next jobs of a comparison. The list they were found in is read again beside them: that is where they wait.

    Those that have left it meanwhile, and are in no other place, come again.
    """
    wanted = dict.fromkeys(ids, walk.reason)

    def advance() -> None:
        for job_id in ids:
            walk.ids.pop(job_id, None)
            stream.searched.discard(job_id)
        walk.done += len(ids)

    def again(job_id: str) -> None:
        walk.ids[job_id] = None
        walk.done -= 1

    return _ask_jobs(stream, wanted, advance, again, walk)


def _ask_jobs(
    stream: Stream,
    wanted: dict[str, str],
    answered: Callable[[], None],
    again: Callable[[str], None],
    walk: Walk | None = None,
) -> Ask:
    """`answered` is called once the answers are there, `again` for each job that has to be searched for first."""
    keys, sizes = stream.keys, stream.sizes
    commands = list(keys.head)
    searched = {job_id for job_id in wanted if job_id in stream.searched}
    for job_id in wanted:
        id_ = bullmq.raw(job_id)
        commands.append(sizes.command(keys, job_id))
        commands.extend(keys.probe(id_))
        if job_id in searched:
            commands.extend(keys.search(id_))
    again_read = walk.around(keys) if walk is not None else []
    commands.extend(again_read)
    newest = stream.newest

    def read(replies: list[Any]) -> list[Look]:
        head = read_head(replies)
        answered()
        there = replies.pop() if again_read else []
        waiting = dict.fromkeys(there, walk.waits_in) if walk is not None and isinstance(there, list) else {}
        looks, at = [], HEAD_WIDTH
        for job_id, reason in wanted.items():
            width = bullmq.PROBE_WIDTH + (bullmq.SEARCH_WIDTH if job_id in searched else 0)
            look = _look(stream, head, newest, job_id, reason, replies[at : at + width], waiting.get(job_id))
            at += width
            if look is _AGAIN:
                stream.searched.add(job_id)
                again(job_id)
            elif look is not None:
                look.request = None if walk is None else walk.request
                looks.append(look)
        return looks

    return Ask(commands, read, sum(sizes.of(job_id).size_bytes for job_id in wanted))


def _ask_whether_there(stream: Stream, job_ids: list[str]) -> Ask:
    """Jobs that may well be gone: only those that are there are then looked at."""
    newest = stream.newest

    def read(replies: list[Any]) -> list[Look]:
        head = read_head(replies)
        at, after = stand(head, newest)
        looks = []
        for job_id, there in zip(job_ids, replies[HEAD_WIDTH:], strict=True):
            stream.verify.pop(job_id, None)
            if there:
                stream.wanted.setdefault(job_id, VERIFY)
            else:
                paused, now = head.paused, head.observed_at
                looks.append(Look(at, after, job_id, VERIFY, now, found=False, where=None, queue_paused=paused))
        return looks

    commands = [*stream.keys.head, *(stream.keys.exists(bullmq.raw(job_id)) for job_id in job_ids)]
    return Ask(commands, read, _EXISTS_BYTES * len(job_ids))


def _ask_page(stream: Stream, walk: Walk) -> Ask:
    newest = stream.newest

    def read(replies: list[Any]) -> list[Look]:
        head = read_head(replies)
        elements = replies[HEAD_WIDTH]
        place, ids = walk.turn([] if isinstance(elements, Exception) else elements)
        walk.jobs += len(dict.fromkeys(ids))
        if walk.looks:
            if walk.begin is None:
                walk.begin = Begin(stream.epoch, stand(head, newest)[0], max(head.observed_at, stream.observed_at))
            walk.ids.update(dict.fromkeys(ids))
            return []
        in_doubt = dict.fromkeys(filter(bullmq.is_marker, ids), walk.reason)
        stream.wanted.update({job_id: reason for job_id, reason in in_doubt.items() if job_id not in stream.wanted})
        return [_placed(head, newest, job_id, walk.reason, place) for job_id in ids if job_id not in in_doubt]

    return Ask([*stream.keys.head, walk.command(stream.keys)], read, walk.page * _ID_BYTES)


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


_AGAIN: Final = Look(START, START, "", "", 0, found=False, where=None, queue_paused=False)
"""Stands for a look that has yet to be made: the job is in none of the places that tell at once."""


def _look(
    stream: Stream, head: Head, newest: Id, job_id: str, reason: str, replies: list[Any], waits_in: str | None
) -> Look | None:
    """None where the look tells nothing: a marker, a place that cannot be read. `waits_in` = a list it was seen in."""
    at, after = stand(head, newest)
    look = Look(at, after, job_id, reason, head.observed_at, found=False, where=None, queue_paused=head.paused)
    hash_, left_out = stream.sizes.read(job_id, replies[0])
    if hash_ is None:
        return None if bullmq.is_marker(job_id) and reason in _WALKED else look
    try:
        place, look.due_at, look.lock_ttl_ms = bullmq.where_of(replies[1 : bullmq.PROBE_WIDTH])
        search = replies[bullmq.PROBE_WIDTH :]
        place = place or waits_in
        if place is None and not search:
            return _AGAIN
        look.where = place or bullmq.waits_in(search, paused_list=head.paused_list)
    except bullmq.UnseenError:
        return None
    look.found, look.job, look.left_out = True, hash_, left_out
    return look
