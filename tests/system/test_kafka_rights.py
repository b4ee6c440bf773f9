"""The rights on Kafka that docs/operations.md names suffice for each process, and it needs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis.asyncio as redis
from aiokafka import AIOKafkaProducer
from bullmq import Queue

from streams.topology import TOPICS, full_name
from tests.acl_kafka import GROUP, TOPIC, TRANSACTION, AclKafka, acl_kafka
from tests.system import oracle
from tests.system.support import Line, until

pytestmark = pytest.mark.system

OPERATIONS_DOC = Path(__file__).parents[2] / "docs" / "operations.md"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AclKafka]:
    yield from acl_kafka(tmp_path_factory.mktemp("acl-kafka"))


def documented(who: str) -> list[tuple[tuple[str, ...], list[str]]]:
    """(operations, topics) of the row of the table on Kafka's rights that begins so."""
    row = next(line for line in OPERATIONS_DOC.read_text("utf-8").splitlines() if line.startswith(f"| {who} |"))
    rights = []
    for right in row.split("|")[2].split(";"):
        operations, _, topics = right.strip().partition(" on ")
        names = [topic.name for topic in TOPICS] if topics == "all" else re.findall(r"`([^`]+)`", topics)
        rights.append((tuple(operations.split(", ")), names))
    return rights


async def grant(secure: AclKafka, prefix: str, user: str, who: str) -> None:
    for operations, names in documented(who):
        for name in names:
            await secure.allow(user, TOPIC, full_name(prefix, name), operations, begins=False)


@pytest.fixture
async def lines(secure, redis_server, prefix, tmp_path):
    """What each user runs: all with the same settings but for their logins."""
    made = {}
    for user in ("admin", "apply", "bridge", "worker", "reader"):
        (tmp_path / user).mkdir()
        login = {f"BULLMQ_STREAMS_{name}": value for name, value in secure.login(user).items()}
        queues = {"BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES": f'["{prefix}"]'}
        made[user] = Line(secure.open, redis_server, prefix, tmp_path / user, **login, **queues)
    yield made
    for line in made.values():
        line.stop_all()


async def dead_letters(secure: AclKafka, prefix: str) -> set[bytes]:
    records = await oracle.read_all(secure.open, full_name(prefix, "dead-letters"))
    return {dict(record.headers)["dlq_reason"] for record in records}


async def test_they_suffice(secure, lines, redis_server, prefix):
    await grant(secure, prefix, "apply", "`topics apply`")
    await grant(secure, prefix, "bridge", "bridge")
    await secure.allow("bridge", TRANSACTION, f"{prefix}.bridge", ("Write", "Describe"), begins=False)
    await grant(secure, prefix, "worker", "worker")
    await secure.allow("worker", GROUP, f"{prefix}-worker", ("Read",), begins=False)
    await secure.allow("worker", TRANSACTION, f"{prefix}-worker-", ("Write", "Describe"), begins=True)
    await grant(secure, prefix, "reader", "`doctor`, `status`, `tail`")
    await secure.allow("reader", GROUP, f"{prefix}-worker", ("Describe",), begins=False)
    await secure.allow("reader", TRANSACTION, prefix, ("Describe",), begins=True)

    applied = lines["apply"].command("topics", "apply")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    lines["bridge"].start("bridge")
    lines["worker"].start("worker")
    queue = Queue(prefix, {"connection": redis_server})
    await queue.add("crawl", {"n": 1}, {"jobId": "dead"})
    await queue.close()
    client = redis.from_url(redis_server)
    await client.lmove(f"bull:{prefix}:wait", f"bull:{prefix}:active")  # and nobody holds its lock
    await client.xadd(f"bull:{prefix}:events", {"event": "active", "jobId": "dead", "prev": "waiting"})
    await client.xadd(f"bull:{prefix}:events", {"no": "event"})
    await client.aclose()
    async with AIOKafkaProducer(bootstrap_servers=secure.open) as producer:
        await producer.send_and_wait(full_name(prefix, "events"), b"no event at all", b"key")

    async def all_written() -> bool:
        rows = await oracle.rows_of(secure.open, prefix)
        alerts = await oracle.read_all(secure.open, full_name(prefix, "alerts"))
        stuck = [row and row["state"] for row in rows.values()] == ["stuck"]
        return stuck and len(alerts) == 1 and await dead_letters(secure, prefix) == {b"missing_field", b"not_json"}

    try:
        await until(all_written, 60, "row, alert and both dead letters")
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *(line.log_text() for line in lines.values())])) from None
    for command in (["doctor"], ["status"], ["tail", "alerts", "--from", "beginning", "--max", "1"]):
        done = lines["reader"].command(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    for user in ("bridge", "worker"):
        lines[user].stop_all()
        assert lines[user].processes[0].returncode == 0
        assert "uthoriz" not in lines[user].log_text()


@pytest.mark.parametrize(
    ("user", "without", "said"),
    [
        ("bridge", TOPIC, "not to be used by this Kafka user"),
        ("bridge", TRANSACTION, "kafka cannot be used, trying again: TransactionalIdAuthorizationFailed"),
        ("worker", TOPIC, "topics that this Kafka user may not use: {prefix}.alerts.v1"),
        ("worker", GROUP, "group that this Kafka user may not use: {prefix}-worker (needed: Read)"),
        ("worker", TRANSACTION, "transactional id that this Kafka user may not use: {prefix}-worker-0"),
    ],
)
async def test_a_process_says_which_is_missing_and_goes_on_once_it_is_given(secure, lines, prefix, user, without, said):
    applied = lines["admin"].command("topics", "apply")
    assert applied.returncode == 0, applied.stderr
    rights = {
        TOPIC: lambda: grant(secure, prefix, user, user),
        GROUP: lambda: secure.allow("worker", GROUP, f"{prefix}-worker", ("Read",), begins=False),
        TRANSACTION: lambda: secure.allow(user, TRANSACTION, prefix, ("Write", "Describe"), begins=True),
    }
    missing = rights.pop(without)
    for give in rights.values():
        await give()
    line = lines[user]
    process = line.start(user)

    async def logged(text: str) -> bool:
        assert process.poll() is None, line.log_text()
        return text in line.log_text()

    await until(lambda: logged(said.format(prefix=prefix)), 30, said)
    await until(lambda: logged("bullmq-streams doctor says"), 5, "the remedy")
    await missing()
    await until(lambda: logged("can be used again" if user == "bridge" else '"ready"'), 40, "running")
