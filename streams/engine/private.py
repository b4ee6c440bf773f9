"""Every private name of Faust, mode and aiokafka that the engine touches, and the version it was read in.

These libraries promise nothing about the names below. A new one goes here first; `problems()` says what an
installed version no longer has, and a test fails on it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

VERSIONS: Final[dict[str, str]] = {
    "faust-streaming": "0.15.3",
    "mode-streaming": "0.7.1",
    "aiokafka": "0.14.0",
}


@dataclass(frozen=True, slots=True)
class Private:
    """Names of one owner: `module:Class`, or `module` alone for globals, and what they are used for."""

    owner: str
    names: tuple[str, ...]
    why: str


PRIVATE: Final[tuple[Private, ...]] = (
    Private("faust.topics:Topic", ("_compile_decode", "decode"), "events carry undecoded records"),
    Private("faust.tables.base:Collection", ("_new_store", "data", "changelog_topic_name"), "our own store"),
    Private("faust.stores.memory:Store", ("__post_init__",), "rows kept by partition"),
    Private(
        "faust.stores.base:Store",
        ("persisted_offset", "on_rebalance", "on_recovery_completed"),
        "where recovery starts, what it restored, when it is over",
    ),
    Private(
        "faust.tables.recovery:Recovery",
        (
            "active_tps",
            "active_offsets",
            "active_highwaters",
            "standby_tps",
            "standby_offsets",
            "standby_remaining_total",
            "in_recovery",
            "need_recovery",
            "signal_recovery_end",
        ),
        "end of recovery by position",
    ),
    Private(
        "faust.tables.manager:TableManager",
        ("recovery", "standbys_ready", "on_standbys_ready"),
        "end of recovery",
    ),
    Private(
        "faust.transport.consumer:Consumer",
        (
            "_drain_messages",
            "_get_active_partitions",
            "_getmany",
            "_buffered_partitions",
            "on_buffer_full",
            "on_buffer_drop",
            "flow_active",
            "suspend_flow",
            "can_resume_flow",
            "_read_offset",
            "_committed_offset",
            "_acked",
            "_unacked_messages",
            "_waiting_for_ack",
            "_new_offset",
            "perform_seek",
            "seek_wait",
            "subscribe",
            "ack",
            "callback",
            "commit",
            "consumer_stopped_errors",
            "on_partitions_revoked",
            "on_partitions_assigned",
        ),
        "the fetch loop is replaced, seeks and acknowledgements are guarded",
    ),
    Private(
        "faust.transport.drivers.aiokafka:Consumer",
        ("_new_consumer_thread", "_to_message", "_thread", "highwater"),
        "own thread class; the stock path of other topics",
    ),
    Private("faust.transport.drivers.aiokafka", ("ensure_aiokafka_TP",), "position of a partition"),
    Private(
        "faust.transport.drivers.aiokafka:AIOKafkaConsumerThread",
        (
            "_create_worker_consumer",
            "_consumer",
            "tp_last_committed_at",
            "seek_to_beginning",
            "earliest_offsets",
            "call_thread",
        ),
        "read_committed, fetch wait, position, the books of the livelock check",
    ),
    Private(
        "faust.assignor.partition_assignor:PartitionAssignor",
        ("assigned_actives",),
        "are the rows of a partition ours too",
    ),
    Private(
        "faust.app.base:App",
        (
            "transport",
            "on_stop",
            "consumer_generation_id",
            "monitor",
            "create_event",
            "assignor",
            "_create_directories",
        ),
        "own transport; generation of a fetch; books",
    ),
    Private("mode.services:Service", ("_stopped", "_crashed", "crash"), "own main instead of the Worker"),
    Private("mode.utils.futures", ("notify",), "acknowledge"),
    Private(
        "aiokafka.consumer.consumer:AIOKafkaConsumer",
        ("_isolation_level", "_fetch_max_wait_ms", "_fetch_max_bytes", "_subscription", "_coordinator"),
        "set between construction and start; asking for a new assignment",
    ),
    Private(
        "aiokafka.consumer.group_coordinator:GroupCoordinator",
        ("request_rejoin", "_send_req", "coordinator_dead"),
        "asking for a new assignment; a refused question for committed offsets",
    ),
    Private(
        "aiokafka.consumer.subscription_state:SubscriptionState",
        ("subscription",),
        "position of a partition",
    ),
    Private(
        "aiokafka.consumer.subscription_state:TopicPartitionState",
        ("_position",),
        "position of a partition, markers passed",
    ),
    Private("aiokafka.consumer.fetcher:PartitionRecords", ("_consumer_record",), "leaner records"),
    Private(
        "aiokafka.consumer.fetcher:FetchResult",
        ("getall", "check_assignment", "has_more", "_topic_partition", "_partition_records", "_update_position"),
        "a fetch is unpacked in pieces",
    ),
    Private("aiokafka.producer.sender", ("BACKOFF_OVERRIDE",), "wait between two transactions"),
    Private(
        "aiokafka.producer.producer:AIOKafkaProducer",
        ("_txn_manager", "_message_accumulator"),
        "is the producer lost; size of its batches",
    ),
    Private("aiokafka.producer.message_accumulator:MessageAccumulator", ("_batch_size",), "size of batches"),
    Private(
        "aiokafka.producer.transaction_manager:TransactionManager",
        ("is_fatal_error", "sequence_number", "_sequence_numbers"),
        "is the producer lost; numbers after a refused batch",
    ),
)


def problems() -> list[str]:
    """What the installed libraries have not, one sentence each; empty when all is as it was read."""
    return [*_versions(), *(line for entry in PRIVATE for line in _missing(entry))]


def _versions() -> list[str]:
    found = []
    for name, read_in in VERSIONS.items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "nothing"
        if installed != read_in:
            found.append(f"{name}: private names were read in {read_in}, installed is {installed}")
    return found


def _missing(entry: Private) -> list[str]:
    module_name, _, class_name = entry.owner.partition(":")
    try:
        owner = importlib.import_module(module_name)
        owner = getattr(owner, class_name) if class_name else owner
    except (ImportError, AttributeError):
        return [f"{entry.owner} is gone ({entry.why})"]
    return [f"{entry.owner}.{name} is gone ({entry.why})" for name in entry.names if not _has(owner, name)]


def _has(owner: object, name: str) -> bool:
    """True when the name is an attribute, or is set on instances by the class or one of its bases."""
    if hasattr(owner, name):
        return True
    if not inspect.isclass(owner):
        return False
    set_on_self = re.compile(rf"\bself\.{name}\b")
    return any(
        name in vars(cls).get("__annotations__", {}) or set_on_self.search(_source(cls)) for cls in owner.__mro__
    )


def _source(cls: type) -> str:
    try:
        return inspect.getsource(cls)
    except (OSError, TypeError):  # built in, or made at run time
        return ""
