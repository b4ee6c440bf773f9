"""The recorder: what ever stood in a stream and what became of it, out of commands, and out of a real server's file."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest
import redis

from tests.faults.history import DELETED, LOST, PRESENT, TRIMMED, UNDONE, Entry, History, digest
from tests.faults.proxy import Thread
from tests.faults.redis import Server, _parse

KEY = b"bull:q:events"


def words(text: str) -> list[bytes]:
    return [word.encode() for word in text.split()]


def added(number: int, more: str = "") -> list[bytes]:
    return words(f"XADD bull:q:events {more} {number}-0 event added jobId {number}")


@pytest.fixture
def history() -> History:
    history = History()
    for number in range(1, 6):
        history.apply(added(number))
    return history


def fates(history: History) -> list[str]:
    return [entry.fate for entry in history.stream("q").entries]


class TestCommands:
    def test_an_entry_has_its_word_and_job(self, history):
        entry = history.stream("q").entries[0]
        assert (entry.stream_id, entry.event, entry.job_id, entry.era) == ("1-0", "added", "1", 0)

    @pytest.mark.parametrize(
        ("command", "left"),
        [
            ("XTRIM bull:q:events MAXLEN = 2", 2),
            ("XTRIM bull:q:events MAXLEN 0", 0),
            ("XTRIM bull:q:events MINID = 4-0", 2),
            ("XADD bull:q:events MAXLEN = 2 9-0 event x", 2),
            ("XADD bull:q:events NOMKSTREAM MINID ~ 5-0 LIMIT 10 9-0 event x", 2),
            ("XDEL bull:q:events 1-0 7-0", 4),
        ],
    )
    def test_trims(self, history, command, left):
        history.apply(words(command))
        assert len(history.stream("q").present) == left
        assert set(fates(history)) == {PRESENT, TRIMMED} if left else {TRIMMED}
        assert history.stream("q").era == 0

    @pytest.mark.parametrize(
        "command", ["DEL x bull:q:events y", "UNLINK bull:q:events", "FLUSHALL", "SET bull:q:events x"]
    )
    def test_what_ends_a_stream_begins_a_history(self, history, command):
        history.apply(words(command))
        assert fates(history) == [DELETED] * 5
        history.apply(added(3))
        last = history.stream("q").entries[-1]
        assert (last.era, last.fate, history.stream("q").began) == (1, PRESENT, [DELETED])

    def test_a_stream_that_is_not_there_cannot_end_twice(self, history):
        for command in ("DEL bull:q:events", "DEL bull:q:events", "FLUSHALL"):
            history.apply(words(command))
        assert history.stream("q").era == 1

    def test_an_empty_stream_has_a_history_too(self, history):
        history.apply(words("XTRIM bull:q:events MAXLEN 0"))
        history.apply(words("DEL bull:q:events"))
        assert history.stream("q").era == 1

    def test_other_keys_are_no_streams(self, history):
        for command in ("SET bull:q:meta 1", "HSET bull::events a b", "DEL bull:q:meta", "MULTI", "SELECT 0"):
            history.apply(words(command))
        assert list(history.streams) == ["q"]

    def test_what_it_does_not_know_is_said(self, history):
        with pytest.raises(ValueError, match="XSETID"):
            history.apply(words("XSETID bull:q:events 9-0"))


class TestAnotherCopy:
    def contents(self, *numbers: int, job: str = "") -> dict:
        return {KEY: [(b"%d-0" % number, words(f"event added jobId {job or number}")) for number in numbers]}

    def test_the_same_is_the_same_history(self, history):
        history.become(self.contents(1, 2, 3, 4, 5))
        assert (fates(history), history.stream("q").era) == ([PRESENT] * 5, 0)

    def test_one_that_had_less_has_undone_the_rest(self, history):
        history.become(self.contents(1, 2, 3))
        assert fates(history) == [PRESENT] * 3 + [UNDONE] * 2
        assert [entry.last_era for entry in history.stream("q").entries] == [-1, -1, -1, 0, 0]
        history.apply(added(4))
        last = history.stream("q").entries[-1]
        assert (last.stream_id, last.era) == ("4-0", 1)

    def test_one_without_the_stream_has_lost_it(self, history):
        history.become({})
        assert fates(history) == [LOST] * 5
        assert history.stream("q").began == [LOST]

    def test_the_same_id_with_another_content_is_another_entry(self, history):
        history.become({KEY: [*self.contents(1, 2)[KEY], (b"3-0", words("event added jobId 77"))]})
        assert fates(history) == [PRESENT] * 2 + [UNDONE] * 3 + [PRESENT]
        assert history.stream("q").entries[-1].era == 1

    def test_what_had_been_trimmed_stands_there_again(self, history):
        history.apply(words("XTRIM bull:q:events MAXLEN 2"))
        history.become(self.contents(1, 2, 3, 4))
        assert fates(history) == [PRESENT] * 4 + [UNDONE]


def test_a_digest_differs_with_every_part():
    one = digest("added", "1", {"name": "x"})
    others = [
        digest("waiting", "1", {"name": "x"}),
        digest("added", "2", {"name": "x"}),
        digest("added", "1", {"name": "y"}),
    ]
    others += [digest("added", "1", {"nam": "ex"}), digest("added", "1", {})]
    assert one not in others
    entry = Entry.of("q", b"1-0", words("event added name x jobId 1"), 0)
    assert entry.digest == one


def test_half_a_command_waits():
    data = b"*2\r\n$3\r\nDEL\r\n$1\r\nx\r\n*1\r\n$5\r\nMUL"
    assert _parse(data) == [([b"DEL", b"x"], len(b"*2\r\n$3\r\nDEL\r\n$1\r\nx\r\n"))]


@pytest.mark.system
class TestARealServer:
    @pytest.fixture
    def server(self, tmp_path):
        thread = Thread()
        server = Server(tmp_path, thread)
        server.start()
        yield server
        server.stop()
        thread.stop()

    @pytest.fixture
    def writing(self, server):
        """Entries at full speed, whatever happens to the server."""
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                try:
                    with redis.Redis(port=server.application.port, socket_timeout=2, retry=None) as client:  # type: ignore[arg-type]  # none wanted
                        while not stop.is_set():
                            client.xadd(KEY, {"event": "added", "jobId": time.monotonic_ns()}, maxlen=3_000)
                except redis.RedisError:
                    stop.wait(0.02)

        thread = threading.Thread(target=write)
        thread.start()
        yield
        stop.set()
        thread.join()

    def grown(self, server: Server) -> Counter[str]:
        """Its fates, once entries have come since; what the server has is what is thought to be there."""
        stream = server.history.stream("q")
        before, end = len(stream.entries), time.monotonic() + 10
        while len(stream.entries) < before + 200:
            assert time.monotonic() < end
            server.record()
        with server.direct as client:
            found = [entry[0].decode() for entry in client.xrange(KEY)]
        server.record()
        known = [entry.stream_id for entry in stream.present.values()]
        assert not set(found[-100:]) - set(known)
        return Counter(fates(server.history))

    @pytest.mark.usefixtures("writing")
    def test_nothing_is_missed_and_every_history_is_told(self, server):
        stream = server.history.stream("q")
        self.grown(server)
        server.restart(kill=True)
        server.restart(kill=False)
        server.fail_over(0)
        assert self.grown(server)[UNDONE] == 0
        assert stream.era == 0
        server.set_back(0.5)
        undone = self.grown(server)[UNDONE]
        assert undone
        assert stream.era == 1
        server.fail_over(0.5)
        more = self.grown(server)[UNDONE]
        assert more > undone
        kept = server.save()
        self.grown(server)
        server.restore(kept)
        assert self.grown(server)[UNDONE] > more
        server.restart_empty()
        assert self.grown(server)[LOST]
        assert stream.began == [UNDONE, UNDONE, UNDONE, LOST]

    @pytest.mark.usefixtures("writing")
    def test_a_trim_and_an_end_by_anybody(self, server):
        self.grown(server)
        with server.direct as client:
            client.xtrim(KEY, 10, approximate=False)
            assert self.grown(server)[TRIMMED]
            client.delete(KEY)
            assert self.grown(server)[DELETED]
            client.flushall()
            assert self.grown(server)[DELETED]
        assert server.history.stream("q").began == [DELETED, DELETED]
