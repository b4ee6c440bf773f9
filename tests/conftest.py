"""What tests share: real servers of the session, names of their own for each test, and no error that nobody sees."""

from __future__ import annotations

import gc
import logging
import signal
import uuid
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import redis.asyncio
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from streams import topology
from streams.local import stack
from streams.local.errors import LocalStackError
from tests import secure_redis as secure
from tests.needs import missing
from tests.node import bullmq

Topics = Callable[..., Awaitable[dict[str, str]]]


# How long an example takes says how busy the machine is, and nothing of what it is an example of.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    # A shell lets what it starts in the background ignore Ctrl-C, and the children of tests would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "markers", "errors_expected: the test makes the product log errors, and looks at them or not"
    )


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a real broker for the whole session. Tests that stop or freeze one bring their own."""
    folder = tmp_path_factory.mktemp("kafka")
    yield _up(folder, kafka=True).bootstrap
    stack.down(folder)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real Redis-compatible server for the whole session: use queue names of your own (`prefix`)."""
    folder = tmp_path_factory.mktemp("redis")
    yield _up(folder, kafka=False).redis_url
    stack.down(folder)


def _up(folder: Path, *, kafka: bool) -> stack.Servers:
    try:
        return stack.up(folder, kafka=kafka, redis=not kafka)
    except LocalStackError as error:
        missing(str(error), "these tests need real servers")


@pytest.fixture
def prefix() -> str:
    """A topic prefix (and good start of any other name) that no other test has."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def topics(kafka: str, prefix: str) -> Topics:
    """`await topics(partitions=8)` makes all topics of the topology under `prefix`; gives {short name: full name}."""

    async def create(partitions: int = 8) -> dict[str, str]:
        names = {topic.name: topology.full_name(prefix, topic.name) for topic in topology.TOPICS}
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            await admin.create_topics(
                [
                    NewTopic(names[topic.name], topic.partitions or partitions, 1, topic_configs=topic.config())
                    for topic in topology.TOPICS
                ]
            )
        finally:
            await admin.close()
        return names

    return create


@pytest.fixture
async def redis_client(redis_server: str) -> AsyncIterator[Any]:
    """An asyncio client of `redis_server`; strings, not bytes."""
    client = redis.asyncio.from_url(redis_server, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def secure_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[secure.SecureRedis]:
    """A Redis with TLS, a password and ACL users."""
    with secure.running(tmp_path_factory.mktemp("secure-redis")) as server:
        yield server


@pytest.fixture(scope="session")
def node_bullmq() -> Callable[[str], Path]:
    """`node_bullmq("v5")` = a folder whose node_modules has that `bullmq` and `ioredis`: v4, v5seed, v5, v6."""
    return bullmq.install


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Levels and filters that a test sets (a rate limit on the libraries, say) would hide records from the next."""
    manager = logging.root.manager
    loggers = [logging.root, *(found for found in manager.loggerDict.values() if isinstance(found, logging.Logger))]
    before = [(logger, logger.level, logger.propagate, logger.filters[:]) for logger in loggers]
    yield
    for logger, level, propagate, filters in before:
        if logger.level != level:  # setting it clears the caches of all loggers
            logger.setLevel(level)
        logger.propagate = propagate
        logger.filters[:] = filters


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def _no_unseen_errors(request: pytest.FixtureRequest) -> Iterator[None]:
    """What production would only log fails the test, unless it is marked `errors_expected`."""
    # Whatever takes over signals in a test leaves them to the system's default, which would leave servers behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    errors, logger = _Errors(), logging.getLogger("streams")
    logger.addHandler(errors)
    yield
    logger.removeHandler(errors)
    if errors.records and request.node.get_closest_marker("errors_expected") is None:
        said = "\n".join(f"{record.name}: {record.getMessage()}" for record in errors.records)
        pytest.fail(f"the product logged errors:\n{said}", pytrace=False)


@pytest.fixture(autouse=True)
def _collect_what_bullmqs_port_leaves(request: pytest.FixtureRequest) -> Iterator[None]:
    """BullMQ's Python port leaves connections open when it is closed. Collected here, without a word, or the
    collector finds them in some later test, whose failure they would be.
    """
    yield
    if request.node.get_closest_marker("system") is not None:  # a collection takes a quarter of a second
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
