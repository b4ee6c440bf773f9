"""What entries alone cannot tell, step by step: BullMQ changes it without an entry (or writes one that is not so).

`test_recordings` proves that each line is still needed. A look (`test_one_look_at_the_end…`) mends them all.
"""

from __future__ import annotations

from typing import NamedTuple

ALL = ("v4", "v5", "v6")
LATE = ("v5", "v6")


class Known(NamedTuple):
    scenario: str
    job: str  # <queue>/<job id>
    field: str  # `row`: the row is there and the job is not
    versions: tuple[str, ...]
    steps: tuple[int, ...]
    reason: str


PAUSE = "a queue is paused and resumed as a whole: no entry names its jobs (the bridge looks at them)"
LOCK = "a dead worker's lock expires without an entry (the worker asks)"
GONE = "drain, clean and obliterate write no entry for a job"
SCHEDULER = "the second upsert of a scheduler deletes the pending iteration without an entry"
PRIORITY = "changePriority writes no entry"
SILENT = "BullMQ 4 moves a running job to waiting-children without an entry"
FORGED = "the entry was forged by a QueueEventsProducer; it is followed, BullMQ's own listeners cannot tell it either"
_V5_REPEAT = "repeat:drive-hourly:1795548233353"
_V6_REPEAT = "repeat:drive-hourly:1795548277340"

KNOWN = (
    Known(
        "progress_number_and_object", "progress_number_and_object/1", "data", ALL, (9,), "updateData writes no entry"
    ),
    Known("priority", "priority/4", "priority", ALL, (2, 3, 4), PRIORITY),
    Known("priority", "priority/4", "source_state", LATE, (3, 4), PRIORITY),
    Known("pause_resume", "pause_resume/3", "state", ALL, (3, 4, 5, 6, 7, 8), PAUSE),
    Known("pause_resume", "pause_resume/4", "state", ALL, (3, 4, 5, 6), PAUSE),
    Known("pause_resume", "pause_resume/5", "state", ALL, (9,), PAUSE),
    Known("clean", "clean/4", "row", ALL, (3,), GONE),
    Known("clean", "clean/5", "row", ALL, (3,), GONE),
    Known("drain", "drain/2", "row", ALL, (3, 4, 5), GONE),
    Known("drain", "drain/3", "row", ALL, (3, 4, 5), GONE),
    Known("drain", "drain/4", "row", ALL, (4, 5), GONE),
    Known("obliterate_and_reuse", "obliterate_and_reuse/2", "row", ALL, (2, 3, 4), GONE),
    Known("flow_parent_freed_by_drain", "crawl-files/child-a", "row", ALL, (2,), GONE),
    Known("flow_parent_freed_by_drain", "flow_parent_freed_by_drain/parent-a", "source_state", ALL, (2,), GONE),
    Known("job_scheduler", f"job_scheduler/{_V5_REPEAT}", "row", ("v5",), (4, 5), SCHEDULER),
    Known("job_scheduler", f"job_scheduler/{_V6_REPEAT}", "row", ("v6",), (4, 5), SCHEDULER),
    Known("stalled_rescued", "stalled_rescued/1", "state", ALL, (5, 6, 7), LOCK),
    Known("stalled_too_often", "stalled_too_often/1", "state", ALL, (2, 4), LOCK),
    Known("force_closed_worker", "force_closed_worker/1", "state", ALL, (3, 4), LOCK),
    Known("move_to_waiting_children", "move_to_waiting_children/1", "attempts_made", ("v4",), (3,), SILENT),
    Known("move_to_waiting_children", "move_to_waiting_children/1", "state", ("v4",), (3,), SILENT),
    Known("move_to_waiting_children", "move_to_waiting_children/1", "source_state", ("v4",), (3,), SILENT),
    Known(
        "zombie_progress_after_completed",
        "zombie_progress_after_completed/1",
        "failed_reason",
        ("v4",),
        (6,),
        "a BullMQ 4 worker that has lost its lock writes into the completed hash without an entry",
    ),
    Known("custom_event", "custom_event/1", "state", LATE, (2,), FORGED),
    Known("custom_event", "custom_event/1", "source_state", LATE, (2,), FORGED),
    Known("custom_event", "custom_event/1", "finished_on", LATE, (2,), FORGED),
    Known("custom_event", "custom_event/1", "return_value", LATE, (2,), FORGED),
)


def expand(version: str, scenario: str) -> set[tuple[int, str, str]]:
    """(step, job, field) of one recorded scenario."""
    return {
        (step, known.job, known.field)
        for known in KNOWN
        if known.scenario == scenario and version in known.versions
        for step in known.steps
    }
