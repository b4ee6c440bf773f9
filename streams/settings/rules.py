"""Rules across keys, and validation errors in the words of a user."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final

from pydantic_core import ErrorDetails

from streams.settings.model import Kafka, Settings
from streams.settings.patterns import covers, overlap
from streams.settings.redis_url import reason, server
from streams.settings.schema import Key, Path

_KINDS: Final = {
    "int": "must be a whole number",
    "float": "must be a number",
    "bool": "must be true or false",
    "string": "must be text in quotes",
    "tuple": 'must be a list of texts, such as ["a", "b"]',
    "path": "must be the path of a file",
}
_PROTOCOL: Final = ("kafka", "security_protocol")
_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_NO_EFFECT: Final = "has no effect with kafka.security_protocol {}"
_SWITCH: Final = "set kafka.security_protocol to {}"
_SASL: Final = ("sasl_mechanism", "sasl_username", "sasl_password")
_SSL: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_password")


def message(key: Key, error: ErrorDetails) -> str:
    """What is wrong with a value, without the value."""
    if key.choices:
        return f"must be one of {', '.join(key.choices)}"
    kind = error["type"].partition("_")[0]
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if error["type"].endswith("too_short"):
        return "must not be empty"
    if error["type"] == "string_pattern_mismatch":
        return "may only have letters, digits, '.', '_' and '-'"
    if error["type"].endswith(("_type", "_parsing", "_from_float")) and kind in _KINDS:
        return _KINDS[kind]
    return (
        error["msg"].removeprefix("Input should be ").join(("must be ", ""))
        if "Input" in error["msg"]
        else error["msg"]
    )


def unusable(settings: Settings) -> Iterator[tuple[Path, str, str]]:
    """What only shows once everything is there: the key, what is wrong, what to do."""
    kafka = settings.kafka
    if kafka.security_protocol.endswith("SSL"):
        try:
            kafka.ssl_context()
        except (OSError, ValueError) as error:
            name = "ssl_certfile" if kafka.ssl_cafile is None or _loads(kafka) else "ssl_cafile"
            yield ("kafka", name), f"cannot be loaded: {reason(error)}", ""
    for name, source in settings.sources.items():
        if any(all(covers(each, queue) for queue in source.queues) for each in source.exclude):
            yield ("sources", name, "exclude"), "leaves no queue to read", ""


def _loads(kafka: Kafka) -> bool:
    """Whether the authorities are not what is wrong."""
    try:
        ssl.create_default_context(cafile=kafka.ssl_cafile)
    except (OSError, ValueError):
        return False
    return True


def odd(settings: Settings) -> Iterator[str]:
    """What is allowed, and probably not meant; one line each."""
    for (name, one), (other, two) in combinations(settings.sources.items(), 2):
        if one.prefix == two.prefix and server(one.url.get_secret_value()) == server(two.url.get_secret_value()):
            shared = overlap(one.queues, one.exclude, two.queues, two.exclude)
            if shared:
                yield (
                    f"sources.{name} and sources.{other} read the same queues ({shared}) of one Redis and prefix: "
                    "everything of them is published twice, under two names; tell them apart by queues or exclude"
                )


def across(values: Mapping[Path, Any]) -> Iterator[tuple[Path, str, str]]:
    """Keys that need or exclude each other: the key given, what is wrong, what to do."""
    given = {path[1]: path for path in values if path[0] == "kafka"}
    protocol = str(values.get(_PROTOCOL, "PLAINTEXT"))
    sasl, tls = protocol.startswith("SASL_"), protocol.endswith("SSL")
    if protocol not in _PROTOCOLS:
        return
    for name in _SASL:
        if sasl and name not in given:
            yield _PROTOCOL, f"{protocol} needs kafka.{name}", ""
        if not sasl and name in given:
            yield (
                given[name],
                _NO_EFFECT.format(protocol),
                _SWITCH.format("SASL_SSL" if tls else "SASL_SSL or SASL_PLAINTEXT"),
            )
    for name in _SSL:
        if not tls and name in given:
            yield given[name], _NO_EFFECT.format(protocol), _SWITCH.format("SASL_SSL" if sasl else "SSL or SASL_SSL")
    for name in ("ssl_keyfile", "ssl_password"):
        if name in given and "ssl_certfile" not in given:
            yield given[name], "needs kafka.ssl_certfile", ""
