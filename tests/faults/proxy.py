"""A TCP proxy that can be a bad network: refused, cut, silent, slow, half closed. It runs in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

HOST: Final = "127.0.0.1"
CHUNK_BYTES: Final = 65_536
ANSWER_S: Final = 10.0

T = TypeVar("T")


class Thread:
    """An event loop in a thread: what the test's own loop does meanwhile delays no byte."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there, and wait for its end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(ANSWER_S)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(ANSWER_S)
        self.loop.close()


class Proxy:
    """`port` leads to `upstream` on this host. What the methods do to it holds until `heal`.

    All methods may be called from any thread, and have taken effect when they return.
    """

    def __init__(self, thread: Thread, port: int, upstream: int) -> None:
        self.port, self.upstream = port, upstream
        self._thread = thread
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self._delay_s = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self._half_closed = False

    def start(self) -> None:
        self._thread.call(self._listen())

    def stop(self) -> None:
        self._thread.call(self._end())

    def heal(self) -> None:
        """Everything as it should be; connections that are silent go on where they were."""
        self._thread.call(self._heal())

    def cut(self) -> None:
        """All connections are reset; new ones are taken at once."""
        self._thread.call(self._soon(self._reset))

    def refuse(self) -> None:
        """All connections are reset, and no new one is taken."""
        self._thread.call(self._refuse())

    def silence(self) -> None:
        """Connections stay and new ones are taken, and no byte passes."""
        self._thread.call(self._soon(self._open.clear))

    def slow(self, delay_s: float) -> None:
        """Every chunk is held for so long, in both directions."""

        def change() -> None:
            self._delay_s = delay_s

        self._thread.call(self._soon(change))

    def half_close(self) -> None:
        """The server's side ends of every connection, now and to come; what the client says still arrives."""

        def change() -> None:
            self._half_closed = True
            for pair in self._pairs:
                pair.end_of_answers()

        self._thread.call(self._soon(change))

    def lead_to(self, upstream: int) -> None:
        """Another server from now on; connections to the old one are reset."""

        def change() -> None:
            self.upstream = upstream
            self._reset()

        self._thread.call(self._soon(change))

    @property
    def connections(self) -> int:
        return len(self._pairs)

    async def _soon(self, change: Callable[[], None]) -> None:
        change()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, HOST, self.port, limit=CHUNK_BYTES)

    async def _refuse(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._reset()

    async def _heal(self) -> None:
        if self._half_closed:  # those connections are of no use to anybody
            self._reset()
        self._half_closed = False
        self._delay_s = 0.0
        self._open.set()
        await self._listen()

    async def _end(self) -> None:
        await self._refuse()
        self._open.set()
        for pair in list(self._pairs):
            await pair.over()

    def _reset(self) -> None:
        for pair in self._pairs:
            pair.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pair = _Pair(reader, writer)
        self._pairs.add(pair)
        try:
            await self._open.wait()
            await pair.connect(self.upstream)
            if self._half_closed:
                pair.end_of_answers()
            await pair.run(self._hold)
        except OSError:
            pair.reset()  # the server refuses
        finally:
            self._pairs.discard(pair)

    async def _hold(self) -> None:
        """Before each chunk is passed on."""
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if not self._open.is_set():
            await self._open.wait()


class _Pair:
    """One client's connection and ours to the server in its name."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._server: asyncio.StreamWriter | None = None
        self._answers: asyncio.StreamReader | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._done = asyncio.Event()
        self._mute = False
        self._was_reset = False

    async def connect(self, port: int) -> None:
        self._answers, self._server = await asyncio.open_connection(HOST, port, limit=CHUNK_BYTES)
        if self._was_reset:
            self.reset()

    async def run(self, hold: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._server is not None
        assert self._answers is not None
        self._tasks = [
            asyncio.create_task(self._pass_on(self._reader, self._server, hold)),
            asyncio.create_task(self._pass_on(self._answers, self._writer, hold)),
        ]
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in (self._writer, self._server):
            writer.close()
        self._done.set()

    async def over(self) -> None:
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        self._was_reset = True
        for writer in (self._writer, self._server):
            if writer is not None:
                _abort(writer)

    def end_of_answers(self) -> None:
        """The client reads an end of the stream, and may go on to write."""
        self._mute = True
        if not self._writer.is_closing():
            with contextlib.suppress(OSError):
                self._writer.write_eof()

    async def _pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, hold: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                await hold()
                if self._mute and sink is self._writer:
                    continue
                sink.write(data)
                await sink.drain()
            if not sink.is_closing() and not (self._mute and sink is self._writer):
                sink.write_eof()
        except OSError:
            self.reset()


def _abort(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN: a half-written request must not look like a whole one."""
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    writer.transport.abort()
