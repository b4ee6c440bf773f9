from __future__ import annotations

import ssl
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from streams.settings import ConfigError, Settings, load, schema
from streams.settings.url import MASK, masked, password_of

ENV = "BULLMQ_STREAMS_"
ROOT = Path(__file__).parents[1]


def toml(tmp_path: Path, text: str, name: str = "a.toml") -> Path:
    file = tmp_path / name
    file.write_text(text, "utf-8")
    return file


def errors(files: list[Path], environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(files, environ or {})
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return [str(problem).replace(f"{files[0].parent}/" if files else "\0", "") for problem in caught.value.problems]


CONTRACT = {
    "delivery": "exactly_once",
    "http_host": "127.0.0.1",
    "kafka.bootstrap_servers": "localhost:9092",
    "kafka.topic_prefix": "bullmq",
    "kafka.partitions": 8,
    "kafka.replication_factor": 1,
    "kafka.security_protocol": "PLAINTEXT",
    "sources.default.prefix": "bull",
    "sources.default.queues": ("*",),
    "sources.default.exclude": (),
    "sources.default.discover_interval_s": 10,
    "bridge.id": "bridge",
    "bridge.buffer_bytes": 268435456,
    "bridge.enrich": True,
    "bridge.start": "beginning",
    "bridge.snapshot": True,
    "bridge.http_port": 9401,
    "worker.http_port": 9402,
    "worker.app_id": "bullmq-streams",
    "worker.retention_s": 604800,
    "worker.verify_after_s": 600,
    "worker.verify_per_s": 2000,
    "bridge.max_text_bytes": 65_536,
    "alerts.failed.resolve_after_s": 86_400,
    "sources.default.allow_replica": False,
    "alerts.failed.enabled": True,
    "alerts.failed.severity": "error",
    "alerts.stuck.enabled": True,
    "alerts.stuck.severity": "critical",
    "alerts.stuck.check_interval_s": 1,
    "log.level": "info",
    "log.format": "auto",
}


def value_of(settings: Settings, key: str) -> object:
    value: object = settings
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def test_the_defaults_are_those_of_the_contract():
    settings = load([], {})
    assert {key: value_of(settings, key) for key in CONTRACT} == CONTRACT
    assert settings.sources["default"].url.get_secret_value() == "redis://localhost:6379/0"
    assert list(settings.sources) == ["default"]
    assert settings == Settings()


def test_topics_have_the_prefix_and_the_version():
    assert load([], {f"{ENV}KAFKA__TOPIC_PREFIX": "shop.bull"}).topic("dead-letters") == "shop.bull.dead-letters.v1"


def test_a_later_file_wins_and_the_environment_over_both(tmp_path):
    first = toml(tmp_path, "[kafka]\npartitions = 2\ntopic_prefix = 'a'\nreplication_factor = 2\n")
    second = toml(tmp_path, "[kafka]\npartitions = 3\ntopic_prefix = 'b'\n", "b.toml")
    settings = load([first, second], {f"{ENV}KAFKA__PARTITIONS": "4", "PATH": "/bin"})
    assert (settings.kafka.partitions, settings.kafka.topic_prefix, settings.kafka.replication_factor) == (4, "b", 2)
    assert settings.origin("kafka.partitions") == f"environment {ENV}KAFKA__PARTITIONS"
    assert settings.origin("kafka.topic_prefix") == str(second)
    assert settings.origin("kafka.replication_factor") == str(first)
    assert settings.origin("kafka.bootstrap_servers") == "default"


def test_only_the_sources_named_are_there_and_default_needs_no_url(tmp_path):
    file = toml(tmp_path, "[sources.crm]\nurl = 'redis://crm'\n")
    assert list(load([file], {}).sources) == ["crm"]
    file = toml(tmp_path, "[sources.default]\nprefix = 'jobs'\n")
    assert load([file], {}).sources["default"].url == SecretStr("redis://localhost:6379/0")


def test_the_environment_gives_lists_as_json_and_names_sources():
    settings = load([], {f"{ENV}SOURCES__EU_1__URL": "rediss://eu", f"{ENV}SOURCES__EU_1__QUEUES": '["a", "b*"]'})
    assert settings.sources["eu_1"].queues == ("a", "b*")


def test_settings_do_not_change():
    with pytest.raises(ValidationError):
        load([], {}).kafka.partitions = 3  # type: ignore[misc]


WRONG = [
    ("deliverry = 'exactly_once'", "a.toml: deliverry: unknown key; did you mean delivery?"),
    ("[kafka]\nbootstrap = 'a:1'", "a.toml: kafka.bootstrap: unknown key; did you mean kafka.bootstrap_servers?"),
    ("[kafak]\npartitions = 1", "a.toml: kafak: unknown key; did you mean kafka?"),
    ("[bridge]\nretention_s = 1", "a.toml: bridge.retention_s: unknown key; did you mean worker.retention_s?"),
    ("[log]\nxyzzy = 1", "a.toml: log.xyzzy: unknown key"),
    ("kafka = 1", "a.toml: kafka: must be a table: [kafka]"),
    ("sources = 1", "a.toml: sources: must be a table: [sources]"),
    ("[sources]\nurl = 'redis://a'", "a.toml: sources.url: must be a table: [sources.url]"),
    (
        "delivery = 'exactly_onc'",
        "a.toml: delivery: must be one of exactly_once, at_least_once; did you mean exactly_once?",
    ),
    ("[log]\nlevel = 3", "a.toml: log.level: must be one of debug, info, warning, error"),
    ("[kafka]\npartitions = 'many'", "a.toml: kafka.partitions: must be a whole number"),
    ("[kafka]\npartitions = 0", "a.toml: kafka.partitions: must be greater than or equal to 1"),
    ("[kafka]\npartitions = 1.5", "a.toml: kafka.partitions: must be a whole number"),
    (
        "[kafka]\nbootstrap_servers = 'kafka'",
        "a.toml: kafka.bootstrap_servers: must be host:port, several separated by commas",
    ),
    ("[kafka]\ntopic_prefix = 'a/b'", "a.toml: kafka.topic_prefix: may only have letters, digits, '.', '_' and '-'"),
    ("[kafka]\ntopic_prefix = 3", "a.toml: kafka.topic_prefix: must be text in quotes"),
    ("[bridge]\nhttp_port = 70000", "a.toml: bridge.http_port: must be less than or equal to 65535"),
    ("[bridge]\nenrich = 'perhaps'", "a.toml: bridge.enrich: must be true or false"),
    ("[worker]\nretention_s = 0", "a.toml: worker.retention_s: must be greater than 0"),
    ("[worker]\nretention_s = inf", "a.toml: worker.retention_s: must be a finite number"),
    ("[worker]\nretention_s = '7 d'", "a.toml: worker.retention_s: must be a number"),
    ("[sources.default]\nqueues = 'a'", 'a.toml: sources.default.queues: must be a list of texts, such as ["a", "b"]'),
    ("[sources.default]\nurl = 'http://a'", "a.toml: sources.default.url: must begin with redis:// or rediss://"),
    ("[sources.default]\nurl = 'redis://'", "a.toml: sources.default.url: names no host"),
    (
        "[sources.default]\nurl = 'redis://a/x'",
        "a.toml: sources.default.url: must end with the number of a database, such as /0, or with the host",
    ),
    (
        "[sources.default]\nurl = 'redis://:a/b@host'",
        (
            "a.toml: sources.default.url: is no URL: "
            "encode special characters of the password (@ as %40, / as %2F, # as %23, ? as %3F)"
        ),
    ),
    (
        "[sources.Shop]\nurl = 'redis://a'",
        "a.toml: sources.Shop: a source's name has only lower case letters, digits and _",
    ),
    ("[sources.shop]\nprefix = 'a'", "a.toml: sources.shop.url: is missing"),
    (
        "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'PLAIN'\nsasl_username = 'u'",
        "a.toml: kafka.security_protocol: SASL_SSL needs kafka.sasl_password",
    ),
    (
        "[kafka]\nsasl_password = 'x'",
        (
            "a.toml: kafka.sasl_password: has no effect with kafka.security_protocol PLAINTEXT; "
            "set kafka.security_protocol to SASL_SSL or SASL_PLAINTEXT"
        ),
    ),
    (
        "[kafka]\nsecurity_protocol = 'SSL'\nssl_keyfile = '/dev/null'",
        "a.toml: kafka.ssl_keyfile: needs kafka.ssl_certfile",
    ),
    (
        "[kafka]\nsecurity_protocol = 'SSL'\nssl_cafile = '/no/such/file'",
        "a.toml: kafka.ssl_cafile: cannot be read: No such file or directory",
    ),
    ("a = = 1", "a.toml:1: is no valid TOML: Invalid value"),
    ("\n\nurl = 'redis://:secret@host", 'a.toml:3: is no valid TOML: Expected "\'"'),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_file_is_named_with_its_key_and_the_nearest_one(tmp_path, text, message):
    assert errors([toml(tmp_path, text)]) == [message]


WRONG_VARIABLES = [
    ("KAFKA__PARTITION", "2", "unknown key; did you mean BULLMQ_STREAMS_KAFKA__PARTITIONS?"),
    ("ALERTS__STUCK__ENABLD", "0", "unknown key; did you mean BULLMQ_STREAMS_ALERTS__STUCK__ENABLED?"),
    ("SOURCES__SHOP__ULR", "redis://a", "unknown key; did you mean BULLMQ_STREAMS_SOURCES__SHOP__URL?"),
    ("KAFKA__PARTITIONS", "two", "must be a whole number"),
    ("BRIDGE__ENRICH", "", "must be true or false"),
    ("SOURCES__DEFAULT__QUEUES", "a,b", 'must be a list in JSON, such as ["a", "b"]'),
    ("SOURCES__DEFAULT__QUEUES", "[]", "must not be empty"),
    ("SOURCES__A-B__URL", "redis://a", "a source's name has only lower case letters, digits and _"),
    ("KAFKA__partitions", "2", "unknown key; did you mean BULLMQ_STREAMS_KAFKA__PARTITIONS?"),
]


@pytest.mark.parametrize(("name", "text", "message"), WRONG_VARIABLES)
def test_a_wrong_variable_is_named(name, text, message):
    assert errors([], {ENV + name: text})[0] == f"environment: {ENV}{name}: {message}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("PORT_9401_TCP_ADDR", ""),
        ("SERVICE_HOST", ""),
        ("KAFKA_PARTITIONS", "; did you mean BULLMQ_STREAMS_KAFKA__PARTITIONS?"),
        ("DELIVERI", "; did you mean BULLMQ_STREAMS_DELIVERY?"),
    ],
)
def test_other_variables_of_the_prefix_only_warn(name, hint):
    settings = load([], {ENV + name: "tcp://10.0.0.1"})
    assert settings.warnings == (f"environment: {ENV}{name}: is no setting and is ignored{hint}",)


