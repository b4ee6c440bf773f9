"""The jobs of the sample application: crawls of data sources, as in the seed (`JobStatus` of a crawling job)."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

CRAWLING: Final = "demo-crawling-scheduler"
INDEXING: Final = "demo-indexing"
"""The queue whose only worker process is killed. All queues of the demo begin with `demo-`: they are nobody else's."""
QUEUES: Final = "demo-*"

CONNECTORS: Final = ("drive", "onedrive", "slack", "gmail", "confluence", "jira", "notion", "sharepoint")
ERRORS: Final = (
    "Kafka broker unreachable",
    "Drive API: 429 rate limit exceeded",
    "connect ETIMEDOUT 10.0.7.12:443",
    "Graph API: 503 service unavailable",
)
REVOKED: Final = "OAuth refresh token revoked"

_FIRST: Final = ("once", "delayed", "flaky", "failing", "once", "revoked")
_MIX: Final = ("once",) * 22 + ("delayed",) * 8 + ("flaky",) * 6 + ("failing", "revoked")


@dataclass(frozen=True, slots=True)
class Crawl:
    """Arguments of BullMQ's `queue.add`."""

    name: str
    data: dict[str, Any]
    opts: dict[str, Any] = field(default_factory=dict)


def crawls(rng: random.Random) -> Iterator[Crawl]:
    """Without end: first one of each kind, so that there is soon something of everything to see, then a mix."""
    for kind in chain(_FIRST, iter(lambda: rng.choice(_MIX), "")):
        yield crawl(rng, kind)


def crawl(rng: random.Random, kind: str) -> Crawl:
    """A job of one kind: `once`, `delayed`, `flaky` (fails at first), `failing` (for good), `revoked` (at once)."""
    connector, connector_id = rng.choice(CONNECTORS), _id(rng)
    plan: dict[str, Any] = {"files": rng.randint(20, 900), "seconds": round(rng.uniform(0.4, 2.2), 1)}
    opts = _options(rng, connector, connector_id)
    if kind == "delayed":
        opts["delay"] = rng.randrange(2_000, 6_000, 500)
    elif kind == "flaky":
        plan |= {"fails": 1, "error": rng.choice(ERRORS)}
    elif kind == "failing":
        plan |= {"fails": 99, "error": rng.choice(ERRORS), "seconds": 0.4}
        opts["attempts"] = 2
    elif kind == "revoked":
        plan |= {"fails": 99, "error": REVOKED, "revoked": True, "seconds": 0.4}
    now = datetime.now(UTC)
    schedule = {"scheduleType": "once", "scheduledTime": _iso(now)}
    return Crawl(f"crawl-{connector}-{connector_id}", _data(rng, connector, connector_id, schedule, plan), opts)


def indexing(rng: random.Random) -> Crawl:
    """A long job with one attempt, for the process that will be killed."""
    connector, connector_id = rng.choice(CONNECTORS), _id(rng)
    plan = {"files": rng.randint(2_000, 9_000), "seconds": 5.0}
    schedule = {"scheduleType": "once", "scheduledTime": _iso(datetime.now(UTC))}
    opts = _options(rng, connector, connector_id) | {"attempts": 1}
    return Crawl(f"crawl-{connector}-{connector_id}", _data(rng, connector, connector_id, schedule, plan), opts)


def repeating(rng: random.Random) -> Crawl:
    """The template of a job scheduler: BullMQ gives each iteration an id of its own."""
    connector_id = _id(rng)
    schedule = {"scheduleType": "custom", "cronExpression": "*/5 * * * *"}
    data = _data(rng, "slack", connector_id, schedule, {"files": 12, "seconds": 0.8})
    return Crawl(f"crawl-slack-{connector_id}", data, {"removeOnComplete": 10, "removeOnFail": 10, "attempts": 3})


def _options(rng: random.Random, connector: str, connector_id: str) -> dict[str, Any]:
    return {
        "jobId": f"crawl-{connector}-{connector_id}-{rng.getrandbits(48):012x}",
        "attempts": 3,
        "backoff": {"type": "exponential", "delay": 1_000},
        "priority": rng.randint(1, 10),
        "removeOnComplete": 10,
        "removeOnFail": 10,
    }


def _data(
    rng: random.Random, connector: str, connector_id: str, schedule: dict[str, Any], plan: dict[str, Any]
) -> dict[str, Any]:
    """CrawlingJobData of the seed; `metadata` tells the sample's worker what to do."""
    return {
        "connector": connector,
        "connectorId": connector_id,
        "scheduleConfig": {**schedule, "isEnabled": True, "timezone": "UTC"},
        "orgId": f"{rng.getrandbits(96):024x}",
        "userId": f"{rng.getrandbits(96):024x}",
        "timestamp": _iso(datetime.now(UTC)),
        "metadata": plan,
    }


def _id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
