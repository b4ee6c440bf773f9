from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from streams import wire
from streams.commands import errors
from streams.commands import snapshot as command
from streams.commands.errors import CommandError
from streams.commands.snapshot import ASK_AGAIN_S, SILENT_S, Requests
from streams.settings import load
from tests.commands.support import PARTITIONS, lines, put, run, servers
from tests.commands.test_status import heartbeat
from tests.docs.test_schemas import validator

# -- what is kept of the answers --------------------------------------------------------------------------------


def said(request: str, status: str, queue: str = "q", **more: Any) -> bytes:
    value = {"type": "snapshot", "source": "default", "queue": queue, "at": 1, "request": request, "status": status}
    return wire.dumps(value | more)


def test_a_question_is_repeated_until_it_has_begun():
    requests = Requests([("default", "q")], 2, wait=True)
    (request,) = requests.due(0)
    assert list(requests.due(ASK_AGAIN_S - 0.1)) == []
    assert list(requests.due(ASK_AGAIN_S)) == [request]
    assert requests.missing() == ["default/q: no bridge has begun"]
    requests.take(said(request.id, "started", jobs=5, done=0), ASK_AGAIN_S + 1)
    assert list(requests.due(2 * ASK_AGAIN_S + 1)) == []
    requests.take(said(request.id, "progress", jobs=5, done=2), 20)
    assert list(requests.due(20 + SILENT_S - 0.1)) == []
    assert list(requests.due(20 + SILENT_S)) == [request], "the bridge may have been replaced"
    assert requests.missing() == ["default/q: the bridge has looked at 2 of 5 jobs"]


def test_it_is_over_when_all_partitions_have_compared():
    requests = Requests([("default", "q")], 3, wait=True)
    (request,) = requests.due(0)
    requests.take(said(request.id, "compared", partition=1, corrected=2, closed=1), 1)
    requests.take(said(request.id, "finished", jobs=9, done=9, took_ms=1200), 2)
    assert list(requests.due(99)) == []
    assert requests.missing() == ["default/q: partitions 0, 2 have not been compared (is a worker running?)"]
    for partition in (0, 2, 2):
        requests.take(said(request.id, "compared", partition=partition, corrected=1, closed=4), 3)
    assert requests.missing() == []
    assert requests.over() == [request]
    assert {name: request.result()[name] for name in ("status", "jobs", "took_ms", "corrected", "closed")} == {
        "status": "finished",
        "jobs": 9,
        "took_ms": 1200,
        "corrected": 4,
        "closed": 9,
    }


def test_without_waiting_it_is_over_when_it_has_begun():
    requests = Requests([("default", "a"), ("default", "b")], 3, wait=False)
    first, second = requests.due(0)
    assert first.id != second.id
    requests.take(said(first.id, "started"), 1)
    assert requests.missing() == ["default/b: no bridge has begun"]
    assert requests.over() == [first]


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"no json",
        b"5",
        b"[]",
        wire.dumps({"type": "heartbeat", "source": "default", "queue": "q", "at": 1}),
        said("another", "finished"),
        wire.dumps({"type": "snapshot", "source": None, "queue": None, "at": 1}),
        wire.dumps({"type": "snapshot", "source": "default", "queue": "q", "at": 1, "request": ["x"]}),
    ],
)
def test_what_is_not_ours_is_passed_over(value):
    requests = Requests([("default", "q")], 1, wait=True)
    requests.take(value, 1)
    assert requests.missing() == ["default/q: no bridge has begun"]


def test_figures_that_are_none_do_no_harm():
    requests = Requests([("default", "q")], 1, wait=True)
    (request,) = requests.due(0)
    requests.take(said(request.id, "progress", jobs="many", done=None), 1)
    requests.take(said(request.id, "compared", partition="0", corrected="x"), 1)
    requests.take(said(request.id, "compared", partition=0, corrected="x"), 1)
    assert requests.missing() == ["default/q: the bridge has looked at 0 of 0 jobs"]
    assert request.result()["corrected"] == 0
    assert requests.progress() == "0 of 1 queues looked through, 0 of 0 jobs; 0 compared"


def test_a_missing_right_is_said_to_be_one():
    with pytest.raises(CommandError, match=r"refused by Kafka: .*rights"), errors.kafka(load([], {})):
        raise TopicAuthorizationFailedError("bullmq.probes.v1")


# -- on a real broker -------------------------------------------------------------------------------------------

Answer = Callable[[dict[str, Any]], list[dict[str, Any]]]


