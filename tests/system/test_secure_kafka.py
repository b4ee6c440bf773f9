"""The whole line on a Kafka as in production: TLS, a login, and not a word of the password anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bullmq import Queue

from tests import login_kafka
from tests.needs import missing
from tests.secure_redis import certificates
from tests.system import oracle
from tests.system.support import Line, until

pytestmark = pytest.mark.system

PASSWORD = "battery-staple"


@dataclass(frozen=True)
class SecureKafka:
    """`open` is the same broker without TLS, for the test to read from."""

    open: str
    port: int
    folder: Path

    def settings(self, **changed: str) -> dict[str, str]:
        """The documented settings, as environment variables."""
        named = {
            "BOOTSTRAP_SERVERS": f"127.0.0.1:{self.port}",
            "SECURITY_PROTOCOL": "SASL_SSL",
            "SASL_MECHANISM": "PLAIN",
            "SASL_USERNAME": "line",
            "SASL_PASSWORD": PASSWORD,
            "SSL_CAFILE": str(self.folder / "ca.crt"),
            **changed,
        }
        return {f"BULLMQ_STREAMS_KAFKA__{name}": value for name, value in named.items()}


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    openssl = shutil.which("openssl")
    if openssl is None:
        missing("openssl is not on the PATH", "install it (Debian: openssl)")
    folder = tmp_path_factory.mktemp("certificates")
    certificates(openssl, folder, "IP:127.0.0.1")
    store = folder / "broker.pem"
    store.write_text((folder / "server.key").read_text() + (folder / "server.crt").read_text())
    certificate = {
        "listener.name.login.ssl.keystore.type": "PEM",
        "listener.name.login.ssl.keystore.location": str(store),
    }
    kafka = tmp_path_factory.mktemp("secure-kafka")
    with login_kafka.broker(kafka, "SASL_SSL", {"line": PASSWORD}, certificate) as (bootstrap, port):
        yield SecureKafka(bootstrap, port, folder)


@pytest.fixture
def line(secure, redis_server, prefix, tmp_path):
    settings = {**secure.settings(), "BULLMQ_STREAMS_SOURCES__DEFAULT__QUEUES": f'["{prefix}"]'}
    line = Line(secure.open, redis_server, prefix, tmp_path, **settings)
    yield line
    line.stop_all()


async def test_the_whole_line(line, redis_server, prefix):
    said = []
    applied = line.command("topics", "apply")
    assert applied.returncode == 0, applied.stderr
    line.start("bridge")
    line.start("worker")
    queue = Queue(prefix, {"connection": redis_server})
    await queue.add("crawl", {"n": 1}, {"jobId": "one"})
    await queue.close()

    async def there() -> bool:
        rows = await oracle.rows_of(line.bootstrap, prefix)
        return [row and row["state"] for row in rows.values()] == ["waiting"]

    await until(there, 40, "the job's row")
    for command in (
        ["doctor"],
        ["status"],
        ["status", prefix, "one"],
        ["tail", "transitions", "--from", "beginning", "--max", "1"],
    ):
        done = line.command(*command)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        said += [done.stdout, done.stderr]
    line.stop_all()
    assert [process.returncode for process in line.processes] == [0, 0]
    said += [path.read_text() for path in line.logs.glob("*.log")]
    assert PASSWORD not in "".join(said)


@pytest.mark.parametrize(
    ("changed", "left_out", "text"),
    [
        ({}, ["SSL_CAFILE"], "kafka.ssl_cafile"),
        ({"SASL_PASSWORD": "of-somebody-else"}, [], "kafka.sasl_password"),
        ({"SECURITY_PROTOCOL": "PLAINTEXT"}, ["_SSL_", "SASL"], "kafka.security_protocol = PLAINTEXT"),
        ({"SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, ["_SSL_"], "kafka.security_protocol = SASL_PLAINTEXT"),
        ({"BOOTSTRAP_SERVERS": "localhost:{port}"}, [], "kafka.ssl_check_hostname"),
    ],
)
def test_what_is_wrong_is_named(secure, line, changed, left_out, text):
    more = {name: value.format(port=secure.port) for name, value in changed.items()}
    line.env |= secure.settings(**more)
    line.env = {name: value for name, value in line.env.items() if not any(part in name for part in left_out)}
    done = line.command("topics", "check")
    assert done.returncode == 1
    assert text in done.stderr
    assert "of-somebody-else" not in done.stderr
