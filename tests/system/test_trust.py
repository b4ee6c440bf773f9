"""What people do with BullMQ that an event stream alone does not tell: the table says what BullMQ says all the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.admin.records_to_delete import RecordsToDelete

from streams.topology import EVENTS, full_name
from tests.system.applications import values
from tests.system.oracle import rows_of
from tests.system.support import Line, until

pytestmark = [pytest.mark.system, pytest.mark.node]

TRUE_AGAIN_S = 60
"""Within which a table is true again by itself, whatever was done silently."""


@pytest.fixture
async def line(kafka, redis_server, redis_client, prefix, topics, tmp_path):
    await redis_client.flushdb()
    await topics()
    settings = {
        "BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES": json.dumps([f"{prefix}*"]),
        "BULLMQ_STREAMS_WORKER__VERIFY_AFTER_S": "600",
    }
    line = Line(kafka, redis_server, prefix, tmp_path, **settings)
    yield line
    line.stop_all()


async def rows(line: Line) -> dict[str, Any]:
    """By job id: the rows that there are."""
    found = await rows_of(line.bootstrap, line.prefix)
    return {row["id"]: row for row in found.values() if row is not None}


async def rows_when(line: Line, true: Any, what: str, seconds: float = TRUE_AGAIN_S) -> dict[str, Any]:
    """The rows, as soon as `true` holds of them."""
    last: dict[str, Any] = {}

    async def there() -> bool:
        assert all(process.poll() is None for process in line.processes), line.log_text()
        last.clear()
        last.update(await rows(line))
        return bool(true(last))

    try:
        await until(there, seconds, what)
    except AssertionError as error:
        shown = {
            name: [row["state"], row["attempts_made"], [p["cause"] for p in row["history"]]]
            for name, row in list(last.items())[:10]
        }
        raise AssertionError(f"{error}\n{len(last)} rows: {shown}\n{line.log_text()}") from None
    return last


def in_states(wanted: dict[str, str]) -> Any:
    """True of rows that are just these, each in its state."""
    return lambda found: {name: row["state"] for name, row in found.items()} == wanted


def all_in(state: str, count: int) -> Any:
    """True of so many rows, all in one state."""
    return lambda found: [row["state"] for row in found.values()] == [state] * count


def start(line: Line) -> None:
    line.start("bridge")
    line.start("worker")


async def firing(line: Line, rule: str) -> dict[str, Any]:
    """By job id: the alerts of a rule as they stand, those that fire."""
    newest: dict[str, Any] = {}
    for alert in await values(line, "alerts"):
        if alert["rule"] == rule:
            newest[alert["job_id"]] = alert
    return {job_id: alert for job_id, alert in newest.items() if alert["status"] == "firing"}


THROWS = {
    "a string": "() => { throw 'boom'; }",
    "a number": "() => { throw 42; }",
    "an object": "() => { throw { code: 'E' }; }",
    "an error without a message": "() => { throw new Error(''); }",
    "an error": "job => { throw new Error(`attempt ${job.attemptsMade}`); }",
    "an error that reads like BullMQ's": "() => { throw new Error('child process failed'); }",
    "an error that reads like a stall": "() => { throw new Error('job stalled more than allowable limit'); }",
}
KEPT = {
    "kept": "",
    "removed": ", removeOnFail: true",
    "one stack": ", stackTraceLimit: 1",
    "no stack": ", stackTraceLimit: 0",
}


@pytest.mark.parametrize("version", ["v4", "v5", "v6"])
async def test_attempts_are_bullmqs_whatever_is_thrown(line, do, prefix, version):
    """Three attempts each, without backoff and with; the row counts three, and the alert says why."""
    start(line)
    cases = {}
    script = ""
    for number, (thrown, processor) in enumerate(THROWS.items()):
        for kind, (kept, option) in enumerate(KEPT.items()):
            for backoff in ("", ", backoff: { type: 'fixed', delay: 30 }"):
                job_id = f"job-{number}-{kind}-{1 if backoff else 0}"
                cases[job_id] = f"{thrown}, {kept}, {'with' if backoff else 'without'} backoff"
                options = f"{{ attempts: 3, jobId: '{job_id}'{option}{backoff} }}"
                script += f"await queue('{prefix}-{number}').add('x', {{}}, {options});\n"
        script += f"worker('{prefix}-{number}', {processor}, {{ concurrency: 3 }});\n"
    for number in range(len(THROWS)):
        script += f"await ended('{prefix}-{number}', {len(KEPT) * 2});\n"
    await do(version, script)

    def finished(found: dict[str, Any]) -> bool:
        return len(found) == len(cases) and all(row["state"] == "failed" for row in found.values())

    found = await rows_when(line, finished, "every job failed")
    wrong = [
        (cases[job_id], row["attempts_made"], [past["cause"] for past in row["history"]])
        for job_id, row in found.items()
        if row["attempts_made"] != 3
        or [past["cause"] for past in row["history"] if past["from"] == "active"]
        != ["attempt_failed", "attempt_failed", "failed"]
    ]
    assert not wrong
    alerts = await firing(line, "failed")
    assert {cases[job_id]: alerts.get(job_id, {}).get("cause") for job_id in cases} == dict.fromkeys(
        cases.values(), "attempts_exhausted"
    )


async def test_texts_too_long_are_cut_and_the_row_goes_on(line, do, prefix):
    start(line)
    await do(
        "v6",
        f"""
        await queue('{prefix}').add('x', {{}}, {{ jobId: 'once' }});
        await queue('{prefix}').add('x', {{}}, {{ jobId: 'five', attempts: 5 }});
        worker('{prefix}', job => {{ throw new Error((job.id === 'once' ? '€' : 'y').repeat(320000)); }});
        await ended('{prefix}', 2);
        """,
    )
    done = in_states({"once": "failed", "five": "failed"})
    found = await rows_when(line, done, "both jobs failed")
    assert found["once"]["failed_reason"].startswith("€€€")
    assert found["once"]["failed_reason"].endswith("… (960000 bytes)")
    assert len(found["once"]["failed_reason"].encode()) <= 65_536
    assert found["five"]["attempts_made"] == 5
    assert [past["cause"] for past in found["five"]["history"]].count("attempt_failed") == 4
    assert all(len(past.get("error", "").encode()) <= 2_000 for past in found["five"]["history"])
    alerts = await firing(line, "failed")
    assert {alert["cause"] for alert in alerts.values()} == {"attempts_exhausted"}
    assert len(alerts) == 2
    events = [event for event in await values(line, "events") if event["event"] == "failed"]
    assert {path for event in events for path in event["cut"]} >= {"fields.failedReason", "job.failed_reason"}
    assert await values(line, "dead-letters") == []


async def test_jobs_of_a_stream_that_keeps_nothing(line, do, prefix, redis_client):
    """An entry is read in the moment in which it is written, or never: each is on `events`, or counted as lost.

    What was trimmed before the queue was seen for the first time, two entries of each job at most, is nobody's loss.
    """
    before = 2 * 5
    start(line)
    await do(
        "v6",
        f"""
        const q = queue('{prefix}', {{ streams: {{ events: {{ maxLen: 0 }} }} }});
        for (let n = 1; n <= 5; n++) await q.add('x', {{ n }});
        """,
    )
    waiting = all_in("waiting", 5)
    await rows_when(line, waiting, "five jobs that wait")
    await do("v6", f"worker('{prefix}', () => 'well'); await ended('{prefix}', 5);")
    done = all_in("completed", 5)
    await rows_when(line, done, "five jobs completed")

    async def told() -> bool:
        lost = sum(each["lost"] or 0 for each in await values(line, "health") if each["type"] == "gap")
        read = sum(each["kind"] == "entry" for each in await values(line, "events"))
        added: int = (await redis_client.xinfo_stream(f"bull:{prefix}:events"))["entries-added"]
        return bool(added - before <= lost + read <= added)

    await until(told, TRUE_AGAIN_S, f"each is read or lost\n{line.log_text()}")


async def test_numbers_that_nobody_expects(line, do, prefix):
    start(line)
    await do(
        "v5",
        f"""
        const q = queue('{prefix}');
        await q.add('x', {{}}, {{ jobId: 'never', delay: Number.MAX_VALUE }});
        await q.add('x', {{}}, {{ jobId: 'late', delay: 1e20 }});
        await q.add('x', {{}}, {{ jobId: 'early', timestamp: -5 }});
        """,
    )
    wanted = {"never": "delayed", "late": "delayed", "early": "waiting"}
    found = await rows_when(line, in_states(wanted), "each where BullMQ has it")
    assert all(abs(row[name] or 0) < 2**63 for row in found.values() for name in ("delay", "timestamp", "due_at"))
    await do("v5", f"worker('{prefix}', () => 'well'); await ended('{prefix}', 1);")
    await rows_when(line, in_states({**wanted, "early": "completed"}), "one is completed")
    assert all(process.poll() is None for process in line.processes)


@pytest.mark.parametrize("version", ["v4", "v5", "v6"])
async def test_a_job_that_bullmq_has_lost(line, do, prefix, version):
    """An id that begins as a marker does is thrown out of its list, and is nowhere: BullMQ's own word is `unknown`."""
    start(line)
    await do(
        version, f"await queue('{prefix}').addBulk([{{ name: 'x', data: {{}}, opts: {{ jobId: '0:tenant:42' }} }}]);"
    )
    await rows_when(line, in_states({"0:tenant:42": "waiting"}), "the job waits")
    await do(
        version, f"queue('{prefix}').add('x', {{}}); worker('{prefix}', () => 'well'); await ended('{prefix}', 1);"
    )
    found = await rows_when(line, in_states({"0:tenant:42": "stuck", "2": "completed"}), "the job is in no list")
    assert found["0:tenant:42"]["source_state"] == "unknown"
    assert (await firing(line, "stuck"))["0:tenant:42"]["cause"] == "in_no_list"


