"""What holds for any stream, also for one that no BullMQ would write."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.core import lifecycle
from streams.core.entries import HANDLERS
from streams.core.events import check, order_of
from streams.core.fold import fold
from streams.core.job import job_key
from tests.core.replay import Table


def settings(max_examples):
    # A loaded machine is slow at drawing; that says nothing about the strategies.
    return hypothesis_settings(max_examples=max_examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


ENTRIES = (
    "added", "waiting", "active", "delayed", "waiting-children", "completed", "failed", "stalled", "progress",
    "removed", "duplicated", "deduplicated", "debounced", "retries-exhausted", "drained", "crawl:page",
)  # fmt: skip
REVIVERS = {"retried", "removed", "vanished", "replaced", "observed", "expired"}

jobs = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "name": st.just("crawl"),
            "data": st.just({"connector": "drive"}),
            "opts": st.fixed_dictionaries({"attempts": st.integers(0, 3), "priority": st.integers(0, 2)}),
            "timestamp": st.sampled_from([1_000, 1_000, 2_000]),
            "attempts_made": st.integers(0, 3),
        },
        optional={
            "attempts_started": st.integers(0, 4),
            "counts_starts": st.just(True),
            "stacktrace": st.lists(st.sampled_from(["Error: a\n    at x", "no stack"]), max_size=3),
            "failed_reason": st.sampled_from(["a", "", "job stalled more than allowable limit"]),
            "finished_on": st.integers(1_000, 9_000),
            "processed_on": st.integers(1_000, 9_000),
            "delay": st.integers(0, 500),
        },
    ),
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "prev": st.sampled_from(["active", "failed", "delayed", "waiting", "completed", "waiting-children", "odd"]),
        "delay": st.sampled_from(["1795478836845", "1795478836845.5", "soon", "inf"]),
        "data": st.sampled_from(["42", '{"step":2}', "not json", "null"]),
        "failedReason": st.sampled_from(["", "null", "no access", "\x00\n"]),
        "returnvalue": st.sampled_from(["null", "1", "not json"]),
        "name": st.just("crawl"),
    },
)


def entry(event, job_id, more, job, paused, stalled):
    value = {
        "source": "s", "queue": "q", "job_id": job_id, "event": event, "fields": more,
        "queue_paused": paused, "job": job, "enriched": job is not None,
    }  # fmt: skip
    return {**value, "stalled": True} if stalled else value


def look(job_id, where, lock, job, reason):
    return {
        "source": "s", "queue": "q", "job_id": job_id, "event": "observed", "reason": reason,
        "found": where is not None,
        "where": where, "due_at": 5_000 if where == "delayed" else None, "lock_ttl_ms": lock, "queue_paused": False,
        "job": job, "enriched": job is not None,
    }  # fmt: skip


ids = st.sampled_from(["1", "2"])
entries = st.builds(entry, st.sampled_from(ENTRIES), ids, fields, jobs, st.booleans(), st.booleans())
looks = st.builds(
    look,
    ids,
    st.sampled_from([None, *lifecycle.SOURCE_STATE_OF_PLACE]),
    st.sampled_from([None, 500, 30_000]),
    jobs,
    st.sampled_from(["snapshot", "probe", "pause", "resume", "verify"]),
)


@st.composite
def streams(draw):
    """Events in the order of their stream; looks stand between entries, some at the same stream id."""
    ms, found = 1_000, []
    for value in draw(st.lists(st.one_of(entries, entries, looks), max_size=30)):
        ms += draw(st.integers(1, 1_500))
        if "fields" in value:
            found.append({**value, "stream_id": f"{ms}-0"})
        else:
            found.append({**value, "stream_id": found[-1]["stream_id"] if found else "0-0", "observed_at": ms})
    return found


def run(events):
    table = Table()
    for event in events:
        key = job_key("s", "q", event["job_id"]).encode()
        table.apply(check(event, key))
    return table


@given(streams())
@settings(max_examples=300)
def test_a_chain_per_life_and_a_closed_set_of_states(events):
    table = run(events)
    last: dict = {}
    for this in table.transitions:
        before: Any = last.get(this["job_id"])
        if this["from"] is None:
            assert this["seq"] == 1
            assert before is None or before["to"] == "removed"
        else:
            assert (this["life"], this["seq"]) == (before["life"], before["seq"] + 1)
            assert (this["from"], this["source_from"]) == (before["to"], before["source_to"])
        last[this["job_id"]] = this
    for row in table.live().values():
        assert row["state"] in lifecycle.STATES
        assert len(row["history"]) == min(row["seq"], 16)


@given(streams(), st.data())
@settings(max_examples=200)
def test_any_prefix_replayed_changes_nothing(events, data):
    table = run(events)
    rows, told = copy.deepcopy(table.rows), len(table.transitions)
    start = data.draw(st.integers(0, len(events)))
    for event in events[start:]:
        row = table.rows.get(job_key("s", "q", event["job_id"]))
        if row is not None:
            table.apply(event)
    assert table.rows == rows
    assert len(table.transitions) == told


@given(streams(), st.data())
@settings(max_examples=200)
def test_a_replay_from_a_stored_table_equals_a_replay_from_the_start(events, data):
    cut = data.draw(st.integers(0, len(events)))
    whole, first = run(events), run(events[:cut])
    rest = Table()
    rest.rows = copy.deepcopy(first.rows)
    for event in events[cut:]:
        rest.apply(event)
    assert rest.rows == whole.rows
    assert first.transitions + rest.transitions == whole.transitions
    assert first.alerts + rest.alerts == whole.alerts


@given(streams())
@settings(max_examples=200)
def test_finished_stays_finished_until_bullmq_revives_the_job(events):
    for transition in run(events).transitions:
        if transition["from"] in lifecycle.FINISHED:
            legal = lifecycle.is_legal(transition["from"], transition["to"], transition["cause"])
            assert not legal or transition["cause"] in REVIVERS


@given(streams())
@settings(max_examples=200)
def test_one_firing_and_one_resolved_record_for_each_incident(events):
    table = run(events)
    incidents = defaultdict(list)
    for alert in table.alerts:
        incidents[alert["fingerprint"], alert["starts_at"]].append(alert)
    for records in incidents.values():
        assert [alert["status"] for alert in records] in (["firing"], ["firing", "resolved"])
        assert records[-1]["status"] == "firing" or records[-1]["ends_at"] >= records[-1]["starts_at"]
    firing = {key for key, records in incidents.items() if len(records) == 1}
    noted = sum(len(row["_"].get("alerts", {})) for row in table.live().values())
    assert len(firing) == noted


@given(streams())
@settings(max_examples=200)
def test_stuck_is_said_after_two_looks_only(events):
    by_job = defaultdict(list)
    for event in events:
        by_job[event["job_id"]].append(event)
    for job_id, own in by_job.items():
        row = None
        for at, event in enumerate(own):
            result = fold(row, event)
            for transition in result.transitions:
                if transition["to"] == "stuck":
                    told = [e for e in own[:at] if "fields" not in e or e["event"] in HANDLERS]
                    before = [e for e in told if order_of_event(e) < order_of_event(event)][-1]
                    assert event["event"] == before["event"] == "observed", job_id
                    assert event["where"] == before["where"] == "active"
                    assert event["lock_ttl_ms"] is before["lock_ttl_ms"] is None
            row = result.row


def order_of_event(event):
    return order_of(event["stream_id"], event.get("observed_at"))
