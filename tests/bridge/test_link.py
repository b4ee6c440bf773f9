"""The connection on a real server: replies that came in one piece, refusals told from absence, progress."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from streams.bridge.bullmq import command
from streams.bridge.link import Away, Link, is_refusal

pytestmark = pytest.mark.system


@pytest.fixture
async def link(redis_server):
    link = Link(redis_server, timeout_s=1.0)
    yield link
    await link.close()


async def test_replies_come_in_their_order_errors_among_them(link):
    commands = [command(b"ECHO", b"%d" % n) if n % 7 else command(b"LPOS", b"x") for n in range(5000)]
    replies = await link.send(commands, len(commands))
    assert all(isinstance(reply, ResponseError) if n % 7 == 0 else reply == str(n) for n, reply in enumerate(replies))
    assert await link.call(b"PING") == "PONG"


async def test_replies_that_were_received_need_no_further_call(link):
    """redis-py's own parser is asked for the first of a piece alone: its name for it is still the one we use."""
    await link.connect()
    assert link._buffered is not None
    assert link._buffered() is link._none


async def test_a_group_that_is_refused_is_its_error_and_the_others_are_answered(link, prefix):
    await link.call(b"SET", prefix.encode(), b"x")
    wrong, right = [command(b"NOSUCH")], [command(b"LPOS", prefix.encode(), b"1"), command(b"ECHO", b"1")]
    first, second = await link.transactions([wrong, right])
    assert isinstance(first, ResponseError)
    assert isinstance(second[0], ResponseError)
    assert second[1] == "1"
    with pytest.raises(ResponseError):
        await link.multi([wrong])


async def test_no_reply_for_a_while_ends_the_connection_and_slow_ones_do_not(link):
    slow = [command(b"BLPOP", b"none", b"0.4")] * 4
    assert await link.send(slow, 4) == [None] * 4
    with pytest.raises(Away):
        await link.send([command(b"BLPOP", b"none", b"3")], 1)
    assert await asyncio.wait_for(link.call(b"PING"), 5) == "PONG"


def test_refusals_and_absence():
    assert is_refusal(NoPermissionError("NOPERM"))
    assert is_refusal(ResponseError("WRONGTYPE"))
    for text in ("BUSY script", "LOADING", "MASTERDOWN", "NOAUTH"):
        assert not is_refusal(ResponseError(text))
    assert not is_refusal(TimeoutError())
