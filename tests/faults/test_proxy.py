"""The proxy is what it says: each kind of bad network, seen by a client and by the server behind."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from streams.local.process import ports
from tests.faults.proxy import HOST, Proxy, Thread


class Echo:
    """A server that gives back what it gets, and keeps it."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = asyncio.Event()
        self.seen = asyncio.Event()
        self.port = 0

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, HOST, 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader, writer):
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                self.got += data
                self.seen.set()
                writer.write(data)
                await writer.drain()
        self.ended.set()
        writer.close()


@pytest.fixture
async def echo():
    echo = Echo()
    echo.port = await echo.start()
    yield echo
    echo.server.close()


@pytest.fixture
async def proxy(echo, tmp_path):
    thread = Thread()
    proxy = Proxy(thread, ports(tmp_path, {"proxy": 0})["proxy"], echo.port)
    proxy.start()
    yield proxy
    await asyncio.to_thread(proxy.stop)
    thread.stop()


async def says(reader, writer, text: bytes) -> bytes:
    writer.write(text)
    await writer.drain()
    return await asyncio.wait_for(reader.readexactly(len(text)), 5)


async def test_bytes_pass_both_ways(proxy):
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    assert await says(reader, writer, b"x" * 200_000) == b"x" * 200_000
    writer.close()


async def test_an_end_is_passed_on(proxy, echo):
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    assert await says(reader, writer, b"one") == b"one"
    writer.write_eof()
    await asyncio.wait_for(echo.ended.wait(), 5)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_a_cut_resets_and_new_connections_pass(proxy):
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    await says(reader, writer, b"one")
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    assert await says(reader, writer, b"two") == b"two"
    writer.close()


async def test_refused_until_healed(proxy):
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(HOST, proxy.port)
    proxy.heal()
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    assert await says(reader, writer, b"two") == b"two"
    writer.close()


async def test_silence_keeps_connections_and_loses_nothing(proxy):
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    await says(reader, writer, b"one")
    proxy.silence()
    writer.write(b"two")
    late_reader, late = await asyncio.open_connection(HOST, proxy.port)
    late.write(b"three")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    proxy.heal()
    assert await asyncio.wait_for(reader.readexactly(3), 5) == b"two"
    assert await asyncio.wait_for(late_reader.readexactly(5), 5) == b"three"
    writer.close()
    late.close()


async def test_slowness_delays_each_way(proxy):
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    proxy.slow(0.1)
    began = time.monotonic()
    await says(reader, writer, b"one")
    assert time.monotonic() - began >= 0.2
    writer.close()


async def test_half_closed_hears_and_does_not_answer(proxy, echo):
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    await says(reader, writer, b"one")
    echo.seen.clear()
    proxy.half_close()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.write(b"two")
    await asyncio.wait_for(echo.seen.wait(), 5)
    assert echo.got == b"onetwo"
    writer.close()


async def test_it_leads_to_another_server(proxy):
    other = Echo()
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    await says(reader, writer, b"one")
    proxy.lead_to(await other.start())
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()
    reader, writer = await asyncio.open_connection(HOST, proxy.port)
    assert await says(reader, writer, b"two") == b"two"
    assert other.got == b"two"
    writer.close()
    other.server.close()
