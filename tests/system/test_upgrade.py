"""An installation of the last release goes on with this one: same topics, nothing lost or told twice."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.needs import missing
from tests.system import oracle
from tests.system.applications import values
from tests.system.support import Line, address_of, node, until

pytestmark = [pytest.mark.system, pytest.mark.node]

LAST_RELEASE = "a3f821c71156724f742ec35f8e328092f8894ca1"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def old(tmp_path):
    """A folder with the last release's package."""
    command = ["git", "archive", LAST_RELEASE, "streams"]
    packed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        missing(packed.stderr.decode().strip(), "the last release is taken out of the repository's history")
    folder: Path = tmp_path / "old"
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
async def line(kafka, redis_server, redis_client, prefix, tmp_path):
    await redis_client.flushdb()
    queues = json.dumps([f"{prefix}*"])
    line = Line(kafka, redis_server, prefix, tmp_path, BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES=queues)
    yield line
    line.stop_all()


def start(line: Line, command: str, folder: Path = ROOT) -> subprocess.Popen[bytes]:
    """A process of the release in the folder."""
    with (line.logs / f"{folder.name}-{command}-{len(line.processes)}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", command], env=line.env, cwd=folder, stdout=log, stderr=log
        )
    line.processes.append(process)
    return process


def apply_topics(line: Line, folder: Path = ROOT) -> str:
    command = [sys.executable, "-m", "streams.cli", "topics", "apply"]
    done = subprocess.run(command, env=line.env, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dump(line: Line, bullmq: str, queue: str) -> dict[str, Any]:
    process = node("dump.js", bullmq=bullmq, **address_of(line.redis_url), queues=[queue])
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


async def agrees(line: Line, bullmq: str, queue: str) -> dict[str, Any]:
    """Every row equals BullMQ's own job, soon. Gives the rows."""
    wanted = dump(line, bullmq, queue)
    wrong: list[str] = []

    async def equal() -> bool:
        wrong[:] = oracle.compare_with_bullmq(await oracle.rows_of(line.bootstrap, line.prefix), wanted)
        return not wrong

    try:
        await until(equal, 60, "rows that equal BullMQ's jobs")
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *wrong[:20], line.log_text()])) from None
    return {key: row for key, row in (await oracle.rows_of(line.bootstrap, line.prefix)).items() if row is not None}


WORK = """
const q = queue('{queue}', {{ streams: {{ events: {{ maxLen: 100000 }} }} }});
const options = {{ attempts: 2, backoff: {{ type: 'fixed', delay: 50 }} }};
const fails = n => n % 3 ? 0 : n % 6 ? 1 : 9;
for (let n = 0; n < 60; n++) await q.add('x', {{ n, fails: fails(n) }}, {{ ...options, jobId: '{run}-' + n }});
for (let n = 0; n < 5; n++) await q.add('x', {{ n }}, {{ delay: 3600000, jobId: '{run}-later-' + n }});
const process = job => {{ if (job.attemptsMade < job.data.fails) throw new Error('no'); return job.data.n; }};
worker('{queue}', process, {{ concurrency: 4 }});
await ended('{queue}', 60);
"""
RETRY = """
const job = id => queue('{queue}').getJob('first-' + id);
for (let n = 0; n < 60; n += 6) await (await job(n)).retry('failed');
for (let n = 0; n < 5; n++) await (await job('later-' + n)).remove();
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_this_release_goes_on_where_the_last_one_stopped(line, do, old, node_bullmq, redis_client, prefix, end):
    bullmq, queue = str(node_bullmq("v6")), prefix
    apply_topics(line, old)
    running = [start(line, "bridge", old), start(line, "worker", old)]
    await do("v6", WORK.format(queue=queue, run="first"))
    await agrees(line, bullmq, queue)
    for process in running:
        process.send_signal(end)
        process.wait(35)
    await do("v6", WORK.format(queue=queue, run="between"))
    await do("v6", RETRY.format(queue=queue))

    apply_topics(line)
    start(line, "worker")
    start(line, "bridge")
    await agrees(line, bullmq, queue)
    await do("v6", WORK.format(queue=queue, run="then"))
    rows = await agrees(line, bullmq, queue)

    assert {list(row)[-1] for row in rows.values()} == {"_"}
    assert oracle.broken_chains(await values(line, "transitions"), rows) == []
    ids = {queue: [entry[0] for entry in await redis_client.xrange(f"bull:{queue}:events")]}
    assert oracle.published_once(await values(line, "events"), ids) == []
    assert await values(line, "dead-letters") == []
    assert [each for each in await values(line, "health") if each["type"] == "gap"] == []
    told: dict[tuple[str, int], list[str]] = {}
    for alert in await values(line, "alerts"):
        told.setdefault((alert["fingerprint"], alert["starts_at"]), []).append(alert["status"])
    assert set(map(tuple, told.values())) == {("firing",), ("firing", "resolved")}
    open_alerts = sum(statuses == ["firing"] for statuses in told.values())
    assert open_alerts == sum(row["state"] == "failed" for row in rows.values())
