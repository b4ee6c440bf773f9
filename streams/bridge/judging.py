"""Ask Redis what tells which history a stream is in, and go on as the verdict says."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from streams.bridge import sequencer
from streams.bridge.asking import Question
from streams.bridge.history import Now, is_doubtful, judge
from streams.bridge.identity import ReplicaError
from streams.bridge.ids import START, format_id, parse_id
from streams.bridge.looks import HEAD_WIDTH, read_head

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Sequence

    from streams.bridge.asking import Asking
    from streams.bridge.history import Past, Server, Verdict
    from streams.bridge.identity import Identity
    from streams.bridge.ids import Id
    from streams.bridge.looks import Head
    from streams.bridge.sequencer import Taken
    from streams.bridge.stream import Stream

_ENTRY_BYTES: Final = 1_000


class Judging:
    """The verdicts of one source."""

    def __init__(self, asking: Asking, identity: Identity) -> None:
        """Asked over the connection over which jobs are looked at."""
        self._asking = asking
        self._identity = identity

    async def all(
        self,
        turns: Sequence[tuple[Stream, Taken]],
        stop: asyncio.Event,
        failed: Callable[[Stream, Exception], None],
        concluded: Callable[[Stream, Verdict, Head], None],
    ) -> bool:
        """A verdict on each, told to `concluded`; False where `stop` came while Redis was away.

        Nearly always the last entries tell. Where they do not, all that are remembered are asked for.
        """
        parted: list[tuple[Stream, Taken]] = []
        behind: list[Stream] = []

        def conclude(stream: Stream, verdict: Verdict, head: Head) -> None:
            if verdict.cause == "behind":
                behind.append(stream)
            else:
                concluded(stream, verdict, head)

        def first(stream: Stream, taken: Taken, verdict: Verdict, head: Head) -> None:
            if verdict.begins_epoch and stream.memory.trail:
                parted.append((stream, taken))
            else:
                conclude(stream, verdict, head)

        asked = [self._question(*turn, partial(first, *turn), whole=False) for turn in turns]
        if not await self._asking.all(asked, stop, failed):
            return False
        asked = [self._question(*turn, partial(conclude, turn[0]), whole=True) for turn in parted]
        answered = await self._asking.all(asked, stop, failed)
        if behind:
            await self._asking.away(ReplicaError("this replica has not received yet what was read from another"))
        return answered

    def _question(
        self, stream: Stream, taken: Taken, concluded: Callable[[Verdict, Head], None], *, whole: bool
    ) -> Question:
        kept = stream.memory.kept(sequencer.tail_of(stream, taken))
        ids = dict.fromkeys(past.at for past in (kept.tail, kept.position, *(kept.trail if whole else ())))
        ids.pop(START, None)
        commands = [*stream.keys.head, *(stream.keys.entry(format_id(at).encode()) for at in ids)]

        def answer(replies: list[Any]) -> None:
            head = read_head(replies)
            now = now_of(head, self._identity.server, signs_of(ids, replies[HEAD_WIDTH:]))
            concluded(judge(kept, now), head)

        return Question(stream, commands, _ENTRY_BYTES * len(ids), answer, list)


def signs_of(ids: Collection[Id], replies: list[Any]) -> dict[Id, int]:
    """What the entries of these ids are, of those that are there."""
    found = (reply[0] for reply in replies if isinstance(reply, list) and reply)
    signs = {parse_id(entry[0]): sequencer.sign(tuple(entry)) for entry in found}
    return {at: sign for at, sign in signs.items() if at in ids}


def now_of(head: Head, server: Server, signs: dict[Id, int]) -> Now:
    """What a head says of its stream."""
    if head.is_gone:
        return Now(server, None)
    return Now(server, head.at, head.first, head.added, head.length, head.deleted, signs)


def doubt(stream: Stream, read: Past, head: Head) -> bool:
    """Whether a head contradicts what had been read when it was asked for; then the stream is to be judged."""
    if is_doubtful(read, now_of(head, stream.memory.server, {})):
        stream.unsure = True
        return True
    return False
