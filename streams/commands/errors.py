"""Failures of a command in one line that ends with what to do."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from streams.admin import TopicError
from streams.errors import UserError
from streams.settings import Settings

RIGHTS: Final = "docs/operations.md names the rights that each command needs"
_LIBRARIES: Final = ("aiokafka", "kafka")


class CommandError(UserError):
    """The command cannot go on. `remedy` says what the user can do."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message}; {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


@contextmanager
def kafka(settings: Settings) -> Iterator[None]:
    """Inside, what goes wrong with Kafka becomes a CommandError; the client's own log lines are kept back."""
    with _overheard() as heard:
        try:
            yield
        except TopicError as error:
            raise CommandError(
                str(error), "check the rights of the Kafka user, then run: bullmq-streams doctor"
            ) from None
        except (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
            raise CommandError(f"refused by Kafka: {_reason(error)}", RIGHTS) from None
        except (KafkaError, OSError, TimeoutError) as error:
            raise unreachable(settings, error, heard) from None


def unreachable(settings: Settings, error: Exception, heard: list[str]) -> CommandError:
    """What there is to say when the cluster does not answer: the reason is often only in the client's log."""
    servers = settings.kafka.bootstrap_servers
    said = f"{error} {' '.join(heard)}"
    if "uthentication" in said or "SASL" in said:
        remedy = "check kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password"
        return CommandError(f"Kafka at {servers} refuses the login", remedy)
    if "CERTIFICATE" in said or "SSL" in said:
        remedy = "check kafka.security_protocol, kafka.ssl_cafile, kafka.ssl_certfile and kafka.ssl_check_hostname"
        found = re.search(r"certificate verify failed[^(]*", said)
        why = found[0].rstrip(" .") if found else _reason(error)
        return CommandError(f"no TLS connection to Kafka at {servers} ({why})", remedy)
    refused = _connection(heard)
    if not refused and heard:
        remedy = f"is this the port for kafka.security_protocol = {settings.kafka.security_protocol}?"
        return CommandError(f"Kafka at {servers} takes the connection, but does not answer", remedy)
    remedy = "is it running, and is kafka.bootstrap_servers right?"
    return CommandError(f"Kafka at {servers} does not answer ({refused or _reason(error)})", remedy)


def _connection(heard: list[str]) -> str:
    """`Connection refused` out of `Unable connect to "host:port": [Errno 111] Connect call failed (…)`."""
    for message in heard:
        match = re.search(r"\[Errno (-?\d+)\] ([^(\[]*)", message)
        if match:
            number = int(match[1])
            return os.strerror(number) if number > 0 else match[2].strip()
    return ""


def _reason(error: Exception) -> str:
    text = str(error).removeprefix(f"{type(error).__name__}: ")
    return text or type(error).__name__


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@contextmanager
def _overheard() -> Iterator[list[str]]:
    listener = _Listener()
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(listener)
        logger.propagate = False
    try:
        yield listener.heard
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.removeHandler(listener)
            logger.propagate = propagate
