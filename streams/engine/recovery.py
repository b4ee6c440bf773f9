"""When recovery is over: the consumer's position has passed the highwater.

Counting delivered records never gets there: the tail of a transactional log is a commit marker or aborted
data, of which nothing is ever delivered. The position passes both.
"""

# ruff: noqa: SLF001 - the private names are listed in private.py

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faust.transport.drivers import aiokafka as driver

if TYPE_CHECKING:
    from faust.types.tuples import TP

    from streams.engine.store import PartitionStore


def position(consumer: Any, tp: TP) -> int | None:
    """The offset that a fetch of the partition would ask for next; None when it is not (yet) assigned."""
    subscription = consumer._thread._consumer._subscription.subscription
    assignment = subscription and subscription.assignment
    if not assignment or tp not in assignment.tps:
        return None
    found: int | None = assignment.state_value(driver.ensure_aiokafka_TP(tp))._position
    return found


def track(consumer: Any, store: PartitionStore) -> None:
    """Move Faust's books to the positions reached; signal the end of recovery. Called after every fetch."""
    tables = consumer.app.tables
    recovery = tables.recovery
    _advance(consumer, store, recovery.active_tps, recovery.active_offsets)
    _advance(consumer, store, recovery.standby_tps, recovery.standby_offsets)
    if recovery.in_recovery and not recovery.need_recovery():
        # Faust's own loop ends the recovery from here, and looks again within 5 s should it miss the signal.
        recovery.signal_recovery_end.set()
    if recovery.standby_tps and not tables.standbys_ready and not recovery.standby_remaining_total():
        tables.on_standbys_ready()


def _advance(consumer: Any, store: PartitionStore, tps: set[TP], offsets: dict[TP, int | None]) -> None:
    for tp in tps:
        seen = offsets.get(tp)
        if tp not in consumer.sought or seen is None:
            continue
        reached = (position(consumer, tp) or 0) - 1
        if reached > seen:
            offsets[tp] = store.offsets[tp.partition] = reached