@contextmanager
def answering(kafka: str, prefix: str, answer: Answer) -> Iterator[list[dict[str, Any]]]:
    """Somebody in the place of bridge and workers; gives the questions that came."""
    asked: list[dict[str, Any]] = []
    ready = threading.Event()
    loop = asyncio.new_event_loop()
    task: list[asyncio.Task[None]] = []

    async def serve() -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
        producer = AIOKafkaProducer(bootstrap_servers=kafka)
        await consumer.start()
        await producer.start()
        try:
            partitions = [TopicPartition(f"{prefix}.probes.v1", number) for number in range(PARTITIONS)]
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek(
                    partition, 0
                )  # the topic is new; to ask for its end may meet a leader that is not yet one
            ready.set()
            async for record in consumer:
                question = json.loads(record.value)
                asked.append(question)
                for value in answer(question):
                    await producer.send_and_wait(f"{prefix}.health.v1", wire.dumps(value), b"default/q")
        finally:
            await consumer.stop()
            await producer.stop()

    def work() -> None:
        task.append(loop.create_task(serve()))
        try:
            loop.run_until_complete(task[0])
        except asyncio.CancelledError:
            pass
        finally:
            loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert ready.wait(30)
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(task[0].cancel)
        thread.join()


def answer_to(question: dict[str, Any], status: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "snapshot",
        "source": question["source"],
        "queue": question["queue"],
        "at": int(time.time() * 1000),
        "request": question["request"],
        "status": status,
        "reason": "request",
        **more,
    }


def whole(question: dict[str, Any], partitions: int = PARTITIONS) -> list[dict[str, Any]]:
    return [
        answer_to(question, "started", jobs=0, done=0),
        answer_to(question, "progress", jobs=70, done=30),
        answer_to(question, "finished", jobs=70, done=70, took_ms=900),
        *(answer_to(question, "compared", partition=number, corrected=1, closed=2) for number in range(partitions)),
    ]


@pytest.fixture
def settings(kafka, prefix):
    settings = servers(kafka, prefix)
    assert run("topics", "apply", **settings).exit_code == 0
    put(
        kafka,
        prefix,
        [heartbeat("mail"), heartbeat("pay/1"), heartbeat("gone", age_s=100), heartbeat("mail", age_s=50)],
    )
    return settings


@pytest.mark.system
def test_it_asks_about_each_queue_that_is_alive_and_waits_for_all_partitions(kafka, prefix, settings):
    with answering(kafka, prefix, whole) as asked:
        result = run("snapshot", "--json", **settings)
    assert result.exit_code == 0, result.output
    found = {each["queue"]: each for each in lines(result)}
    assert {question["queue"] for question in asked} == set(found) == {"mail", "pay/1"}
    assert all(question["job_id"] == "" and question["reason"] == "request" for question in asked)
    for question in asked:
        validator("Probe", closed=True).validate(question)
        for said_ in whole(question):
            validator("Snapshot", closed=True).validate(said_)
    assert found["mail"] | {"at": 0, "request": ""} == {
        "type": "snapshot",
        "source": "default",
        "queue": "mail",
        "at": 0,
        "request": "",
        "status": "finished",
        "reason": "request",
        "jobs": 70,
        "done": 70,
        "took_ms": 900,
        "corrected": PARTITIONS,
        "closed": 2 * PARTITIONS,
    }


@pytest.mark.system
def test_as_text_it_tells_what_was_corrected(kafka, prefix, settings):
    with answering(kafka, prefix, whole) as asked:
        result = run("snapshot", "--queue", "m*", "--source", "default", **settings)
    assert {question["queue"] for question in asked} == {"mail"}
    assert result.exit_code == 0
    assert "✓ default/mail: 70 jobs in 0.9 s, 4 rows corrected, 8 closed" in result.stdout


@pytest.mark.system
def test_without_waiting_it_ends_when_all_have_begun(kafka, prefix, settings):
    with answering(kafka, prefix, lambda question: [answer_to(question, "started")]):
        result = run("snapshot", "--no-wait", **settings)
    assert result.exit_code == 0
    assert result.stdout == "+ default/mail: begun\n+ default/pay/1: begun\n"


@pytest.mark.system
def test_the_question_is_repeated_until_somebody_takes_it(kafka, prefix, settings, monkeypatch):
    monkeypatch.setattr(command, "ASK_AGAIN_S", 0.3)
    seen: dict[str, int] = {}

    def third_time(question: dict[str, Any]) -> list[dict[str, Any]]:
        seen[question["request"]] = seen.get(question["request"], 0) + 1
        return whole(question) if seen[question["request"]] == 3 else []

    with answering(kafka, prefix, third_time):
        assert run("snapshot", "--queue", "mail", **settings).exit_code == 0
    assert list(seen.values()) == [3]


@pytest.mark.system
def test_after_the_timeout_it_names_what_is_missing(kafka, prefix, settings):
    def half(question: dict[str, Any]) -> list[dict[str, Any]]:
        return whole(question, 2) if question["queue"] == "mail" else []

    with answering(kafka, prefix, half):
        result = run("snapshot", "--timeout", "2", **settings)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "error: not finished after 2 s:",
        "error: default/mail: partitions 2, 3 have not been compared (is a worker running?)",
        "error: default/pay/1: no bridge has begun",
    ]


@pytest.mark.system
def test_without_a_queue_that_is_alive_it_says_so(settings):
    result = run("snapshot", "--queue", "gone", **settings)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no queue that matches gone has a heartbeat of the last 60 s; there are 2 others" in result.stderr
