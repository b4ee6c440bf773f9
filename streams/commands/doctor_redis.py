"""What `doctor` asks of a Redis: can it be reached and read, is it fit for BullMQ, what is in it."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.exceptions import ResponseError

from streams.bridge import bullmq
from streams.bridge.link import Away, Link
from streams.commands import doctor_queues
from streams.commands.findings import Finding, Level
from streams.escape import printable
from streams.settings import Source
from streams.settings.url import masked

TIMEOUT_S: Final = 5.0
LEAST_VERSION: Final = 7
SKEW_WARNING_S: Final = 1.0
SKEW_ERROR_S: Final = 60.0
"""Records carry Redis' time; Kafka is told one that is a minute ahead at most."""
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
    findings: list[Finding] = []
    try:
        async for finding in _examine(check, source, link):
            findings.append(finding)  # noqa: PERF401 - those before an error are to be kept
    except ResponseError as error:
        remedy = "see what the server's log says; other commands of it were answered"
        findings.append(
            Finding("error", check, f"{masked(url)} refuses a command: {printable(str(error), 200)}", remedy)
        )
    except Away as error:
        findings.append(_unreachable(check, url, error))
    finally:
        await link.close()
    return findings


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
    rights = await missing_rights(link, source)
    if rights.commands or rights.queues:
        yield _rights(check, source, rights)
    else:
        yield Finding("ok", check, "reachable, and all that the bridge reads may be read")
    if "info" not in rights.commands:
        for finding in judge_server(check, _info(await link.call(b"INFO"))):
            yield finding
    if "role" not in rights.commands:
        yield judge_role(check, await link.call(b"ROLE"), allow_replica=source.allow_replica)
    if "time" not in rights.commands:
        yield await _clock(check, link)
    if not rights.commands & {"scan", "hmget", "xinfo|stream", "exists", "time"}:
        async for finding in doctor_queues.examine(check, source, link):
            yield finding


# -- rights ---------------------------------------------------------------------------------------------------

_READ_KEY: Final = (b"EXISTS", b"KEY")


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
    "role": (b"ROLE",),
    "ping": (b"PING",),
    "multi": (b"MULTI",),
    "exec": (b"EXEC",),
}


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user lacks: commands by their ACL names, and patterns of `queues` whose keys it may not read."""

    commands: frozenset[str]
    queues: tuple[str, ...]


async def missing_rights(link: Link, source: Source) -> Rights:
    """Tries just what this configuration reads: each command once, on one key that each pattern would lead to."""
    bases = [bullmq.Keys(source.prefix, sample(pattern)).base + b"none" for pattern in source.queues]
    commands = [
        bullmq.command(*(bases[0] if part == b"KEY" else part for part in parts)) for parts in COMMANDS.values()
    ]
    keys = [bullmq.command(*(base if part == b"KEY" else part for part in _READ_KEY)) for base in bases]
    replies = await link.send([*commands, *keys], len(commands) + len(keys))
    refused = [is_refusal(reply) for reply in replies]
    lacking = {name for name, why in zip(COMMANDS, refused, strict=False) if why == "command"}
    hidden = [pattern for pattern, why in zip(source.queues, refused[len(commands) :], strict=True) if why == "key"]
    if not hidden and "key" in refused[: len(commands)]:
        hidden = [source.queues[0]]
    return Rights(frozenset(lacking), tuple(hidden))


def is_refusal(reply: Any) -> str:
    """`command` or `key` where an answer says that the user may not; else empty."""
    text = str(reply).lower() if isinstance(reply, Exception) else ""
    if "permission" not in text:
        return ""
    # `… has no permissions to access one of the keys used …` (Redis) or `… access a key` (Valkey)
    return "key" if "key" in text and "command" not in text else "command"


def sample(pattern: str) -> str:
    """A name that the glob pattern matches and that no queue is likely to have."""
    name = re.sub(r"\[(!?)([^]]+)\]", lambda found: "~" if found[1] else found[2][0], pattern)
    return name.replace("*", _PROBE).replace("?", "~")


def _rights(check: str, source: Source, rights: Rights) -> Finding:
    user = unquote(urlsplit(source.url.get_secret_value()).username or "default")
    commands = sorted(rights.commands)
    keys = [_key_pattern(source.prefix, pattern) for pattern in rights.queues]
    what = [*([f"read the keys {', '.join(keys)}"] if keys else []), *commands]
    rules = [*(f"%R~{key}" for key in keys), *(f"+{name}" for name in commands)]
    message = f"the user {user} may not: {', '.join(what)}"
    return Finding("error", check, message, f"as an administrator: ACL SETUSER {user} {' '.join(rules)}")


def _key_pattern(prefix: str, pattern: str) -> str:
    """The keys of all queues that match; a glob of Redis says [^a] for what one of Python says [!a]."""
    return f"{prefix}:*" if pattern == "*" else f"{prefix}:{pattern.replace('[!', '[^')}:*"


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
    if valkey or doctor_queues.major(version) >= LEAST_VERSION:
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


def judge_role(check: str, role: Any, *, allow_replica: bool) -> Finding:
    """Out of ROLE: a replica lags, so a lock that was renewed looks gone there."""
    kind = str(role[0]) if isinstance(role, list) and role else "unknown"
    if kind == "master":
        return Finding("ok", check, "is a master")
    master = ":".join(map(str, role[1:3])) if kind == "slave" else ""
    message = f"is no master (its role is {kind}{f', of {master}' if master else ''}) and lags behind"
    if allow_replica:
        return Finding("info", check, f"{message}; allow_replica is set, so no job is called stuck or gone by it")
    name = check.partition(" ")[2]
    remedy = f"name the master in sources.{name}.url, or set sources.{name}.allow_replica to true"
    return Finding("error", check, message, remedy)


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
