"""The batched path of Faust: whole fetches folded and committed in one transaction, exactly once.

The way of a fetch: `transport` fetches and hands on, the agent in `app` submits to `engine`, a task per
partition (`partition`) takes it, `transaction` folds, writes (`produce`) and commits it, and `store` applies
the rows. At a rebalance `engine.assign` fences before anything is read, and `recovery` says when the rows
are complete. `process` is what runs it; `private` lists what is used of Faust that it does not promise.
"""

from streams.engine.api import BatchInfo, ConsumerRecord, EngineOptions, Handler, Stats
from streams.engine.app import BatchApp, Readiness, build
from streams.engine.process import exit_now, run
from streams.engine.quiet import RateLimit, kind_of
from streams.engine.tx import HEADER_OVERHEAD_BYTES, CheckedTx, Codec, Row, Tx, Unwritable, size_of

__all__ = [
    "HEADER_OVERHEAD_BYTES",
    "BatchApp",
    "BatchInfo",
    "CheckedTx",
    "Codec",
    "ConsumerRecord",
    "EngineOptions",
    "Handler",
    "RateLimit",
    "Readiness",
    "Row",
    "Stats",
    "Tx",
    "Unwritable",
    "build",
    "exit_now",
    "kind_of",
    "run",
    "size_of",
]