def test_all_errors_are_told_at_once(tmp_path):
    first = toml(tmp_path, "".join(f"[a{number}]\n" for number in range(3)))
    second = toml(tmp_path, "[kafka]\npartitions = 0\n[bridge]\nstart = 'begin'\n[worker]\napp_id = ''\n", "b.toml")
    found = errors([first, second, tmp_path / "none.toml"], {f"{ENV}LOG__LEVEL": "loud"})
    assert len(found) == 8
    assert "none.toml: cannot be read: No such file or directory" in found


def test_a_file_that_is_no_utf8_is_an_error(tmp_path):
    file = tmp_path / "a.toml"
    file.write_bytes(b"a = '\xff'")
    assert errors([file]) == ["a.toml: is not UTF-8"]


SECRET = st.text(string.ascii_letters + string.digits + "@:/?#%\"'\\ é", min_size=6, max_size=20).map(
    lambda s: f"qZ7{s}"
)


@given(SECRET)
def test_a_secret_is_in_no_repr_and_no_error(secret):
    environ = {
        f"{ENV}SOURCES__DEFAULT__URL": f"redis://user:{secret}@host/0",
        f"{ENV}KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        f"{ENV}KAFKA__SASL_MECHANISM": "PLAIN",
        f"{ENV}KAFKA__SASL_USERNAME": "u",
        f"{ENV}KAFKA__SASL_PASSWORD": secret,
    }
    try:
        settings = load([], environ)
    except ConfigError as error:
        assert secret not in str(error)  # noqa: PT017 - some of these URLs are none
    else:
        assert secret not in repr(settings) + str(settings) + settings.model_dump_json()
        assert secret in settings.secrets()
        assert settings.kafka.client()["sasl_plain_password"] == secret
    with pytest.raises(ConfigError) as caught:
        load([], {**environ, f"{ENV}KAFKA__PARTITIONS": secret, f"{ENV}KAFKA__PASSWORD": secret})
    assert secret not in str(caught.value)
    assert secret not in repr(caught.value.problems)


