"""Every setting: name, type, default, bounds and what it means. Frozen; the docs and config/default.toml follow it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from streams import topology
from streams.settings import patterns
from streams.settings.patterns import check_pattern
from streams.settings.redis_url import check_url
from streams.settings.url import check_bootstrap, check_host, password_of

DEFAULT_SOURCE: Final = "default"
DEFAULT_URL: Final = "redis://localhost:6379/0"
DEFAULT: Final = "default"
"""The origin of a value that nobody set."""

YEARS_S: Final = 10 * 365.25 * 86_400
"""Longest time that a setting may ask for: ten years."""
Seconds = Annotated[float, Field(gt=0, le=YEARS_S, allow_inf_nan=False)]
Interval = Annotated[float, Field(ge=0.05, le=86_400, allow_inf_nan=False)]
"""Of something that is done again and again: less would be a busy loop, more is as good as never."""
Port = Annotated[int, Field(ge=0, le=65535)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$", max_length=200)]
Patterns = tuple[Annotated[str, Field(min_length=1, max_length=patterns.LONGEST), AfterValidator(check_pattern)], ...]
Word = Annotated[str, Field(min_length=1, max_length=200)]


def _readable(path: Path | None) -> Path | None:
    if path is not None:
        try:
            path.open("rb").close()
        except OSError as error:
            raise ValueError(f"cannot be read: {error.strerror}") from None
    return path


FilePath = Annotated[Path | None, AfterValidator(_readable)]


class Section(BaseModel):
    """One frozen table of settings. Errors never carry the value that was given: it could be a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Python takes `true` for 1; who writes it for a number means something else."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (int, float):
            raise ValueError("must be a number")
        return value


class Kafka(Section):
    """The Kafka cluster, under the names of the Kafka clients."""

    bootstrap_servers: Annotated[str, AfterValidator(check_bootstrap)] = "localhost:9092"
    """`host:port` of some brokers, separated by commas."""
    topic_prefix: Name = "bullmq"
    """Topics are called `<topic_prefix>.<topic>.v1`."""
    partitions: Annotated[int, Field(ge=1, le=10_000)] = 8
    """Partitions of each topic that is keyed by job. Cannot be changed once the topics exist."""
    replication_factor: Annotated[int, Field(ge=1, le=100)] = 1
    """Copies of each partition; 3 in production."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the brokers are spoken to."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """With a SASL protocol: how to log in."""
    sasl_username: Annotated[str, Field(min_length=1)] | None = None
    """With a SASL protocol: the user."""
    sasl_password: Annotated[SecretStr, Field(min_length=1)] | None = None
    """With a SASL protocol: the password. Better in the environment than in a file."""
    ssl_cafile: FilePath = None
    """PEM file of the authorities to trust; without it those of the system."""
    ssl_certfile: FilePath = None
    """PEM file of the client's certificate, where the brokers ask for one."""
    ssl_keyfile: FilePath = None
    """PEM file of the certificate's private key."""
    ssl_password: SecretStr | None = None
    """Password of the private key."""
    ssl_check_hostname: bool = True
    """Whether the broker's certificate must bear its host name."""

    def client(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client. Raises OSError (ssl.SSLError) where a certificate is unusable."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self.ssl_context()
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password and self.sasl_password.get_secret_value()
        return options

    def reader(self) -> dict[str, Any]:
        """Those of a consumer that belongs to no group and sees committed records only. Raises as `client`."""
        return {
            **self.client(),
            "group_id": None,
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
        }

    def ssl_context(self) -> ssl.SSLContext:
        """What the TLS connections are made with. Raises OSError (ssl.SSLError) where a certificate is unusable."""
        context = ssl.create_default_context(cafile=self.ssl_cafile)
        context.check_hostname = self.ssl_check_hostname
        if self.ssl_certfile is not None:
            password = self.ssl_password and self.ssl_password.get_secret_value()
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, password or "")
        return context


class Source(Section):
    """One Redis or Valkey and one BullMQ prefix in it."""

    url: Annotated[SecretStr, AfterValidator(check_url)]
    """`redis://[user[:password]@]host[:port][/db]`, `rediss://` for TLS. `redis://localhost:6379/0` for `default`."""
    prefix: Word = "bull"
    """BullMQ's option `prefix`."""
    queues: Annotated[Patterns, Field(min_length=1)] = ("*",)
    """Queues to read, as glob patterns."""
    exclude: Patterns = ()
    """Queues not to read, as glob patterns; wins over `queues`."""
    discover_interval_s: Interval = 10
    """How often new queues are looked for."""
    allow_replica: bool = False
    """Read from a server that is no master too. It lags, so no job is called stuck or gone by what it says."""