@pytest.mark.parametrize("removal", ["drain(true)", "clean(0, 100000, 'wait')", "obliterate({ force: true })"])
async def test_jobs_that_are_removed_without_a_word(line, do, prefix, removal):
    start(line)
    many = (
        f"await queue('{prefix}').addBulk(Array.from({{ length: 3000 }}, (_, n) => ({{ name: 'x', data: {{ n }} }})));"
    )
    await do("v6", many)
    await rows_when(line, lambda found: len(found) == 3000, "3,000 rows")
    await do("v6", f"await queue('{prefix}').{removal};")
    await rows_when(line, lambda found: not found, f"no row after {removal}")
    last = {}
    for each in await values(line, "transitions"):
        last[each["job_id"]] = each["to"]
    assert set(last.values()) == {"removed"}


async def keep_nothing(line: Line) -> None:
    """As if `events` had kept nothing of what was written until now."""
    admin = AIOKafkaAdminClient(bootstrap_servers=line.bootstrap)
    await admin.start()
    topic = full_name(line.prefix, EVENTS)
    (described,) = await admin.describe_topics([topic])
    partitions = [TopicPartition(topic, each["partition"]) for each in described["partitions"]]
    await admin.delete_records({each: RecordsToDelete(before_offset=-1) for each in partitions})
    await admin.close()


