"""Is Kafka there, and are the topics? Asked before the start until both are, and now and then while running."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaError,
    NodeNotReadyError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.metadata import MetadataRequest

from streams.errors import UserError

if TYPE_CHECKING:
    from streams.engine.api import EngineOptions

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S: Final = 5.0
FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 5.0
WATCH_INTERVAL_S: Final = 5.0


class WrongPartitionsError(UserError):
    """A topic has another number of partitions than the settings say: no waiting mends that."""

    exit_code = 2


class Broker:
    """What is known of the cluster. `kafka` and `topics` are None until it was asked."""

    def __init__(self, options: EngineOptions) -> None:
        self.options = options
        self.kafka: bool | None = None
        self.topics: bool | None = None
        self.trouble = ""
        self._client: Any = None
        self._admitted = False
        self._told = ""

    async def wait(self) -> None:
        """Return when Kafka answers and all topics are there. Says what is missing once, then again on change.

        Raises WrongPartitionsError.
        """
        pause_s = FIRST_RETRY_S
        while not await self.look():
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)

    async def watch(self) -> None:
        """Keep `kafka` and `topics` true. Never returns; raises WrongPartitionsError."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            await self.look()

    async def look(self) -> bool:
        """Ask once. True when all is well. Raises WrongPartitionsError."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                trouble = await self._topics()
                refusal = "" if trouble else await self._refusal()
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            self.kafka, trouble = False, f"Kafka does not answer: {error!r}"
        else:
            self.kafka, self.topics = not refusal, not trouble
            trouble = trouble or refusal
        self._tell(trouble)
        return not trouble

    async def close(self) -> None:
        """Let go of the connection."""
        client, self._client = self._client, None
        if client is not None:
            closing = asyncio.get_running_loop().create_task(client.close())
            await asyncio.wait([closing], timeout=ANSWER_TIMEOUT_S)
            if not closing.done():
                closing.cancel()
            elif (error := closing.exception()) is not None:
                log.debug("closing: %r", error)

    @property
    def wanted(self) -> tuple[str, ...]:
        """All topics that have to exist."""
        return (self.options.events_topic, self.options.table_topic, *self.options.output_topics)

    async def _topics(self) -> str:
        """What is wrong with the topics; empty when all are there and may be used.

        Not by describing them: on a broker that creates topics by itself (Kafka's default) the question would.
        """
        if self._client is None:
            self._client = AIOKafkaClient(**self.options.client, client_id=f"{self.options.app_id}-watch")
            await self._client.bootstrap()
        node = self._client.get_random_node()
        if node is None:
            raise NodeNotReadyError("no broker is known")
        response = await self._client.send(node, MetadataRequest(list(self.wanted), allow_auto_topic_creation=False))
        described = response.to_object()["topics"]
        found = {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}
        refused = TopicAuthorizationFailedError.errno
        hidden = sorted(topic["topic"] for topic in described if topic["error_code"] == refused)
        return self._judge(found, hidden)

    def _judge(self, found: dict[str, int], hidden: list[str]) -> str:
        if hidden:
            return f"topics that this Kafka user may not use: {', '.join(hidden)}"
        missing = sorted(set(self.wanted) - found.keys())
        if missing:
            return f"topics are missing: {', '.join(missing)}"
        self._compare(found)
        events, table = self.options.events_topic, self.options.table_topic
        if found[events] != found[table]:
            return f"{events} has {found[events]} partitions and {table} {found[table]}: they must be equal"
        return ""

    def _compare(self, found: dict[str, int]) -> None:
        """A job's key would be looked for on another partition than the one it was written to."""
        declared = self.options.partitions
        wrong = [name for name in self.wanted if declared.get(name, found[name]) != found[name]]
        if wrong:
            self.topics = False
            lines = [f"{name} has {found[name]} partitions, the settings say {declared[name]}" for name in wrong]
            remedy = (
                "set kafka.partitions to what events, status, transitions, alerts and probes have; where they differ "
                "among themselves start anew under another kafka.topic_prefix (bullmq-streams topics check lists them)"
            )
            raise WrongPartitionsError("\n".join([*lines, remedy]))

    async def _refusal(self) -> str:
        """Why group or transactions may not be used; empty when they may.

        Asked until it was so once: a consumer whose group is refused waits for ever and says nothing.
        """
        if self._admitted:
            return ""
        group = self.options.app_id
        needed = [(CoordinationType.GROUP, group, "group", "Read")]
        if self.options.exactly_once:
            needed.append((CoordinationType.TRANSACTION, f"{group}-0", "transactional id", "Write and Describe"))
        for kind, name, what, right in needed:
            try:
                await self._client.coordinator_lookup(kind, name)
            except (GroupAuthorizationFailedError, TransactionalIdAuthorizationFailed):
                return f"{what} that this Kafka user may not use: {name} (needed: {right})"
            except GroupCoordinatorNotAvailableError:  # the first question ever makes the broker set it up
                return ""
        self._admitted = True
        return ""

    def _tell(self, trouble: str) -> None:
        kind = trouble.partition(":")[0]
        if trouble and kind != self._told:
            log.error("%s; trying again (bullmq-streams doctor says what is to be done)", trouble)
        elif self._told and not trouble:
            log.info("Kafka answers and all topics are there")
        self._told, self.trouble = kind, trouble
