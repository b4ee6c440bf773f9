"""Logs of a process: one line per event on standard error, ours and the libraries' alike, without secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from streams.escape import printable, printable_json
from streams.settings import Settings
from streams.settings.url import MASK

INTERVAL_S: Final = 10.0
LIBRARIES: Final = ("aiokafka", "faust", "mode", "aiohttp", "redis", "asyncio", "kafka")
_LOGIN: Final = re.compile(r"(?<=://)([^:/@\s]*):[^@/\s]+@")


class RateLimit(logging.Filter):
    """Lets the same message of a library through once per interval, with the number left out since."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """False = left out. Of a library: what is said with the same words, whatever the values in it."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        key, now = (record.name, str(record.msg)), self._clock()
        at, left_out = self._seen.get(key, (now - INTERVAL_S, 0))
        if now - at < INTERVAL_S:
            self._seen[key] = (at, left_out + 1)
            return False
        self._seen[key] = (now, 0)
        if left_out:
            record.suppressed = left_out
        return True


def is_news(record: logging.LogRecord) -> bool:
    """False for what mode's services say of every step of their life (`[^-Consumer]: Starting...`)."""
    return record.levelno != logging.INFO or not str(record.msg).startswith("[^")


class Redaction:
    """Takes the secrets of the settings, and any password of a URL, out of rendered text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        spellings = {
            spelling
            for secret in secrets
            for spelling in (secret, printable(secret), json.dumps(secret, ensure_ascii=False)[1:-1])
        }
        ordered = sorted(filter(None, spellings), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """The text without them."""
        if self._secrets is not None:
            text = self._secrets.sub(MASK, text)
        return _LOGIN.sub(rf"\1:{MASK}@", text)


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Route structlog and the standard library's logging to `stream` (standard error), as the settings say."""
    stream = stream or sys.stderr
    as_json = settings.log.format == "json" or (settings.log.format == "auto" and not stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(as_json=as_json, colors=stream.isatty(), redact=Redaction(settings.secrets())))
    handler.addFilter(is_news)
    handler.addFilter(RateLimit())
    level = logging.getLevelNamesMapping()[settings.log.level.upper()]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _suppressed(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Tell how many records the rate limit has left out."""
    record = event.get("_record")
    count = getattr(record, "suppressed", 0)
    if count:
        event["suppressed"] = count
    return event


_SHARED: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.PositionalArgumentsFormatter(),
]


def _in_one_line(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Names and errors come from whoever writes to Redis: none may end the line, or look like another one."""
    return {name: printable(value) if isinstance(value, str) else value for name, value in event.items()}


def _traceback(stream: TextIO, exc_info: ExcInfo) -> None:
    """Lines of their own, each indented: an error's text cannot pass for a line of the log."""
    lines = "".join(traceback.format_exception(*exc_info)).rstrip("\n").split("\n")
    stream.write("\n".join(f"    {printable(line)}" for line in lines))


def _formatter(*, as_json: bool, colors: bool, redact: Callable[[str], str]) -> logging.Formatter:
    render: Any = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    ending: list[Processor] = [structlog.processors.format_exc_info, render]
    if not as_json:
        ending = [_in_one_line, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_traceback)]

    def finish(logger: WrappedLogger, name: str, event: EventDict) -> str:
        value: Any = event
        for processor in ending:
            value = processor(logger, name, value)
        text = redact(value)
        return printable_json(text) if as_json else text

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[_suppressed, structlog.stdlib.ProcessorFormatter.remove_processors_meta, finish],
    )
