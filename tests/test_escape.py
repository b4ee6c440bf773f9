"""Hostile texts over everything that a terminal or a line-based log reads."""

from __future__ import annotations

import io
import json
import logging
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from streams import telemetry, wire
from streams.commands import console, findings, status_text, tail_text
from streams.commands.findings import Finding
from streams.commands.standing import Queue
from streams.core.job import job_key
from streams.escape import printable, printable_json
from streams.settings import load
from tests.commands.support import run
from tests.test_telemetry import logging_restored, settings_with

__all__ = ["logging_restored"]

HOSTILE = {
    "newline": "x\n2026-11-27 [error] all is lost",
    "carriage return": "real\rfake",
    "colours": "\x1b[31mred\x1b[0m",
    "title": "\x1b]0;pwned\x07",
    "clipboard": "\x1b]52;c;cm0gLXJm\x1b\\",
    "c1 csi": "\x9b2J",
    "clear": "\x1b[2J\x1b[H",
    "backspaces": "ok\b\bno",
    "nul": "a\x00b",
    "delete": "a\x7fb",
    "tab": "a\tb",
    "vertical tab": "a\x0bb\x0cc",
    "line separator": "a\u2028b\u2029c\x85d",
    "right to left": "\u202egnp.exe\u202c",
    "isolates": "\u2066a\u2069\u200f\u061c",
    "zero width": "a\u200bb\u200dc\ufeffd",
    "tags": "a\U000e0041b",
    "no-break space": "a\u00a0b\u3000c",
    "markup": "[bold red]x[/] :boom:",
    "surrogates": "a\ud800b",
}
TEXTS = [text for name, text in HOSTILE.items() if name != "surrogates"]
"""Those that JSON in UTF-8 can hold: more never reaches Kafka."""


