"""The Faust app: events topic, table, one agent that only hands over to the engine."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import faust

from streams.engine.broker import Broker
from streams.engine.engine import Engine
from streams.engine.messages import BatchTopic
from streams.engine.store import BatchTable
from streams.engine.transport import BatchTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from streams.engine.api import EngineOptions, Handler


@dataclass(frozen=True, slots=True)
class Readiness:
    """What /readyz tells of the worker. `detail` says in words what is wrong with Kafka or the topics."""

    kafka: bool
    topics: bool
    recovery: bool
    detail: str = ""

    @property
    def missing(self) -> list[str]:
        """Names of what is not there yet; empty = ready."""
        return [name for name in ("kafka", "topics", "recovery") if not getattr(self, name)]


class BatchApp(faust.App):
    """A Faust app with an engine. Made by `build`."""

    engine: Engine
    broker: Broker

    beat: Callable[[str], None] = staticmethod(lambda _name: None)
    """An endless loop of this name has turned. `run` puts in its place who wants to hear of it."""

    def readiness(self) -> Readiness:
        """As it is known now; nothing is asked."""
        broker = self.broker
        recovery = not self.should_stop and self.engine.recovered_all
        return Readiness(bool(broker.kafka), bool(broker.topics), recovery, broker.trouble)

    def _create_directories(self) -> None:
        """Make none. The table is in memory, and the working directory may not be writable."""

    async def on_stop(self) -> None:
        """End the transactions in flight before anything else is taken down."""
        await self.engine.stop()
        await super().on_stop()


def credentials(client: dict[str, Any]) -> Any:
    """Faust's credentials for the keyword arguments of an aiokafka client; None for plain text."""
    protocol = client.get("security_protocol", "PLAINTEXT")
    context = client.get("ssl_context")
    if protocol.endswith("SSL") and context is None:
        context = ssl.create_default_context()
    if protocol == "SSL":
        return faust.SSLCredentials(context)
    if not protocol.startswith("SASL"):
        return None
    mechanism = client.get("sasl_mechanism", "PLAIN")
    if mechanism == "OAUTHBEARER":
        return faust.OAuthCredentials(oauth_cb=client["sasl_oauth_token_provider"], ssl_context=context)
    if mechanism == "GSSAPI":
        return faust.GSSAPICredentials(
            kerberos_service_name=client.get("sasl_kerberos_service_name", "kafka"),
            kerberos_domain_name=client.get("sasl_kerberos_domain_name"),
            mechanism=mechanism,
            ssl_context=context,
        )
    return faust.SASLCredentials(
        username=client.get("sasl_plain_username"),
        password=client.get("sasl_plain_password"),
        mechanism=mechanism,
        ssl_context=context,
    )


def build(options: EngineOptions, handler: Handler) -> BatchApp:
    """An app ready for `run`. Connects to nothing.

    To be called inside the loop that will run it (RuntimeError otherwise): Faust's services keep the loop
    they were made in, and made outside of one they start, recover and then fetch nothing, without a word.
    """
    asyncio.get_running_loop()
    app = _app(options)
    topic = BatchTopic(app, topics=[options.events_topic], key_type=bytes, value_type=bytes)
    changelog = app.topic(options.table_topic, key_type=bytes, value_type=bytes, acks=False)
    table = app.Table("status", key_type=bytes, value_type=bytes, changelog_topic=changelog)
    app.engine = engine = Engine(app, table, handler, options)
    app.broker = Broker(options)

    @app.agent(topic, name="fold")
    async def fold(stream: Any) -> None:
        stream = stream.noack()  # the engine acknowledges, after the commit
        async for event in stream.events():
            engine.submit(stream, event)

    return app


def _app(options: EngineOptions) -> BatchApp:
    app = BatchApp(
        options.app_id,
        broker=[f"kafka://{server}" for server in options.bootstrap_servers],
        broker_credentials=credentials(dict(options.client)),
        broker_session_timeout=options.session_timeout_s,
        broker_heartbeat_interval=options.session_timeout_s / 4,
        broker_rebalance_timeout=60.0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=options.instance_id,
        consumer_max_fetch_size=options.fetch_bytes,
        stream_buffer_maxsize=64,  # counts fetches here; the engine holds back by records
        stream_wait_empty=False,  # the engine waits itself, for what it will finish
        table_standby_replicas=options.standbys,
        topic_allow_declare=False,
        topic_disable_leader=True,  # it would declare a topic of its own
        web_enabled=False,
        Table=BatchTable,
    )
    app.transport = BatchTransport(app.conf.broker_consumer, app)
    app.sensors.add(app.monitor)  # the livelock check reads it; only Faust's own Worker adds it
    return app
