"""`status`: jobs by state, lag, losses and firing alerts of each queue, or one job with its history."""

from __future__ import annotations

from typing import Any, Final

from streams import wire
from streams.clock import wall_ms
from streams.commands import console, errors, standing, status_text
from streams.commands.errors import CommandError
from streams.commands.health import QueueName
from streams.commands.reading import reader
from streams.commands.standing import Queue
from streams.core.job import job_key
from streams.settings import Settings

_OF_A_ROW: Final = frozenset(("id", "state", "source", "queue"))


async def overview(settings: Settings, only: QueueName | None, *, as_json: bool) -> int:
    """Print all queues, or one; returns the exit code."""
    with errors.kafka(settings):
        async with reader(settings) as kafka:
            queues = await standing.count_jobs(kafka, settings, only)
            now_ms = wall_ms()
            await standing.add_health(kafka, settings, queues, only, now_ms)
            firing = await standing.count_alerts(kafka, settings, only)
    if only is not None and only not in queues:
        raise CommandError(f"queue {only[1]} of source {only[0]} is unknown", "bullmq-streams status lists those known")
    if as_json:
        console.print_json({"queues": [_json(*each) for each in sorted(queues.items())], "alerts_firing": firing})
    else:
        status_text.overview(dict(sorted(queues.items())), firing, now_ms)
    return 0


def _json(name: QueueName, queue: Queue) -> dict[str, Any]:
    return {
        "source": name[0],
        "queue": name[1],
        "paused": queue.paused,
        "jobs": queue.jobs,
        "lag_ms": queue.lag_ms,
        "lost": queue.lost,
        "stale_s": queue.stale_s,
        "refused": queue.refused,
        "drift": queue.drift,
        "snapshot": queue.snapshot,
    }


async def job(settings: Settings, source: str, queue: str, job_id: str, *, as_json: bool) -> int:
    """Print a job's row; returns the exit code. Raises CommandError where the table has none."""
    with errors.kafka(settings):
        async with reader(settings) as kafka:
            value = await standing.find(kafka, settings, job_key(source, queue, job_id).encode())
    if value is None:
        raise CommandError(
            f"job {job_id} of queue {queue} (source {source}) is unknown",
            f"bullmq-streams tail transitions --queue {queue} --job {job_id} --from beginning tells what became of it",
        )
    row = _row(value)
    if row is None:
        raise CommandError(
            f"the newest record of job {job_id} of queue {queue} (source {source}) on status is no row: somebody else "
            "wrote it",
            f"bullmq-streams snapshot --queue {queue} has the job looked at, and its row written anew",
        )
    if as_json:
        console.print_json(row)
    else:
        status_text.job(row)
    return 0


def _row(value: bytes) -> dict[str, Any] | None:
    try:
        row = wire.loads(value)
    except wire.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and row.keys() >= _OF_A_ROW else None
