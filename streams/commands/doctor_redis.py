"""What `doctor` asks of a Redis: can it be reached and read, is it fit for BullMQ, what is in it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from streams.bridge import bullmq, discovery
from streams.bridge.link import Away, Link
from streams.commands.findings import Finding, Level
from streams.settings import Source
from streams.settings.url import masked

TIMEOUT_S: Final = 5.0
LEAST_VERSION: Final = 7
LEAST_BULLMQ: Final = 4
DEFAULT_ENTRIES: Final = 10_000
SKEW_WARNING_S: Final = 1.0
SKEW_ERROR_S: Final = 60.0
"""Records carry Redis' time; Kafka is told one that is a minute ahead at most."""
_SHOWN: Final = 5

_PROBE: Final = "bullmq-streams-doctor"


async def examine(name: str, source: Source) -> list[Finding]:
    """All findings about one source."""
    check = f"redis {name}"
    url = source.url.get_secret_value()
    try:
        link = Link(url, timeout_s=TIMEOUT_S)
        await link.connect()
    except (*Away, ValueError, TypeError) as error:
        return [_unreachable(check, url, error)]
    try:
        return [finding async for finding in _examine(check, source, link)]
    except Away as error:
        return [_unreachable(check, url, error)]
    finally:
        await link.close()


def _unreachable(check: str, url: str, error: Exception) -> Finding:
    kind, text = type(error).__name__, str(error)
    if kind.startswith("Authentication") or "WRONGPASS" in text or "NOAUTH" in text:
        message, remedy = f"{masked(url)} refuses the login", "check user and password in the URL"
    elif "CERTIFICATE" in text or "SSL" in text:
        message = f"no TLS connection to {masked(url)}: {_first_line(text)}"
        remedy = "check rediss:// and, for an authority of your own, add ?ssl_ca_certs=FILE to the URL"
    else:
        message = f"{masked(url)} does not answer: {_first_line(text) or kind}"
        remedy = f"is it running, and is sources.{check.partition(' ')[2]}.url right?"
    return Finding("error", check, message, remedy)


def _first_line(text: str) -> str:
    return text.partition("\n")[0].rstrip(".")


async def _examine(check: str, source: Source, link: Link) -> AsyncIterator[Finding]:
    refused = await missing_rights(link, source.prefix)
    if refused:
        yield _rights(check, source, refused)
    else:
        yield Finding("ok", check, "reachable, and all that the bridge reads may be read")
    if "info" not in refused:
        for finding in judge_server(check, _info(await link.call(b"INFO"))):
            yield finding
    if "time" not in refused:
        yield await _clock(check, link)
    if not refused & {"scan", "hmget", _KEYS}:
        async for finding in _queues(check, source, link):
            yield finding


# -- rights ---------------------------------------------------------------------------------------------------

_KEYS: Final = "the keys"


# All that the bridge sends, harmless: the key is nobody's. By the names that ACL gives them; KEY is replaced.
COMMANDS: Final[dict[str, tuple[bytes, ...]]] = {
    "xread": (b"XREAD", b"COUNT", b"1", b"STREAMS", b"KEY", b"0"),
    "xrange": (b"XRANGE", b"KEY", b"-", b"+", b"COUNT", b"1"),
    "xinfo|stream": (b"XINFO", b"STREAM", b"KEY"),
    "hgetall": (b"HGETALL", b"KEY"),
    "hstrlen": (b"HSTRLEN", b"KEY", b"data"),
    "hmget": (b"HMGET", b"KEY", b"version"),
    "lpos": (b"LPOS", b"KEY", b"1"),
    "lrange": (b"LRANGE", b"KEY", b"0", b"0"),
    "llen": (b"LLEN", b"KEY"),
    "zscore": (b"ZSCORE", b"KEY", b"1"),
    "zrange": (b"ZRANGE", b"KEY", b"0", b"0"),
    "zcard": (b"ZCARD", b"KEY"),
    "pttl": (b"PTTL", b"KEY"),
    "exists": (b"EXISTS", b"KEY"),
    "scan": (b"SCAN", b"0", b"COUNT", b"1"),
    "time": (b"TIME",),
    "info": (b"INFO", b"server"),
    "ping": (b"PING",),
    "multi": (b"MULTI",),
    "exec": (b"EXEC",),
}


async def missing_rights(link: Link, prefix: str) -> set[str]:
    """Commands that this user may not use, by their ACL names; _KEYS where it may not read the queues' keys."""
    key = bullmq.Keys(prefix, _PROBE).base + b"none"
    commands = [bullmq.command(*(key if part == b"KEY" else part for part in parts)) for parts in COMMANDS.values()]
    replies = await link.send(commands, len(commands))
    refused = set()
    for name, reply in zip(COMMANDS, replies, strict=True):
        if isinstance(reply, Exception) and "permission" in str(reply):
            # `… has no permissions to access one of the keys used …` (Redis) or `… access a key` (Valkey)
            refused.add(_KEYS if "key" in str(reply).lower() and "command" not in str(reply).lower() else name)
    return refused


def _rights(check: str, source: Source, refused: set[str]) -> Finding:
    user = unquote(urlsplit(source.url.get_secret_value()).username or "default")
    commands = sorted(refused - {_KEYS})
    rules = [*([f"%R~{source.prefix}:*"] if _KEYS in refused else []), *(f"+{name}" for name in commands)]
    what = [*([f"read the keys {source.prefix}:*"] if _KEYS in refused else []), *commands]
    message = f"the user {user} may not: {', '.join(what)}"
    return Finding("error", check, message, f"as an administrator: ACL SETUSER {user} {' '.join(rules)}")


