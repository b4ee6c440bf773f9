"""What must be true at rest. Each check gives a line for each thing that is wrong: queue, job, field, expected, found.

Pure: readings in, words out. `test_checks.py` holds each against hand-made readings that are wrong.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from streams.core.alerts import fingerprint
from streams.core.job import job_key, parse_key
from tests.faults.history import DELETED, LOST, PRESENT, UNDONE, Entry, History, Stream, parse_id
from tests.faults.topics import Json, Published

SOURCE: Final = "default"
FINISHED: Final = ("completed", "failed")
PAUSABLE: Final = ("waiting", "prioritized")
COMPARED: Final = (
    "id", "name", "data", "progress", "delay", "timestamp", "attempts_made", "finished_on", "processed_on",
    "failed_reason", "return_value", "priority",
)  # fmt: skip
KNOWN_BY_THE_APPLICATION: Final = ("state", "timestamp", "name", "attempts_made")
CUT: Final = re.compile(r"… \((\d+) bytes\)$")
LINES: Final = 25

Dump = Mapping[str, Mapping[str, Any]]
"""{queue: {"paused": bool, "jobs": {id: job as BullMQ's own Job says}}}."""


def states(job: Mapping[str, Any], *, paused: bool) -> tuple[str, str]:
    """(state, source_state) of a job, by BullMQ's own word and its lock."""
    source_state = job["state"]
    if source_state == "unknown":
        return "stuck", "unknown"
    if source_state == "active":
        return ("active" if job["locked"] else "stuck"), "active"
    if paused and source_state in PAUSABLE:
        return "paused", source_state
    if source_state in (*PAUSABLE, "waiting-children"):
        return "waiting", source_state
    return source_state, source_state


def rows(found: Mapping[str, Json | None], dump: Dump, max_text_bytes: int) -> list[str]:
    """Every job that BullMQ has: its row, field by field."""
    wrong = []
    for queue, told in dump.items():
        for job_id, job in told["jobs"].items():
            key = job_key(SOURCE, queue, job_id)
            row = found.get(key)
            if row is None:
                wrong.append(f"{key}: no row, BullMQ says {job['state']}")
                continue
            state, source_state = states(job, paused=told["paused"])
            want = {"state": state, "source_state": source_state}
            if not queue.startswith("hostile") and "error" not in job:  # BullMQ's own library can read it
                want |= {name: job[name] for name in COMPARED}
            wrong += [
                f"{key}: {name} is {row[name]!r:.90}, BullMQ says {value!r:.90}"
                for name, value in want.items()
                if not same(name, row[name], value, max_text_bytes)
            ]
    return wrong


def same(name: str, found: Any, want: Any, max_text_bytes: int) -> bool:
    """Equal; an error text that is too long is cut as it should be."""
    if name != "failed_reason" or not isinstance(found, str) or not isinstance(want, str):
        return bool(found == want)
    size = len(want.encode(errors="replace"))
    if size <= max_text_bytes:
        return found == want
    said = CUT.search(found)
    return (
        len(found.encode()) <= max_text_bytes
        and said is not None
        and int(said.group(1)) == size
        and want.startswith(found[: said.start()])
    )


def forgotten(
    found: Mapping[str, Json | None],
    dump: Dump,
    logs: Iterable[Json],
    history: History,
    published: Iterable[Published] = (),
) -> list[str]:
    """Rows of jobs that BullMQ has not: only finished ones, as the application saw them end, and nothing undone.

    Of a job of which an entry was lost (`entries` says whether that was told) and that nobody can look at any more, no
    one knows how it ended; and what the application saw may have been undone. `published` empty: nothing was lost.
    """
    told = {(each.queue, each.id) for each in published}
    lost = {
        (each.queue, each.job_id)
        for stream in history.streams.values()
        for each in stream.entries
        if told and ((each.queue, each.id) not in told or each.fate == UNDONE)
    }
    last = {(log_["queue"], str(log_["id"])): log_ for log_ in sorted(logs, key=lambda each: each["finished_on"] or 0)}
    fates = {(e.queue, e.id): e.fate for s in history.streams.values() for e in s.entries if e.fate == UNDONE}
    for stream in history.streams.values():  # the same id may stand in two histories: then the row may mean either
        for entry in stream.entries:
            if entry.fate != UNDONE:
                fates.pop((entry.queue, entry.id), None)
    wrong = []
    for key, row in found.items():
        _, queue, job_id = parse_key(key)
        if row is None or job_id in dump.get(queue, {"jobs": {}})["jobs"] or queue.startswith("hostile"):
            continue
        if row["state"] not in FINISHED:
            wrong.append(f"{key}: {row['state']} ({row['source_state']}), but BullMQ has no such job")
            continue
        if row["observed_at"] is None and fates.get((queue, parse_id(row["position"]))) == UNDONE:
            wrong.append(
                f"{key}: {row['state']} by entry {row['position']}, which was undone, and BullMQ has no such job"
            )
        log_ = last.get((queue, job_id)) if (queue, job_id) not in lost else None
        if log_ is not None and log_["timestamp"] == row["timestamp"]:
            wrong += [
                f"{key}: {name} is {row[name]!r:.90}, the application saw {log_[name]!r:.90}{_way(row)}"
                for name in KNOWN_BY_THE_APPLICATION
                if name not in row["estimated"] and row[name] != log_[name]
            ]
    return wrong


def _way(row: Json) -> str:
    """How the row came to what it says."""
    causes = [past["cause"] for past in row.get("history", ())]
    return f" (enriched {row.get('enriched')}, estimated {row['estimated']}, at {row['position']}, {causes})"


def chains(transitions: Iterable[Json], found: Mapping[str, Json | None]) -> list[str]:
    """Every life's transitions: no hole, none twice, each from where the last led, and the row is where they end."""
    lives: dict[tuple[str, str, int], list[Json]] = defaultdict(list)
    newest: dict[str, Json] = {}
    for each in transitions:
        lives[each["queue"], each["job_id"], each["life"]].append(each)
        newest[job_key(SOURCE, each["queue"], each["job_id"])] = each
    wrong = []
    for (queue, job_id, life), chain in lives.items():
        name = f"{queue}/{job_id} life {life}"
        numbers = [each["seq"] for each in chain]
        if numbers != list(range(1, len(chain) + 1)):
            wrong.append(f"{name}: seq is {numbers}, expected 1 to {len(chain)}")
        if chain[0]["from"] is not None:
            wrong.append(f"{name}: begins from {chain[0]['from']}, expected null")
        wrong += [
            f"{name}: {a['to']} (seq {a['seq']}), then from {b['from']}"
            for a, b in pairwise(chain)
            if a["to"] != b["from"]
        ]
    for key, row in found.items():
        last = newest.get(key)
        if row is None:
            if last is not None and last["to"] not in ("removed", *FINISHED):
                wrong.append(f"{key}: its row is gone, its chain ends in {last['to']}, expected removed")
        elif row["seq"] and (
            last is None or (last["life"], last["seq"], last["to"]) != (row["life"], row["seq"], row["state"])
        ):
            end = last and (last["life"], last["seq"], last["to"])
            wrong.append(f"{key}: the row is at {(row['life'], row['seq'], row['state'])}, its chain ends at {end}")
    return wrong


def alerts(
    told: Sequence[Json],
    found: Mapping[str, Json | None],
    dump: Dump,
    transitions: Iterable[Json],
    logs: Iterable[Json],
    gone: Mapping[tuple[str, str], bool],
) -> list[str]:
    """Open exactly for what BullMQ calls failed, or is active without a lock, or in no list; one of each incident.

    `gone` = by queue and job, whether its hash was gone when it failed: such an alert ends by age alone.
    """
    wrong, firing = _incidents(told)
    first = {(each["queue"], each["job_id"], each["life"]): each for each in transitions if each["seq"] == 1}
    stays = {(log_["queue"], str(log_["id"]), log_["timestamp"]) for log_ in logs if log_["stays"]}
    expired = {each["fingerprint"] for each in told if each["resolved_by"] == "expired"}
    expected = {}
    for queue, in_bullmq in dump.items():
        for job_id, job in in_bullmq["jobs"].items():
            row = found.get(job_key(SOURCE, queue, job_id))
            if row is None:
                continue  # told by `rows`
            state, _ = states(job, paused=in_bullmq["paused"])
            if state in ("failed", "stuck"):
                key = job_key(SOURCE, queue, job_id)
                expected[fingerprint(state, key, row["life"])] = (state, key, row["life"])
    for print_, (rule, key, life) in expected.items():
        _, queue, job_id = parse_key(key)
        begin = first.get((queue, job_id, life))
        found_failed = rule == "failed" and begin is not None and begin["to"] == "failed" and begin["observed"]
        if print_ not in firing and not found_failed and print_ not in expired:
            wrong.append(f"{key} life {life}: {rule} by BullMQ's word, and no alert is open")
    for print_, alert in firing.items():
        if print_ in expected:
            continue
        key = job_key(SOURCE, alert["queue"], alert["job_id"])
        row = found.get(key)
        job = alert["queue"], alert["job_id"]
        failed = alert["rule"] == "failed" and row is not None and row["state"] == "failed"
        forgotten_ = alert["job_id"] not in dump.get(alert["queue"], {"jobs": {}})["jobs"]
        if failed and forgotten_ and row and (gone.get(job) or (*job, row["timestamp"]) not in stays):
            continue  # as far as is known BullMQ forgot it by itself: it failed all the same
        said = "no row" if row is None else f"the row says {row['state']}, life {row['life']}"
        wrong.append(f"{key} life {alert['life']}: alert {alert['rule']} is open, BullMQ does not say so; {said}")
    return wrong


def _incidents(told: Sequence[Json]) -> tuple[list[str], dict[str, Json]]:
    """What is wrong in the order of records, and which are open. Records of one fingerprint are in order."""
    wrong: list[str] = []
    firing: dict[str, Json] = {}
    for alert in told:
        name = f"alert {alert['fingerprint']} ({alert['rule']}, {alert['queue']}/{alert['job_id']})"
        before = firing.pop(alert["fingerprint"], None)
        if alert["status"] == "firing":
            if before is not None:
                wrong.append(f"{name}: fires at {alert['starts_at']} while it is open since {before['starts_at']}")
            firing[alert["fingerprint"]] = alert
        elif before is None or before["starts_at"] != alert["starts_at"]:
            wrong.append(f"{name}: resolved for {alert['starts_at']}, open was {before and before['starts_at']}")
    return wrong, firing


def entries(
    history: History, published: Iterable[Published], gaps: Iterable[Json], refused: Iterable[str] = ()
) -> list[str]:
    """Each entry that was ever readable stands once on `events`, or was lost as a gap says; nothing else is there.

    Queues with one of the marks `refused` in their names cannot be read.
    """
    wrong: list[str] = []
    by_queue: dict[str, list[Published]] = defaultdict(list)
    gaps_by_queue: dict[str, list[Json]] = defaultdict(list)
    for each in published:
        by_queue[each.queue].append(each)
    for gap in gaps:
        gaps_by_queue[gap["queue"]].append(gap)
    marks = list(refused)
    for queue in sorted({*by_queue, *history.streams}):
        if any(mark in queue for mark in marks):
            continue
        stream = history.streams.get(queue) or Stream(queue)
        told: dict[Entry, Published] = {}
        wrong += _match(stream, by_queue[queue], told)
        wrong += _lost(stream, told, gaps_by_queue[queue])
        wrong += _epochs(stream, told)
    return wrong


def _match(stream: Stream, published: Sequence[Published], told: dict[Entry, Published]) -> list[str]:
    wrong = []
    by_id: dict[Any, list[Entry]] = defaultdict(list)
    for entry in stream.entries:
        by_id[entry.id].append(entry)
    for each in published:
        name = f"{stream.queue} {each.id[0]}-{each.id[1]} epoch {each.epoch} ({each.place})"
        able = [entry for entry in by_id.get(each.id, []) if entry.digest == each.digest or not each.exact]
        free = [entry for entry in able if entry not in told]
        if free:
            told[free[0]] = each
        elif able:
            wrong.append(f"{name}: published again, first at {told[able[0]].place}")
        elif each.id in by_id:
            wrong.append(f"{name}: another content than the entry in Redis")
        else:
            wrong.append(f"{name}: published, and never stood in the stream")
    return wrong


def _lost(stream: Stream, told: Mapping[Entry, Published], gaps: Sequence[Json]) -> list[str]:
    """Missing entries against gaps: each excused by one, and the counts equal.

    What was undone before anybody read it is no loss: the history that counts never had it.
    """
    wrong = []
    only_trimmed = maybe_trimmed = 0
    seen_eras = {entry.era for entry in told}
    for entry, before, after in _neighbours(stream, told):
        # Of a stream that began and ended while nothing of it was known nobody can know, either.
        unknown = before is None and entry.fate in (DELETED, LOST)
        if entry in told or entry.fate == UNDONE or unknown:
            continue
        over = [
            gap
            for gap in gaps
            if _in_time(gap, before, after) and _excuses(gap, entry, unseen=entry.era not in seen_eras)
        ]
        if not over:
            stands = "stands in the stream, and is" if entry.fate == PRESENT else "is"
            wrong.append(
                f"{stream.queue} {entry.stream_id} ({entry.event} {entry.job_id}, era {entry.era}, {entry.fate}): "
                f"{stands} not on events, and no gap says so"
            )
        if any(gap["cause"] == "trimmed" for gap in over):
            maybe_trimmed += 1
            only_trimmed += all(gap["cause"] == "trimmed" for gap in over)
    counted = sum(gap["lost"] or 0 for gap in gaps if gap["cause"] == "trimmed")
    if not only_trimmed <= counted <= maybe_trimmed:
        most = "" if maybe_trimmed == only_trimmed else f" to {maybe_trimmed}"
        wrong.append(f"{stream.queue}: gaps say {counted} entries were lost, expected {only_trimmed}{most}")
    begun = [gap for gap in gaps if gap["cause"] != "trimmed"]
    most_begun = len(stream.began) + stream.undecided
    if len(begun) > most_begun:
        wrong.append(
            f"{stream.queue}: {len(begun)} new histories told ({[gap['cause'] for gap in begun]}), "
            f"expected at most {most_begun} ({stream.began})"
        )
    # What was read and not yet published may be counted or not.
    undone, unread = sum(entry.fate == UNDONE for entry in told), sum(e.fate == UNDONE for e in stream.entries)
    said: list[Any] = [gap.get("undone") for gap in begun if gap["cause"] in ("failover", "rewound")]
    known = bool(said) and None not in said and LOST not in stream.began and not stream.undecided
    if known and not undone <= sum(said) <= unread:
        wrong.append(f"{stream.queue}: gaps say {said} entries were undone, expected {undone} to {unread} in all")
    return wrong


def _neighbours(stream: Stream, told: Mapping[Entry, Published]) -> list[tuple[Entry, int | None, int | None]]:
    """Each entry with the epochs of the last one published before it and of the first one after it."""
    epochs = [told[entry].epoch if entry in told and told[entry].digest else None for entry in stream.entries]
    return list(zip(stream.entries, _passed(epochs), reversed(_passed(reversed(epochs))), strict=True))


def _passed(epochs: Iterable[int | None]) -> list[int | None]:
    """For each the last known one before it."""
    found: list[int | None] = []
    last = None
    for epoch in epochs:
        found.append(last)
        last = last if epoch is None else epoch
    return found


def _in_time(gap: Json, before: int | None, after: int | None) -> bool:
    """Whether a gap stands between two epochs: a history that ended later, or earlier, excuses nothing here."""
    epoch = gap.get("epoch")
    if epoch is None:
        return True
    behind = after is None or (epoch <= after if gap["cause"] == "trimmed" else epoch < after)
    return behind and (before is None or before <= epoch)


def _excuses(gap: Json, entry: Entry, *, unseen: bool) -> bool:
    """Whether a gap speaks of an entry. `unseen` = nothing of the entry's history was ever published."""
    begin, end = parse_id(gap["from_id"]), parse_id(gap["to_id"])
    if gap["cause"] == "trimmed":
        return begin < entry.id <= end and entry.fate != PRESENT
    if entry.fate == PRESENT:  # a new history without anything known: what is not above the old position is not told
        return gap["cause"] in ("failover", "rewound") and entry.id <= max(begin, end)
    return entry.id > begin or unseen


def _epochs(stream: Stream, told: Mapping[Entry, Published]) -> list[str]:
    """What a new history did not take over has a smaller epoch than all that was written in it or later."""
    least: dict[int, int] = {}
    for entry, each in told.items():
        if each.digest:  # dead letters have no epoch
            least[entry.era] = min(least.get(entry.era, each.epoch), each.epoch)
    worst: dict[tuple[int, int], tuple[Entry, Published]] = {}
    for entry, each in told.items():
        for era in (era for era in least if entry.last_era >= 0 and era > entry.last_era and least[era] <= each.epoch):
            worst.setdefault((entry.last_era, era), (entry, each))
    return [
        f"{stream.queue} {entry.stream_id} epoch {each.epoch} ({entry.fate} at the end of history {ended}): "
        f"entries of history {era} ({stream.began[era - 1]}) have epoch {least[era]}, expected a greater one"
        for (ended, era), (entry, each) in worst.items()
    ]


def some(lines: Sequence[str], most: int = LINES) -> str:
    """For a failure's message: what others wrote stays in its line."""
    more = [f"… and {len(lines) - most} more"] if len(lines) > most else []
    return "\n".join("".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in [*lines[:most], *more])
