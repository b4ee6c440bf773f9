from __future__ import annotations

import time

import pytest

from streams.commands import health as health_module
from streams.commands.status_text import duration
from tests.commands.support import Put, lines, put, row, run, servers

pytestmark = pytest.mark.system

STATES = ("waiting", "active", "completed", "failed", "delayed", "paused", "stuck")


def jobs(**counts: int) -> dict[str, int]:
    return dict.fromkeys(STATES, 0) | counts


def heartbeat(queue: str, *, age_s: float = 1, **more: object) -> Put:
    at = int((time.time() - age_s) * 1000)
    value = {"type": "heartbeat", "source": "default", "queue": queue, "at": at, "position": "1-0", "lag_ms": 12}
    value |= {"entries_read": 5, "entries_lost": 0, "paused": False, "counts": {}, **more}
    headers = {"ce_type": "bullmq.health.heartbeat.v1"}
    return Put("health", f"default/{queue}", value, headers, timestamp=at, single=True)


def alert(fingerprint: str, status: str, rule: str = "failed", queue: str = "q") -> Put:
    value = {"rule": rule, "status": status, "source": "default", "queue": queue, "job_id": "1"}
    return Put("alerts", fingerprint, value)


@pytest.fixture
def settings(kafka, prefix):
    settings = servers(kafka, prefix)
    assert run("topics", "apply", **settings).exit_code == 0
    return settings


def test_counts_by_state_lag_losses_and_alerts(kafka, prefix, settings):
    put(
        kafka,
        prefix,
        [
            *(row(str(number), "waiting") for number in range(20)),
            *(row(str(number), "completed", queue="a/b") for number in range(3)),
            heartbeat("q", entries_lost=7, age_s=20),
            heartbeat("q", entries_lost=9, lag_ms=250, counts={"wait": 10, "prioritized": 2, "active": 1, "failed": 1}),
            heartbeat("empty", paused=True, age_s=3000),
            Put("health", "default/q", {"type": "gap", "lost": 3}, {"ce_type": "bullmq.health.gap.v1"}, single=True),
            alert("a1", "firing"),
            alert("a2", "firing"),
            alert("a3", "firing", "stuck", "a/b"),
            alert("a4", "firing", "hung"),
        ],
    )
    put(
        kafka,
        prefix,
        [
            *(row(str(number), "failed") for number in range(5)),
            Put("status", "default/q/19", None),
            alert("a2", "resolved"),
            Put("alerts", "a4", None),
        ],
    )
    result = run("status", "--json", **settings)
    assert result.exit_code == 0
    assert lines(result) == [
        {
            "queues": [
                {
                    "source": "default",
                    "queue": "a/b",
                    "paused": None,
                    "jobs": jobs(completed=3),
                    "lag_ms": None,
                    "lost": None,
                    "stale_s": None,
                    "refused": None,
                    "drift": None,
                    "snapshot": None,
                },
                {
                    "source": "default",
                    "queue": "empty",
                    "paused": True,
                    "jobs": jobs(),
                    "lag_ms": 12,
                    "lost": 0,
                    "stale_s": pytest.approx(3000, abs=10),
                    "refused": None,
                    "drift": {"waiting": 0, "active": 0, "delayed": 0, "paused": 0},
                    "snapshot": None,
                },
                {
                    "source": "default",
                    "queue": "q",
                    "paused": False,
                    "jobs": jobs(waiting=14, failed=5),
                    "lag_ms": 250,
                    "lost": 9,
                    "stale_s": pytest.approx(1, abs=10),
                    "refused": None,
                    "drift": {"waiting": 2, "active": -1, "delayed": 0, "paused": 0},
                    "snapshot": None,
                },
            ],
            "alerts_firing": {"failed": 1, "stuck": 1},
        }
    ]
    one = lines(run("status", "a/b", "--json", **settings))[0]
    assert [queue["queue"] for queue in one["queues"]] == ["a/b"]
    assert one["alerts_firing"] == {"failed": 0, "stuck": 1}
    text = run("status", **settings).stdout
    assert "250 ms" in text
    assert "silent for 50 min" in text
    assert "no heartbeat yet" in text
    assert "alerts firing: 1 failed, 1 stuck" in text


def health(kind: str, queue: str, age_s: float, **more: object) -> Put:
    at = int((time.time() - age_s) * 1000)
    value = {"type": kind, "source": "default", "queue": queue, "at": at, **more}
    return Put("health", f"default/{queue}", value, {}, timestamp=at, single=True)


