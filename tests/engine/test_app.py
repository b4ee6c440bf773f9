"""The app's settings, Kafka's absence at the start, and the process: exit codes and bounds."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import ssl
from dataclasses import replace
from typing import Any

import faust
import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    KafkaConnectionError,
    NodeNotReadyError,
    TransactionalIdAuthorizationFailed,
)

from streams.engine import Stats, build
from streams.engine import app as engine_app
from streams.engine import broker as engine_broker
from streams.engine import process as engine_run
from streams.errors import UserError
from tests.engine.counting import Counting, options
from tests.engine.fakes import PREFIX, TOPICS, until

CONTEXT = ssl.create_default_context()


@pytest.mark.parametrize(
    ("client", "kind", "protocol"),
    [
        ({}, type(None), None),
        ({"security_protocol": "PLAINTEXT", "ssl_context": None}, type(None), None),
        ({"security_protocol": "SSL", "ssl_context": CONTEXT}, faust.SSLCredentials, "SSL"),
        ({"security_protocol": "SSL"}, faust.SSLCredentials, "SSL"),
        (
            {"security_protocol": "SASL_PLAINTEXT", "sasl_plain_username": "u", "sasl_plain_password": "p"},
            faust.SASLCredentials,
            "SASL_PLAINTEXT",
        ),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "ssl_context": CONTEXT},
            faust.SASLCredentials,
            "SASL_SSL",
        ),
        (
            {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "GSSAPI"},
            faust.GSSAPICredentials,
            "SASL_PLAINTEXT",
        ),
        (
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "sasl_oauth_token_provider": object(),
            },
            faust.OAuthCredentials,
            "SASL_SSL",
        ),
    ],
)
def test_faust_gets_the_credentials_of_the_clients(client, kind, protocol):
    found = engine_app.credentials(client)
    assert isinstance(found, kind)
    if protocol:
        assert found.protocol.value == protocol


def test_sasl_carries_user_password_and_mechanism():
    client = {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-256",
        "sasl_plain_username": "u",
        "sasl_plain_password": "p",
    }
    found = engine_app.credentials(client)
    assert (found.username, found.password, found.mechanism.value) == ("u", "p", "SCRAM-SHA-256")


def test_options_keep_the_client_out_of_their_repr():
    found = options("b:1", PREFIX, client={"bootstrap_servers": ["a:1", "b:2"], "sasl_plain_password": "secret"})
    assert "secret" not in repr(found)
    assert found.bootstrap_servers == ("a:1", "b:2")
    assert options("a:1,b:2", PREFIX).bootstrap_servers == ("a:1", "b:2")


async def test_every_server_is_given_to_faust_and_nothing_is_declared():
    app = build(options("a:1,b:2", PREFIX), Counting(TOPICS))
    assert [f"{url.host}:{url.port}" for url in app.conf.broker] == ["a:1", "b:2"]
    assert not app.conf.topic_allow_declare
    assert app.conf.topic_disable_leader
    assert app.conf.id == PREFIX


async def test_nothing_is_made_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    await build(options("a:1", PREFIX), Counting(TOPICS)).on_first_start()
    assert list(tmp_path.iterdir()) == []


class Answer:
    """A metadata response."""

    def __init__(self, topics: list[dict[str, Any]]) -> None:
        self.topics = topics

    def to_object(self) -> dict[str, Any]:
        return {"topics": self.topics}


class FakeClient:
    """Topics with their partition counts; raises `error` while it is set."""

    topics: dict[str, int] = {}  # noqa: RUF012
    hidden: set[str] = set()  # noqa: RUF012
    refused: dict[int, Exception] = {}  # noqa: RUF012
    error: Exception | None = None
    closed = 0

    def __init__(self, **_: Any) -> None: ...

    async def bootstrap(self) -> None:
        if FakeClient.error:
            raise FakeClient.error

    def get_random_node(self) -> int | None:
        return None if isinstance(FakeClient.error, NodeNotReadyError) else 1

    async def send(self, _node: int, request: Any) -> Answer:
        assert request._allow_auto_topic_creation is False, "the question would make the topics"
        if FakeClient.error:
            raise FakeClient.error
        return Answer(
            [
                {
                    "topic": name,
                    "error_code": 29 if name in self.hidden else 0 if name in self.topics else 3,
                    "partitions": [0] * self.topics.get(name, 0),
                }
                for name in request._topics
            ]
        )

    async def coordinator_lookup(self, kind: int, _name: str) -> int:
        if kind in self.refused:
            raise self.refused[kind]
        return 1

    async def close(self) -> None:
        FakeClient.closed += 1


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> type[FakeClient]:
    monkeypatch.setattr(engine_broker, "AIOKafkaClient", FakeClient)
    monkeypatch.setattr(engine_broker, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(engine_broker, "LAST_RETRY_S", 0.002)
    FakeClient.topics = {TOPICS.events: 8, TOPICS.table: 8, TOPICS.out: 8}
    FakeClient.hidden, FakeClient.refused = set(), {}
    FakeClient.error = None
    return FakeClient


@pytest.mark.errors_expected
@pytest.mark.usefixtures("admin")
class TestBroker:
    async def test_all_well(self):
        broker = engine_broker.Broker(options("b:1", PREFIX))
        assert await broker.look()
        assert (broker.kafka, broker.topics, broker.trouble) == (True, True, "")
        await broker.close()

    async def test_missing_topics_are_named(self, admin):
        del admin.topics[TOPICS.table], admin.topics[TOPICS.out]
        broker = engine_broker.Broker(options("b:1", PREFIX))
        assert not await broker.look()
        assert (broker.kafka, broker.topics) == (True, False)
        assert broker.trouble == "topics are missing: t.out, t.table"

    async def test_topics_that_may_not_be_used_are_not_called_missing(self, admin):
        admin.hidden = {TOPICS.out}
        broker = engine_broker.Broker(options("b:1", PREFIX))
        assert not await broker.look()
        assert (broker.kafka, broker.topics) == (True, False)
        assert broker.trouble == "topics that this Kafka user may not use: t.out"

    @pytest.mark.parametrize(
        ("refused", "trouble"),
        [
            ({0: GroupAuthorizationFailedError()}, "group that this Kafka user may not use: t (needed: Read)"),
            (
                {1: TransactionalIdAuthorizationFailed()},
                "transactional id that this Kafka user may not use: t-0 (needed: Write and Describe)",
            ),
        ],
    )
    async def test_a_group_or_transactions_that_may_not_be_used(self, admin, refused, trouble):
        admin.refused = refused
        broker = engine_broker.Broker(options("b:1", PREFIX))
        assert not await broker.look()
        assert (broker.kafka, broker.topics) == (False, True)
        assert broker.trouble == trouble
        admin.refused = {}
        assert await broker.look()
        admin.refused = refused
        assert await broker.look(), "asked for until it was granted once, and no more"

    async def test_a_coordinator_that_is_being_set_up_is_no_trouble(self, admin):
        admin.refused = {0: GroupCoordinatorNotAvailableError()}
        broker = engine_broker.Broker(options("b:1", PREFIX))
        assert await broker.look()
        admin.refused = {0: GroupAuthorizationFailedError()}
        assert not await broker.look(), "and it is asked for again"

    async def test_unequal_partition_counts_are_no_start(self, admin):
        admin.topics[TOPICS.table] = 4
        broker = engine_broker.Broker(options("b:1", PREFIX))
        assert not await broker.look()
        assert "8 partitions and t.table 4" in broker.trouble

    @pytest.mark.parametrize("topic", [TOPICS.events, TOPICS.table, TOPICS.out])
    async def test_other_partitions_than_the_settings_say_are_an_error_with_its_remedy(self, admin, topic):
        declared = {TOPICS.events: 8, TOPICS.table: 8, TOPICS.out: 8, "of somebody else": 3}
        broker = engine_broker.Broker(replace(options("b:1", PREFIX), partitions=declared))
        assert await broker.look()
        admin.topics[topic] = 12
        with pytest.raises(UserError) as caught:
            await broker.wait()
        assert caught.value.exit_code == 2
        found, remedy = str(caught.value).split("\n")
        assert found == f"{topic} has 12 partitions, the settings say 8"
        assert remedy.startswith("set kafka.partitions")
        assert broker.topics is False

    async def test_it_waits_and_says_so_once(self, admin, caplog):
        admin.error = KafkaConnectionError("refused")
        broker = engine_broker.Broker(options("b:1", PREFIX))
        waiting = asyncio.create_task(broker.wait())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert broker.kafka is False
        assert len(caplog.records) == 1
        admin.error = None
        with caplog.at_level("INFO"):
            await asyncio.wait_for(waiting, 20)
        assert caplog.records[-1].getMessage() == "Kafka answers and all topics are there"

    async def test_a_lost_broker_is_seen_while_running(self, admin, monkeypatch):
        monkeypatch.setattr(engine_broker, "WATCH_INTERVAL_S", 0.001)
        broker = engine_broker.Broker(options("b:1", PREFIX))
        await broker.look()
        admin.error = KafkaConnectionError("gone")
        watching = asyncio.create_task(broker.watch())
        await asyncio.sleep(0.05)
        watching.cancel()
        assert broker.kafka is False


@pytest.mark.errors_expected
@pytest.mark.usefixtures("admin")
async def test_readiness_names_what_is_missing():
    app = build(options("b:1", PREFIX), Counting(TOPICS))
    assert app.readiness().missing == ["kafka", "topics", "recovery"]
    await app.broker.look()
    assert app.readiness().missing == ["recovery"]
    app.engine._assigned_at = 0.0
    assert app.readiness().missing == []


class FakeApp:
    """What `run` needs of an app."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._crashed = asyncio.Event()
        self.crash_reason: Any = None
        self.started, self.stopped = asyncio.Event(), 0
        self.ticks: list[int] = []
        self.engine = self
        self.stats = Stats(recoveries=1)
        self.broker = self
        self.start_error: Exception | None = None
        self.hangs = False
        self.recovers = True
        self.wait_error: Exception | None = None
        self.watched: asyncio.Future[None] = self.loop.create_future()
        self.closed = 0
        self.beat: Any = lambda _name: None
        self.limits = self

    @property
    def crashed(self) -> bool:
        return self._crashed.is_set()

    def tick(self, now_ms: int) -> None:
        self.ticks.append(now_ms)

    async def wait(self) -> None:
        if self.wait_error:
            raise self.wait_error

    async def read(self) -> None:
        """What the topics take, as `limits`."""

    async def watch(self) -> None:
        await self.watched

    async def close(self) -> None:
        self.closed += 1

    async def start(self) -> None:
        if self.start_error:
            raise self.start_error
        self.started.set()
        if not self.recovers:
            await asyncio.Event().wait()

    async def stop(self) -> None:
        self.stopped += 1
        if self.hangs:
            await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _no_gc_settings(monkeypatch):
    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)