def is_clean(text: str) -> bool:
    """Nothing but lines of printable characters."""
    return all(char == "\n" or (char.isprintable() and unicodedata.category(char)[0] != "C") for char in text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_takes_one_harmless_line(text):
    assert is_clean(printable(text))
    assert "\n" not in printable(text)


@pytest.mark.parametrize("text", ["Zażółć gęślą jaźń", "作业队列", "Задача №1", "עבודה", "job 🚀", "naïve — “quoted”"])
def test_letters_of_all_scripts_stay(text):
    assert printable(text) == text
    assert printable_json(text) == text


def test_a_long_text_is_cut():
    assert printable("a\nb" * 9, 4) == "a\\nba…"
    assert printable("short", 9) == "short"


@given(st.text())
def test_any_text_is_clean(text):
    assert is_clean(printable(text))
    assert "\n" not in printable(text)


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(JSON)
def test_json_is_clean_and_says_the_same(value):
    text = printable_json(json.dumps(value, ensure_ascii=False))
    assert is_clean(text)
    assert "\n" not in text
    assert json.loads(text) == value


# -- what the commands print ------------------------------------------------------------------------------------


def record(topic: str, value: Any, key: str, headers: dict[str, str] | None = None) -> Any:
    raw = wire.dumps(value) if value is not None else None
    found = [(name, text.encode()) for name, text in (headers or {}).items()]
    return ConsumerRecord(topic, 0, 0, 1_795_478_836_845, 0, key.encode(), raw, None, 0, 0, found)


def row(text: str) -> dict[str, Any]:
    step = {"from": text, "to": text, "at": 1, "cause": text, "error": text}
    return {
        "source": text,
        "queue": text,
        "id": text,
        "name": text,
        "state": text,
        "data": {text: [text]},
        "failed_reason": text,
        "attempts_made": 1,
        "max_attempts": 3,
        "since": 1,
        "history": [step],
    }


def records(text: str) -> dict[str, Any]:
    """One record of each topic, with the text wherever somebody else's words may stand."""
    key = job_key(text, text, text)
    return {
        "events": record("events", {"event": text, "fields": {text: text}}, key),
        "status": record("status", row(text), key),
        "transitions": record("transitions", {"from": text, "to": text, "cause": text, "error": text}, key),
        "alerts": record("alerts", {"status": text, "rule": text, "annotations": {"summary": text}}, key),
        "health": record("health", {"type": text, "queue": text, "error": text}, key),
        "dead-letters": record("dead-letters", text, key, {"dlq_reason": text, "dlq_error": text}),
    }


TOPICS = tuple(records(""))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("topic", TOPICS)
def test_tail_takes_one_clean_line_a_record(topic, text, capsys):
    tail_text.show(topic, records(text)[topic])
    printed = capsys.readouterr().out
    assert is_clean(printed)
    assert printed.count("\n") == 1


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("value", [5, [], "text", None, {}, {"state": 5, "event": [], "fields": 3}])
def test_tail_takes_one_line_of_what_is_no_record_of_ours(topic, value, capsys):
    tail_text.show(topic, record(topic, value, "k"))
    assert capsys.readouterr().out.count("\n") == 1


def _overview(text: str) -> None:
    status_text.overview({(text, text): Queue(heartbeat_at=1, lag_ms=1, lost=0)}, {text: 1}, 2)


def _job(text: str) -> None:
    status_text.job(row(text))


def _doctor(text: str) -> None:
    findings.report([Finding("error", text, text, text)], as_json=False)


def _doctor_json(text: str) -> None:
    findings.report([Finding("error", text, text, text)], as_json=True)


def _json(text: str) -> None:
    console.print_json({text: [text]})


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("show", [_overview, _job, _doctor, _doctor_json, _json])
def test_what_a_command_prints_is_clean_and_has_as_many_lines_as_ever(show: Callable[[str], None], text, capsys):
    show(text)
    printed = capsys.readouterr().out
    show("harmless")
    assert is_clean(printed)
    assert printed.count("\n") == capsys.readouterr().out.count("\n")


@pytest.mark.parametrize("text", [text for text in TEXTS if "\0" not in text])
@pytest.mark.parametrize(
    "arguments", [("config", "show"), ("config", "check"), ("config", "show", "--json"), ("config", "check", "--json")]
)
def test_settings_are_shown_clean(arguments, text, tmp_path):
    file, toml = tmp_path / "a.toml", '"' + "".join(f"\\U{ord(char):08x}" for char in text) + '"'
    file.write_text(f"[sources.default]\nprefix = {toml}\n[bridge]\n{toml} = 1\n", "utf-8")
    result = run("--config", str(file), *arguments)
    assert result.exit_code == 2
    assert is_clean(result.output)
    file.write_text(f"[sources.default]\nprefix = {toml}\n", "utf-8")
    result = run("--config", str(file), *arguments)
    assert result.exit_code == 0
    assert is_clean(result.output)


@pytest.mark.parametrize("text", [text for text in TEXTS if "\0" not in text])
def test_warnings_and_errors_are_clean(text):
    result = run("config", "check", **{text: "1"})
    assert is_clean(result.output)
    result = run("--config", f"/no/such/{text}", "status")
    assert result.exit_code == 2
    assert is_clean(result.output)
    assert result.stderr.count("\n") == 1


# -- logs -------------------------------------------------------------------------------------------------------


def written(log_format: str, say: Callable[[], None], secret: str = "") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), "utf-8", newline="")
    settings = settings_with(LOG__FORMAT=log_format)
    if secret:
        settings = load(
            [],
            {
                "BULLMQ_STREAMS_LOG__FORMAT": log_format,
                "BULLMQ_STREAMS_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "BULLMQ_STREAMS_KAFKA__SASL_MECHANISM": "PLAIN",
                "BULLMQ_STREAMS_KAFKA__SASL_USERNAME": "u",
                "BULLMQ_STREAMS_KAFKA__SASL_PASSWORD": secret,
            },
        )
    telemetry.configure(settings, stream)
    say()
    stream.flush()
    return stream.buffer.getvalue().decode()


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_record_is_one_clean_line(log_format, text):
    def say() -> None:
        logging.getLogger("streams.x").warning("queue %s: %s", text, [text])
        logging.getLogger("streams.x").warning("told %r", ValueError(text))
        structlog.get_logger().info(text, queue=text, error=ValueError(text), more={"a": text})

    lines = written(log_format, say)
    assert is_clean(lines)
    assert lines.count("\n") == 3
    if log_format == "json":
        said = [json.loads(line) for line in lines.splitlines()]
        assert said[0]["event"] == f"queue {text}: {[text]}"


@pytest.mark.errors_expected
@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_cannot_pass_for_a_line_of_the_log(log_format, text):
    def say() -> None:
        try:
            int(text)
        except ValueError:
            logging.getLogger("streams.x").exception("failed")

    lines = written(log_format, say)
    assert is_clean(lines)
    first, *rest = lines.rstrip("\n").split("\n")
    assert "failed" in first
    assert all(line.startswith("    ") for line in rest)
    assert bool(rest) == (log_format == "text")


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_secret_with_odd_characters_is_masked(log_format):
    secret = "open\tsesame\u202e"
    lines = written(log_format, lambda: logging.getLogger("streams.x").warning("with %s", secret), secret)
    assert "sesame" not in lines
    assert "***" in lines
