from __future__ import annotations

import logging

import pytest
from aiokafka.errors import KafkaConnectionError

from streams.commands import errors
from streams.commands.errors import CommandError
from streams.settings import load

SETTINGS = load([], {})


@pytest.mark.parametrize(
    ("heard", "message"),
    [
        (
            ["Unable connect to \"a:1\": [Errno 111] Connect call failed ('127.0.0.1', 1)"],
            (
                "Kafka at localhost:9092 does not answer (Connection refused); "
                "is it running, and is kafka.bootstrap_servers right?"
            ),
        ),
        (
            ['Unable connect to "a:1": [Errno -2] Name or service not known'],
            (
                "Kafka at localhost:9092 does not answer (Name or service not known); "
                "is it running, and is kafka.bootstrap_servers right?"
            ),
        ),
        (
            ["Unable connect: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed (_ssl.c:992)"],
            (
                "no TLS connection to Kafka at localhost:9092 (certificate verify failed: self-signed); "
                "check kafka.security_protocol, kafka.ssl_cafile, kafka.ssl_certfile and kafka.ssl_check_hostname"
            ),
        ),
        (
            ['Unable to request metadata from "a:1": KafkaConnectionError: Connection at a:1 closed'],
            (
                "Kafka at localhost:9092 takes the connection, but does not answer; "
                "is this the port for kafka.security_protocol = PLAINTEXT?"
            ),
        ),
        (
            ["[Error 58] SaslAuthenticationFailed: Authentication failed"],
            (
                "Kafka at localhost:9092 refuses the login; "
                "check kafka.sasl_mechanism, kafka.sasl_username and kafka.sasl_password"
            ),
        ),
        (
            [],
            (
                "Kafka at localhost:9092 does not answer (no bootstrap); "
                "is it running, and is kafka.bootstrap_servers right?"
            ),
        ),
    ],
)
def test_the_reason_is_taken_from_what_the_client_logs(heard, message, capsys):
    def fail() -> None:
        for line in heard:
            logging.getLogger("aiokafka").error(line)
        raise KafkaConnectionError("no bootstrap")

    with pytest.raises(CommandError) as caught, errors.kafka(SETTINGS):
        fail()
    assert str(caught.value).replace("KafkaConnectionError: ", "") == message
    assert capsys.readouterr().err == ""


def test_a_timeout_without_words_has_its_name():
    with pytest.raises(CommandError, match=r"does not answer \(TimeoutError\)"), errors.kafka(SETTINGS):
        raise TimeoutError


def test_other_errors_pass():
    with pytest.raises(KeyError), errors.kafka(SETTINGS):
        raise KeyError
    with pytest.raises(CommandError, match="mine"), errors.kafka(SETTINGS):
        raise CommandError("mine")
