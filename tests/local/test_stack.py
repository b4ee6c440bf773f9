"""The command and the library on real servers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import time

import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams.local import process, ready, stack
from streams.local.__main__ import main
from streams.local.errors import LocalStackError
from streams.local.redis import Redis

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a stack")
    yield stack.up(folder)
    stack.down(folder)


async def topics(bootstrap, *new):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        if new:
            await admin.create_topics([NewTopic(name, 1, 1) for name in new])
        return set(await admin.list_topics())
    finally:
        await admin.close()


async def test_a_stop_and_a_start_keep_addresses_and_data(servers):
    await topics(servers.bootstrap, "kept")
    with redis.Redis.from_url(servers.redis_url) as client:
        client.xadd("stream", {"a": "1"}, id="5-0")
    stack.down(servers.directory)
    assert servers.kafka.process.pid is None
    assert servers.redis.process.pid is None

    again = await asyncio.to_thread(stack.up, servers.directory)

    assert (again.bootstrap, again.redis_url) == (servers.bootstrap, servers.redis_url)
    assert "kept" in await topics(again.bootstrap)
    with redis.Redis.from_url(again.redis_url) as client:
        assert client.xinfo_stream("stream")["last-generated-id"] == b"5-0"


def test_up_on_running_servers_leaves_them_alone(servers):
    before = servers.kafka.process.pid, servers.redis.process.pid
    stack.up(servers.directory)
    assert (servers.kafka.process.pid, servers.redis.process.pid) == before


def test_up_starts_only_the_one_that_is_gone(servers):
    broker = servers.kafka.process.pid
    servers.redis.process.kill()
    stack.up(servers.directory)
    assert servers.redis.is_ready()
    assert servers.kafka.process.pid == broker


def test_the_probe_leaves_no_topic(servers):
    until = time.monotonic() + 10
    while any(name.startswith("local-stack-probe") for name in asyncio.run(topics(servers.bootstrap))):
        assert time.monotonic() < until


def test_a_failure_stops_what_was_started(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(LocalStackError, match="cannot be used"):
        stack.up(tmp_path, kafka_port=taken.getsockname()[1])
    assert Redis(tmp_path / "redis").process.pid is None


def test_a_bad_property_is_told_with_the_brokers_own_words(tmp_path):
    with pytest.raises(LocalStackError, match=r"log\.retention\.hours"):
        stack.up(tmp_path, redis=False, properties={"log.retention.hours": "soon"})


def test_a_redis_whose_folder_is_gone_ends_all_the_same(tmp_path):
    server = Redis(tmp_path / "redis")
    server.start()
    pid = server.process.pid
    assert pid is not None
    ready.wait(server)
    with redis.Redis.from_url(server.url) as client:
        client.set("a", 1)
    shutil.rmtree(tmp_path / "redis")
    os.kill(pid, signal.SIGTERM)
    assert process._gone_within(pid, 10)


def test_options_of_redis(tmp_path):
    server = Redis(tmp_path, options=("--maxmemory", "50mb"))
    server.start()
    try:
        ready.wait(server)
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            assert client.config_get("maxmemory*") == {
                **client.config_get("maxmemory*"),
                "maxmemory": "52428800",
                "maxmemory-policy": "noeviction",
            }
    finally:
        server.process.stop()


def test_the_command_prints_the_addresses(servers, capsys):
    assert main(["up", "--dir", str(servers.directory)]) == 0
    addresses = json.loads(capsys.readouterr().out)
    assert addresses == {"bootstrap": servers.bootstrap, "redis": servers.redis_url}


def test_the_command_stops_them(tmp_path, capsys):
    server = Redis(tmp_path / "redis")
    server.start()
    assert main(["down", "--dir", str(tmp_path)]) == 0
    assert server.process.pid is None
    assert "stopping redis" in capsys.readouterr().err


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["up", "--dir", str(tmp_path), "--redis-port", port]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: port {port} cannot be used")


def test_down_on_a_folder_that_is_not_there_is_fine(tmp_path):
    assert main(["down", "--dir", str(tmp_path / "nowhere")]) == 0
    assert not (tmp_path / "nowhere").exists()
