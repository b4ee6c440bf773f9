"""The records of every topic as typed definitions: docs/topics.md and docs/asyncapi.json are made of them.

They describe what is written, they do not check it: `core/events.py` decides what is acceptable. Tests hold real
records against them. Consumers ignore fields that they do not know, so none of them is closed.
"""

from __future__ import annotations

from typing import Final

from streams import topology
from streams.docs.schemas.events import Entry, Job, Observation, Parent
from streams.docs.schemas.internal import Checkpoint, Gap, Heartbeat, Probe, Refused, Snapshot, Table
from streams.docs.schemas.jobs import Alert, Annotations, JobStatus, Labels, Past, Seed, Transition
from streams.docs.schemas.words import Shape

PARTS: Final[tuple[type[Shape], ...]] = (Job, Parent, Past, Seed, Labels, Annotations)
"""What stands inside the values."""

VALUES: Final[dict[str, tuple[type[Shape], ...]]] = {
    topology.EVENTS: (Entry, Observation),
    topology.STATUS: (JobStatus,),
    topology.TRANSITIONS: (Transition,),
    topology.ALERTS: (Alert,),
    topology.PROBES: (Probe,),
    topology.CHECKPOINTS: (Checkpoint,),
    topology.HEALTH: (Heartbeat, Gap, Snapshot, Table, Refused),
    topology.DEAD_LETTERS: (),
}
"""What the values of each topic look like; dead letters are whatever came."""

CLOUD_EVENTS: Final[dict[str, str]] = {
    topology.EVENTS: "`bullmq.job.<event>.v1`, or `bullmq.queue.<event>.v1` where `job_id` is empty",
    topology.TRANSITIONS: "`bullmq.job.transition.v1`",
    topology.ALERTS: "`bullmq.alert.v1`",
    topology.HEALTH: "`bullmq.health.<type>.v1`",
}
"""`ce_type` of the topics whose records are CloudEvents."""

IDS: Final[dict[str, str]] = {
    topology.EVENTS: (
        "`<source>/<queue>/<stream_id>`; a look: `<job key>/observed/<stream_id>/<observed_at>`; from epoch 1 on "
        "`<stream_id>~<epoch>`"
    ),
    topology.TRANSITIONS: "`<job key>@<life>/<seq>`",
    topology.ALERTS: "`<fingerprint>/<starts_at>/<status>`",
    topology.HEALTH: "`<source>/<queue>/<type>/…`",
}
"""`ce_id` of the same: a repeated record has the same one."""

DEAD_LETTER_HEADERS: Final[dict[str, str]] = {
    "dlq_topic": "where it came from: topic, with `dlq_partition` and `dlq_offset`",
    "dlq_partition": "see `dlq_topic`",
    "dlq_offset": "see `dlq_topic`",
    "dlq_stream": "or: the key of the stream in Redis, with `dlq_stream_id`",
    "dlq_stream_id": "see `dlq_stream`",
    "dlq_reason": "why, one of a closed set",
    "dlq_error": "why, in words",
    "dlq_at": "when, ms",
    "dlq_length": "the value's length in bytes, where it had to be cut",
    "dlq_key_length": "the key's length in bytes, where it had to be cut",
}