def test_refused_queues_silence_and_comparisons_are_told(kafka, prefix, settings):
    put(
        kafka,
        prefix,
        [
            health("refused", "bad\\xff", 3000, reason="bad_name", error="no\nUTF-8", status="refused"),
            health("refused", "mended", 3000, reason="wrong_type", error="WRONGTYPE", status="refused"),
            health("refused", "mended", 2000, status="readmitted"),
            heartbeat("mended", age_s=40),
            heartbeat("comparing", age_s=35),
            health("snapshot", "comparing", 33, status="started", reason="gap", request="ab", jobs=0, done=0),
            health("snapshot", "comparing", 32, status="progress", reason="gap", request="ab", jobs=900, done=450),
            health("snapshot", "comparing", 32, status="compared", request="ab", partition=1, corrected=0, closed=0),
            health("snapshot", "mended", 31, status="finished", reason="drift", request="cd", jobs=1, done=1),
            Put("health", "x", b"no json", single=True),
            Put("health", "x", 5, single=True),
            Put("status", "default/q/1", b"no json"),
            Put("status", "no key", {"state": "waiting"}),
            Put("alerts", "a9", 5),
        ],
    )
    queues = {each["queue"]: each for each in lines(run("status", "--json", **settings))[0]["queues"]}
    assert {name: queue["refused"] for name, queue in queues.items()} == {
        "bad\\xff": "bad_name",
        "mended": None,
        "comparing": None,
    }
    snapshot = queues["comparing"]["snapshot"]
    assert {key: snapshot[key] for key in ("reason", "request", "jobs", "done")} == {
        "reason": "gap",
        "request": "ab",
        "jobs": 900,
        "done": 450,
    }
    assert queues["mended"]["snapshot"] is None
    text = run("status", **settings).stdout
    assert "refused: bad_name" in text
    assert "refused by the bridge: default/bad\\xff; bullmq-streams doctor says why" in text
    assert "no heartbeat of any queue for 3" in text
    assert run("status", "bad\\xff", **settings).exit_code == 0


def test_a_drift_and_a_comparison_are_said_of_a_queue_that_beats(kafka, prefix, settings):
    put(
        kafka,
        prefix,
        [
            row("1", "stuck", queue="d"),
            heartbeat("d", counts={"wait": 3, "active": 0}),
            heartbeat("c"),
            health("snapshot", "c", 1, status="progress", reason="request", request="ab", jobs=9000, done=1500),
        ],
    )
    text = run("status", **settings).stdout
    assert "drift 4" in text
    assert "comparing, 1,500 of 9,000 jobs" in text
    assert "no heartbeat of any queue" not in text


def test_five_thousand_queues_take_one_bounded_read(kafka, prefix, settings, monkeypatch):
    monkeypatch.setattr(health_module, "MOST_RECORDS", 6_000)
    put(kafka, prefix, [heartbeat("old", age_s=3000)])
    put(kafka, prefix, [heartbeat(f"q{number}", age_s=50 - 10 * beat) for beat in range(4) for number in range(5_000)])
    put(kafka, prefix, [row("1", "waiting", queue="without")])
    began = time.monotonic()
    queues = lines(run("status", "--json", **settings))[0]["queues"]
    assert len(queues) == 5_001  # the one of the row, and not the one that is beyond the bound
    assert time.monotonic() - began < 20


def test_nothing_yet(settings):
    result = run("status", **settings)
    assert result.exit_code == 0
    assert "no queues yet" in result.stdout
    assert lines(run("status", "--json", **settings)) == [{"queues": [], "alerts_firing": {"failed": 0, "stuck": 0}}]


def test_an_unknown_queue_and_an_unknown_job(settings):
    result = run("status", "nowhere", **settings)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "queue nowhere of source default is unknown" in result.stderr
    result = run("status", "nowhere", "7", "--source", "eu", **settings)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "job 7 of queue nowhere (source eu) is unknown" in result.stderr


def test_one_job_with_its_history(kafka, prefix, settings):
    history = [
        {"from": None, "to": "waiting", "at": 1_795_478_836_000, "cause": "added"},
        {"from": "waiting", "to": "active", "at": 1_795_478_836_100, "cause": "picked_up"},
        {"from": "active", "to": "failed", "at": 1_795_478_836_200, "cause": "failed", "error": "no \x1b[31mluck"},
    ]
    put(kafka, prefix, [row("a/1", "waiting"), row("a/2", "waiting", queue="x"), row("a/1", "failed", history=history)])
    result = run("status", "q", "a/1", "--json", **settings)
    assert result.exit_code == 0
    assert lines(result)[0]["history"] == history
    assert lines(result)[0]["state"] == "failed"
    text = run("status", "q", "a/1", **settings).stdout
    assert "active → failed  failed  no \\x1b[31mluck" in text
    assert '"due"' not in text
    put(kafka, prefix, [Put("status", "default/q/a/1", None)])
    assert run("status", "q", "a/1", **settings).exit_code == 1


def test_a_record_that_is_no_row(kafka, prefix, settings):
    for value in (b"{", b"[]", b'{"state": 5}'):
        put(kafka, prefix, [Put("status", "default/q/9", value)])
        result = run("status", "q", "9", **settings)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "is no row: somebody else wrote it; bullmq-streams snapshot --queue q" in result.stderr
    assert run("status", **settings).exit_code == 0


def test_the_only_source_need_not_be_named(kafka, prefix, settings):
    put(kafka, prefix, [row("1", "active", source="eu")])
    eu = settings | {"SOURCES__EU__URL": "redis://eu"}
    assert run("status", "q", "1", **eu).exit_code == 0
    assert run("status", "q", **eu).exit_code == 0
    assert run("status", "q", "1", **settings).exit_code == 1


def test_without_topics_it_says_what_to_do(kafka, prefix):
    result = run("status", **servers(kafka, prefix))
    assert result.exit_code == 1
    assert result.stderr == f"error: topic {prefix}.status.v1 does not exist; run: bullmq-streams topics apply\n"


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (999, "999 ms"), (1500, "1.5 s"), (120_000, "2 min"), (5_400_000, "1.5 h"), (172_800_000, "2.0 d")],
)
def test_durations(ms, text):
    assert duration(ms) == text