async def test_a_worker_that_was_away_longer_than_events_keeps(line, do, prefix):
    """It says what it has missed, once, and the table is true again."""
    start(line)
    await do("v6", f"for (let n = 0; n < 40; n++) await queue('{prefix}').add('x', {{ n }}, {{ jobId: `j${{n}}` }});")
    await rows_when(line, all_in("waiting", 40), "40 rows that wait")
    line.end(line.processes[-1])
    await do(
        "v6",
        f"""
        for (let n = 0; n < 10; n++) await (await queue('{prefix}').getJob(`j${{n}}`)).remove();
        worker('{prefix}', () => 'well');
        await ended('{prefix}', 30);
        for (let n = 40; n < 45; n++) await queue('{prefix}-2').add('x', {{ n }}, {{ jobId: `j${{n}}` }});
        """,
    )

    async def published() -> bool:
        events = [each for each in await values(line, "events") if each["kind"] == "entry"]
        ends = [each for each in events if each["event"] == "completed"]
        return len(ends) == 30 and any(each["job_id"] == "j44" and each["event"] == "waiting" for each in events)

    await until(published, TRUE_AGAIN_S, "all is on events")
    await keep_nothing(line)
    line.start("worker")
    wanted = {f"j{n}": "completed" if n < 40 else "waiting" for n in range(10, 45)}
    await rows_when(line, in_states(wanted), "what BullMQ says")
    expired = [each for each in await values(line, "health") if each.get("cause") == "expired"]
    assert sum(each["offsets"] for each in expired) >= 80
    told = {(each["queue"], each.get("reason")) for each in await values(line, "health") if each["type"] == "snapshot"}
    assert {(prefix, "gap"), (f"{prefix}-2", "gap")} <= told
    line.end(line.processes[-1])
    line.start("worker")
    await do("v6", f"await queue('{prefix}').add('x', {{}}, {{ jobId: 'last' }}); await ended('{prefix}', 0);")
    await rows_when(line, in_states({**wanted, "last": "waiting"}), "the last one")
    assert [each for each in await values(line, "health") if each.get("cause") == "expired"] == expired


