"""Rows and events that release 0.1 wrote, folded by this one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streams.core.deadlines import LAPSE, VERIFY, due_of, due_of_row, visit
from streams.core.fold import fold
from streams.core.row import NOTES
from streams.core.rules import Rules
from streams.core.upgrade import current
from streams.wire import pack
from streams.worker.index import PartitionIndex
from streams.worker.records import row_of
from tests.core.build import KEY, Life, entry, job, look

RULES = Rules()
ACTIVE = (
    b'{"id":"1","name":"crawl","data":{"n":1},"progress":0,"delay":0,"timestamp":1000,"attempts_made":0,"finished_on":null,'
    b'"processed_on":2000,"failed_reason":null,"state":"active","source":"s","queue":"q","life":1000,"source_state":"active",'
    b'"since":2000,"due_at":null,"position":"2000-0","observed_at":null,"seq":2,"max_attempts":3,"priority":0,'
    b'"stalled_count":0,"return_value":null,"parent":null,"enriched":true,"estimated":[],"history":[{"from":null,'
    b'"to":"waiting","at":1000,"cause":"added"},{"from":"waiting","to":"active","at":2000,"cause":"picked_up"}],'
    b'"_":{"due":3000,"state":"active","fails":0,"starts":1}}'
)
"""A row as 0.1 wrote it."""
RAN = {"processed_on": 2_000, "attempts_started": 1}


def changed(row: bytes, **more: Any) -> bytes:
    value = json.loads(row)
    notes = {**value.pop("_"), **more.pop("_", {})}
    return json.dumps({**value, **more, "_": notes}, separators=(",", ":")).encode()


FAILED = changed(
    ACTIVE, state="failed", source_state="failed", finished_on=3_000, since=3_000, position="3000-0", seq=3,
    failed_reason="no",
    _={
        "due": 3_000 + RULES.retention_ms, "state": "failed", "alerted": None,
        "alerts": {"failed": {"starts_at": 3_000, "cause": "unrecoverable", "reason": "r", "severity": "error"}},
    },
)  # fmt: skip


def folded(raw: bytes, *events: dict[str, Any]) -> Life:
    life = Life()
    life.row = row_of(raw)
    for event in events:
        life.apply(event)
    return life


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_row_of_0_1_is_folded_on_and_its_notes_stay_the_last_field(epoch):
    life = folded(ACTIVE, entry("completed", 3_000, job(**RAN, finished_on=3_000, attempts_made=1), epoch=epoch))
    assert life.moves == [("active", "completed", "completed")]
    assert list(life.live)[-2:] == ["epoch", NOTES]
    assert life.live["epoch"] == epoch
    index = PartitionIndex()
    for _ in index.restore({KEY.encode(): pack(life.live)}, 0):
        pass
    assert [(group.state, count) for group, count in index.counts.items()] == [("completed", 1)]
    again = row_of(pack(row_of(pack(life.live))))
    assert list(again)[-2:] == ["epoch", NOTES]


def test_an_event_of_0_1_is_folded_as_before():
    event = entry("completed", 3_000, job(**RAN, finished_on=3_000, attempts_made=1))
    seen = look("active", 2_500, job(**RAN), stream_id="2000-0", lock_ttl_ms=5)
    for one in (event, seen):
        del one["kind"], one["epoch"]
    life = folded(ACTIVE, seen, event)
    assert life.moves == [("active", "completed", "completed")]
    assert (life.live["epoch"], life.transitions[0]["epoch"]) == (0, 0)


def test_a_look_of_0_1_that_tells_no_place_accuses_nobody():
    seen = look(None, 2_500, job(**RAN), stream_id="2000-0", found=True)
    del seen["kind"]
    life = folded(ACTIVE, seen, {**seen, "observed_at": 9_000})
    assert life.moves == []
    assert "suspect" not in life.live[NOTES]


def test_a_suspicion_of_0_1_is_kept():
    suspected = changed(ACTIVE, observed_at=2_500, _={"due": 3_500, "suspect": {"at": 2_500, "processed_on": 2_000}})
    life = folded(suspected, look("active", 3_500, job(**RAN), stream_id="2000-0"))
    assert life.moves == [("active", "stuck", "lock_lost")]


@pytest.mark.parametrize("at", ["1999-0", "2000-0"])
def test_what_stands_before_it_changes_nothing(at):
    row = row_of(ACTIVE)
    assert fold(row, {**entry("completed", 1, job()), "stream_id": at}).row is row


def test_a_row_with_numbers_that_0_1_let_through_fits_now():
    raw = changed(ACTIVE, timestamp=None, delay=10**308, stalled_count=2**70)
    life = folded(raw, entry("progress", 3_000, fields={"data": "1"}))
    assert (life.live["timestamp"], life.live["delay"], life.live["stalled_count"]) == (1_000, 2**63 - 1, 2**63 - 1)
    assert life.live["estimated"] == ["delay", "stalled_count", "timestamp"]
    life.apply(entry("completed", 4_000, job(timestamp=None, finished_on=4_000)))
    assert life.moves == [("active", "completed", "completed")]


def test_the_row_given_is_not_changed():
    row = row_of(FAILED)
    before = pack(row)
    current(row, 9_000)
    assert pack(row) == before


def test_settings_hold_for_it_where_the_row_is_read_whole():
    row = row_of(FAILED)
    assert due_of_row(row, Rules(retention_ms=70)) == 3_070
    assert due_of(row[NOTES], RULES) == 3_000 + RULES.verify_after_ms
    assert due_of_row(row_of(ACTIVE), RULES) == 3_100


def test_its_alert_counts_from_the_first_sight_of_it_and_ends_within_a_quarter_more():
    seen_at = 30 * RULES.resolve_after_ms
    found = visit(row_of(FAILED), seen_at, RULES)
    assert found is not None
    assert found.action != LAPSE, "its day was over long ago, by the rules of before"
    life = folded(FAILED, look("failed", seen_at, job(**RAN, finished_on=3_000), stream_id="3000-0"))
    assert life.alerts == []
    rules = Rules(retention_ms=10**15)
    first = next(at for at in range(seen_at, seen_at * 2, 1_000_000) if action(life, at, rules) == LAPSE)
    assert RULES.resolve_after_ms <= first - seen_at <= RULES.resolve_after_ms * 5 // 4 + 1_000_000


def action(life: Life, at: int, rules: Rules) -> str | None:
    found = visit(life.live, at, rules)
    assert found is None or found.action in (LAPSE, VERIFY)
    return found and found.action