# -- the server -----------------------------------------------------------------------------------------------


def _info(reply: Any) -> dict[str, str]:
    text = reply if isinstance(reply, str) else str(reply)
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, separator, value in pairs if separator}


def judge_server(check: str, info: dict[str, str]) -> Iterator[Finding]:
    """Version, mode and eviction policy, out of INFO."""
    valkey = info.get("valkey_version")
    version = valkey or info.get("redis_version", "?")
    name = "Valkey" if valkey else "Redis"
    if valkey or _major(version) >= LEAST_VERSION:
        yield Finding("ok", check, f"{name} {version}")
    else:
        message = f"{name} {version} does not count a stream's entries: lost ones cannot be told"
        yield Finding("error", check, message, f"upgrade to Redis {LEAST_VERSION} or later, or to Valkey")
    if info.get("cluster_enabled") == "1" or info.get("redis_mode") == "cluster":
        yield Finding("error", check, "is a cluster, which is not supported", "name a standalone server")
    policy, limit = info.get("maxmemory_policy", "noeviction"), info.get("maxmemory", "0")
    if policy != "noeviction":
        when = "now" if limit != "0" else "as soon as maxmemory is set"
        message = f"maxmemory-policy is {policy}: {when}, jobs and streams can be evicted without a trace"
        level: Level = "info" if limit == "0" else "warning"
        yield Finding(level, check, message, "CONFIG SET maxmemory-policy noeviction, as BullMQ asks for")


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isdigit() else 0


async def _clock(check: str, link: Link) -> Finding:
    before = time.time()
    seconds, micros = await link.call(b"TIME")
    after = time.time()
    return judge_clock(check, int(seconds) + int(micros) / 1e6 - (before + after) / 2, after - before)


def judge_clock(check: str, skew_s: float, doubt_s: float) -> Finding:
    """What to say of a clock that is so far ahead of this host's, give or take the time that asking took."""
    message = f"its clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this host's"
    remedy = "let NTP set both clocks; times of events are those of Redis"
    if abs(skew_s) > SKEW_ERROR_S:
        return Finding("error", check, message, remedy)
    if abs(skew_s) > SKEW_WARNING_S + doubt_s:
        return Finding("warning", check, message, remedy)
    return Finding("ok", check, f"its clock agrees with this host's within {abs(skew_s) + doubt_s:.3f} s")


# -- what is in it --------------------------------------------------------------------------------------------


async def _queues(check: str, source: Source, link: Link) -> AsyncIterator[Finding]:
    queues = sorted(await discovery.find(link, source.prefix, source.queues, source.exclude))
    if not queues:
        wanted = ", ".join(source.queues)
        message = f"no queue matches {wanted} under the prefix {source.prefix}"
        yield Finding(
            "warning", check, message, "they appear with the first Queue of BullMQ; else check prefix and queues"
        )
        return
    yield Finding("ok", check, f"{len(queues)} queue{'s' * (len(queues) != 1)}: {_list(queues)}")
    limits, versions = await _metas(link, source.prefix, queues)
    for finding in (*_limits(check, limits), *_versions(check, versions)):
        yield finding


async def _metas(link: Link, prefix: str, queues: list[str]) -> tuple[dict[str, int], Counter[str]]:
    """Stream limit by queue, and how often each version of BullMQ wrote a queue."""
    replies = await link.send([bullmq.Keys(prefix, queue).limits for queue in queues], len(queues))
    limits, versions = {}, Counter[str]()
    for queue, reply in zip(queues, replies, strict=True):
        if isinstance(reply, Exception):
            continue
        limit, version = bullmq.number(reply[0]), reply[1]
        if limit is not None:
            limits[queue] = limit
        versions[version or "unknown"] += 1
    return limits, versions


def _limits(check: str, limits: dict[str, int]) -> Iterator[Finding]:
    remedy = "new Queue(name, {streams: {events: {maxLen: 100000}}}) in every program that opens the queue"
    low = sorted(queue for queue, limit in limits.items() if limit < DEFAULT_ENTRIES)
    if low:
        message = f"the event stream keeps less than {DEFAULT_ENTRIES:,} entries in: {_list(low)}"
        yield Finding("warning", check, f"{message}; a burst is trimmed before it can be read", remedy)
    usual = sum(limit == DEFAULT_ENTRIES for limit in limits.values())
    if usual:
        message = f"{usual} queue{'s' * (usual != 1)} with BullMQ's default of {DEFAULT_ENTRIES:,} stream entries"
        yield Finding("info", check, f"{message}, the events of less than a second at full speed", remedy)


def _versions(check: str, versions: Counter[str]) -> Iterator[Finding]:
    seen = ", ".join(f"{version} ({count})" for version, count in sorted(versions.items()))
    yield Finding("info", check, f"last written by: {seen}")
    old = sorted(v for v in versions if (major := _major(v.rpartition(":")[2])) and major < LEAST_BULLMQ)
    if old:
        message = f"{', '.join(old)} is older than BullMQ {LEAST_BULLMQ}, the first that is supported"
        yield Finding("warning", check, message, "upgrade BullMQ")


def _list(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