async def test_alerts_of_failed_jobs_end_when_these_are_cleaned_away(line, do, prefix):
    line.env["BULLMQ_STREAMS_WORKER__VERIFY_AFTER_S"] = "3"
    start(line)
    await do(
        "v6",
        f"""
        for (let n = 0; n < 20; n++) await queue('{prefix}').add('x', {{ n }});
        worker('{prefix}', () => {{ throw new Error('no'); }});
        await ended('{prefix}', 20);
        """,
    )

    async def fires() -> bool:
        return len(await firing(line, "failed")) == 20

    await until(fires, TRUE_AGAIN_S, "twenty alerts")
    await do("v6", f"await queue('{prefix}').clean(0, 1000, 'failed');")

    async def silent() -> bool:
        return not await firing(line, "failed")

    await until(silent, TRUE_AGAIN_S, f"no alert fires\n{line.log_text()}")
    ended = [alert["resolved_by"] for alert in await values(line, "alerts") if alert["status"] == "resolved"]
    assert ended == ["vanished"] * 20


async def test_topics_that_take_small_records_only(line, do, prefix):
    admin = AIOKafkaAdminClient(bootstrap_servers=line.bootstrap)
    await admin.start()
    names = [full_name(line.prefix, topic) for topic in ("events", "status", "transitions", "alerts", "dead-letters")]
    await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": "262144"}) for name in names]
    )
    await admin.close()
    start(line)
    await do(
        "v6",
        f"""
        const noise = n => Array.from({{ length: n }}, () => String.fromCharCode(33 + Math.random() * 90)).join('');
        await queue('{prefix}').add('x', {{ text: noise(300000) }}, {{ jobId: 'large' }});
        await queue('{prefix}').add('x', {{ text: noise(100) }}, {{ jobId: 'small' }});
        worker('{prefix}', () => 'well');
        await ended('{prefix}', 2);
        """,
    )
    done = in_states({"large": "completed", "small": "completed"})
    found = await rows_when(line, done, "both completed")
    assert len(found["small"]["data"]["text"]) == 100