@pytest.mark.parametrize(
    ("url", "shown", "secrets"),
    [
        ("redis://host/0", "redis://host/0", []),
        ("redis://user@host", "redis://user@host", []),
        ("redis://:a%40b@host:1/2", f"redis://:{MASK}@host:1/2", ["a%40b", "a@b"]),
        ("rediss://u:p@[::1]:1", f"rediss://u:{MASK}@[::1]:1", ["p"]),
        ("redis://h?password=p&db=1", f"redis://h?password={MASK}&db=1", ["p"]),
    ],
)
def test_passwords_of_urls(url, shown, secrets):
    assert masked(url) == shown
    assert sorted(password_of(url)) == sorted(secrets)


def test_what_is_no_url_is_masked_whole():
    assert masked("redis://[::1") == MASK


def test_readers_join_no_group_and_see_committed_records_only():
    kafka = load([], {}).kafka
    only = {"group_id": None, "enable_auto_commit": False, "isolation_level": "read_committed"}
    assert kafka.reader() == {**kafka.client(), **only}


def test_kafka_clients_get_what_the_protocol_needs(monkeypatch):
    assert load([], {}).kafka.client() == {"bootstrap_servers": "localhost:9092", "security_protocol": "PLAINTEXT"}
    contexts: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda _, *args: contexts.append(args))
    kafka = load([], {f"{ENV}KAFKA__SECURITY_PROTOCOL": "SSL", f"{ENV}KAFKA__SSL_CERTFILE": "/dev/null"}).kafka
    client = kafka.client()
    assert client["ssl_context"].check_hostname
    assert contexts == [(Path("/dev/null"), None, "")] * 2  # once to see whether it can be loaded
    kafka = load([], {f"{ENV}KAFKA__SECURITY_PROTOCOL": "SSL", f"{ENV}KAFKA__SSL_CHECK_HOSTNAME": "false"}).kafka
    assert not kafka.client()["ssl_context"].check_hostname


def test_default_toml_has_every_key_with_its_default():
    file = ROOT / "config/default.toml"
    assert load([file], {}).model_dump() == load([], {}).model_dump()
    text = file.read_text("utf-8")
    assert all(f"{key.path[-1]} = " in text for key in schema.known_keys().values())


def test_the_example_for_production_loads_with_its_secrets():
    environ = {f"{ENV}KAFKA__SASL_PASSWORD": "x", f"{ENV}SOURCES__SHOP__URL": "rediss://u:p@h"}
    settings = load([ROOT / "config/production.example.toml"], environ)
    assert not settings.warnings
    assert settings.kafka.security_protocol == "SASL_SSL"