class TestRun:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    async def test_a_signal_ends_it_well(self, number):
        app: Any = FakeApp()
        told: list[int] = []
        beats: list[str] = []
        running = asyncio.create_task(
            engine_run.run(app, tick_interval_s=0.001, on_started=lambda: told.append(1), beat=beats.append)
        )
        await until(lambda: app.ticks)
        os.kill(os.getpid(), number)
        assert await running == 0
        assert set(beats) == {"ticks"}
        assert app.stopped == 1
        assert told == [1]
        assert app.ticks

    @pytest.mark.errors_expected
    async def test_a_crash_is_1(self):
        app: Any = FakeApp()
        running = asyncio.create_task(engine_run.run(app, tick_interval_s=1))
        await app.started.wait()
        app._crashed.set()
        assert await running == 1
        assert app.stopped == 1

    @pytest.mark.errors_expected
    async def test_a_start_that_fails_is_1(self):
        app: Any = FakeApp()
        app.start_error = OSError("no")
        assert await engine_run.run(app, tick_interval_s=1) == 1

    async def test_what_the_user_has_to_mend_is_said_before_anything_starts(self):
        app: Any = FakeApp()
        app.wait_error = UserError("eight, not twelve")
        with pytest.raises(UserError, match="eight"):
            await engine_run.run(app, tick_interval_s=1)
        assert not app.started.is_set()
        assert app.closed == 1

    @pytest.mark.errors_expected
    @pytest.mark.parametrize("recovered", [False, True])
    async def test_what_the_user_has_to_mend_stops_a_running_app(self, recovered):
        app: Any = FakeApp()
        app.recovers = recovered
        running = asyncio.create_task(engine_run.run(app, tick_interval_s=0.001))
        await app.started.wait()
        if recovered:
            await until(lambda: app.ticks)
        app.watched.set_exception(UserError("eight, not twelve"))
        with pytest.raises(UserError, match="eight"):
            await asyncio.wait_for(running, 20)
        assert app.stopped == 1

    async def test_a_signal_while_kafka_is_waited_for(self):
        app: Any = FakeApp()
        app.wait = asyncio.Event().wait
        running = asyncio.create_task(engine_run.run(app, tick_interval_s=1))
        await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(running, 20) == 0
        assert not app.started.is_set()

    @pytest.mark.errors_expected
    @pytest.mark.parametrize(("crashes", "code"), [(False, 0), (True, 1)])
    async def test_a_stop_that_hangs_ends_the_process(self, monkeypatch, crashes, code):
        monkeypatch.setattr(engine_run, "STOP_TIMEOUT_S", 0.02)
        codes: list[int] = []
        monkeypatch.setattr(engine_run, "exit_now", codes.append)
        app: Any = FakeApp()
        app.hangs = True
        running = asyncio.create_task(engine_run.run(app, tick_interval_s=1))
        await app.started.wait()
        app._crashed.set() if crashes else os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(running, 20)
        assert codes == [code]

    async def test_an_app_of_another_loop_is_refused(self):
        app: Any = FakeApp()
        app.loop = None
        with pytest.raises(RuntimeError, match="never fetch"):
            await engine_run.run(app, tick_interval_s=1)