class Bridge(Section):
    """From BullMQ's streams to Kafka."""

    id: Name = "bridge"
    """Names the checkpoints and the transactional id: two bridges with one id fence each other."""
    buffer_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 268_435_456
    """Bound of the entries read and not yet on Kafka; when full, the reader waits."""
    max_text_bytes: Annotated[int, Field(ge=256, le=1 << 20)] = 65_536
    """Longest error or other text that is taken over whole; payloads and results are no texts."""
    enrich: bool = True
    """Whether each entry gets its job's hash; false publishes the entries only."""
    start: Literal["beginning", "end"] = "beginning"
    """Where to begin in a stream that was never read."""
    snapshot: bool = True
    """Whether the jobs already there are published when a queue is first seen."""
    http_port: Port = 9401
    """Port of `/metrics`, `/livez`, `/readyz`; 0 = off."""


class Worker(Section):
    """From events to the status of each job, its transitions and alerts."""

    app_id: Name = "bullmq-streams"
    """Consumer group; workers of one group share the partitions."""
    retention_s: Seconds = 604_800
    """How long a finished job's row is kept."""
    verify_after_s: Seconds = 600
    """An unfinished job that nothing was heard of for so long is looked at in Redis."""
    verify_per_s: Annotated[float, Field(ge=0.01, le=1_000_000, allow_inf_nan=False)] = 2000
    """Most such looks per second, of the whole worker."""
    http_port: Port = 9402
    """Port of `/metrics`, `/livez`, `/readyz`; 0 = off."""


class FailedAlert(Section):
    """A job failed for good."""

    enabled: bool = True
    """Whether the alert is raised."""
    severity: Word = "error"
    """The severity that the alert carries."""
    resolve_after_s: Annotated[float, Field(ge=0, le=YEARS_S, allow_inf_nan=False)] = 86_400
    """An alert that nobody retries or removes ends after so long; 0 = never."""


class StuckAlert(Section):
    """A job is active and its lock is gone: its worker died, hung or let go of it."""

    enabled: bool = True
    """Whether the alert is raised."""
    severity: Word = "critical"
    """The severity that the alert carries."""
    check_interval_s: Interval = 1
    """Least time between the two looks that it takes."""


class Alerts(Section):
    """Alert rules."""

    failed: FailedAlert = FailedAlert()
    """A job failed for good."""
    stuck: StuckAlert = StuckAlert()
    """A job is active without a lock."""


class Log(Section):
    """What the processes write to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""
    format: Literal["auto", "json", "text"] = "auto"
    """`auto` = text on a terminal, else JSON."""


SOURCE_NAME: Final = re.compile(r"[a-z0-9_]+")
SourceName = Annotated[str, Field(pattern=rf"^{SOURCE_NAME.pattern}$")]


class Settings(Section):
    """Everything. Made by `load`; an instance made by hand has the same checks but for those across keys."""

    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    """Whether the outputs of a batch and its offsets are one Kafka transaction."""
    http_host: Annotated[str, AfterValidator(check_host)] = "127.0.0.1"
    """Address that both processes' HTTP servers bind to; `0.0.0.0` in a container."""
    kafka: Kafka = Kafka()
    """The Kafka cluster."""
    sources: Annotated[dict[SourceName, Source], Field(min_length=1)] = {
        DEFAULT_SOURCE: Source(url=SecretStr(DEFAULT_URL))
    }
    """By name: Redis servers with BullMQ queues."""
    bridge: Bridge = Bridge()
    """The bridge."""
    worker: Worker = Worker()
    """The worker."""
    alerts: Alerts = Alerts()
    """Alert rules."""
    log: Log = Log()
    """Logs."""

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    def topic(self, name: str) -> str:
        """Full name of one of topology's topics: `events` → `bullmq.events.v1`."""
        return topology.full_name(self.kafka.topic_prefix, name)

    @property
    def bridge_transactional_id(self) -> str:
        """Under which the bridge writes, and fences an older one: `<kafka.topic_prefix>.<bridge.id>`."""
        return f"{self.kafka.topic_prefix}.{self.bridge.id}"

    def loaded_from(self, origins: Mapping[str, str], warnings: Sequence[str]) -> None:
        """Remember where each value that was given came from, by its key, and what looked odd."""
        self._origins = origins
        self._warnings = tuple(warnings)

    def origin(self, key: str) -> str:
        """Where a value comes from: `default`, a file's path, or a variable's name."""
        return self._origins.get(key, DEFAULT)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looked odd while loading, one line each."""
        return self._warnings

    def secrets(self) -> list[str]:
        """Everything that must never be printed, for whoever writes text that others made."""
        found = [word for source in self.sources.values() for word in password_of(source.url.get_secret_value())]
        kafka = (self.kafka.sasl_password, self.kafka.ssl_password)
        return [*found, *(secret.get_secret_value() for secret in kafka if secret is not None)]
