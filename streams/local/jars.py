"""Kafka's jars: fetched once from Maven Central into the user's cache, and checked against one hash at each start."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import ssl
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from streams.local.errors import INSTALL, LocalStackError

KAFKA_VERSION: Final = "4.3.1"
COORDINATES: Final = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.slf4j:slf4j-simple:1.7.36")
# SHA-256 over the lines "<sha256 of the jar>  <its name>\n", sorted by name: one pin for all of them.
JARS_SHA256: Final = "9b241538730d32e890117f2362eee3ff6ed60f753d73e6a46652b547a64df32f"
_DOWNLOADS: Final = 8
_TIMEOUT_S: Final = 60
# The errors of requests are OSErrors; jgo raises RuntimeError where a repository lacks an artifact.
_FAILURES: Final = (OSError, RuntimeError)

Say = Callable[[str], None]


def class_path(say: Say) -> str:
    """Java's class path for the broker.

    Raises LocalStackError where jars have to be fetched and cannot: no extra `local`, no network, not the pinned ones.
    """
    cache = _cache()
    with _one_at_a_time(cache):
        jars = _listed(cache)
        if digest(jars) != JARS_SHA256:
            jars = _fetch(cache, say)
    return os.pathsep.join(map(str, jars))


def digest(jars: Iterable[Path]) -> str:
    """One hash for names and contents of all jars; empty where one cannot be read."""
    try:
        sums = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in jars}
    except OSError:
        return ""
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    return hashlib.sha256(lines.encode()).hexdigest()


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bullmq-streams"


@contextlib.contextmanager
def _one_at_a_time(cache: Path) -> Iterator[None]:
    """Two first starts at once would write the same files."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _list(cache: Path) -> Path:
    return cache / f"kafka-{KAFKA_VERSION}.txt"


def _listed(cache: Path) -> list[Path]:
    """The jars of an earlier fetch: no resolver and no network are needed then."""
    try:
        return [cache / line for line in _list(cache).read_text().splitlines()]
    except FileNotFoundError:
        return []


def _fetch(cache: Path, say: Say) -> list[Path]:
    say(f"fetching Kafka {KAFKA_VERSION} from Maven Central: 42 MB, once, into {cache}")
    # What an interrupted fetch has left would be taken for whole.
    shutil.rmtree(cache / "m2", ignore_errors=True)
    jars = _download(cache / "m2")
    if digest(jars) != JARS_SHA256:
        raise LocalStackError(
            f"Maven Central, or what answers in its place, gave other jars than those of Kafka {KAFKA_VERSION}; "
            "check the proxy or mirror and retry"
        )
    _list(cache).write_text("".join(f"{jar.relative_to(cache)}\n" for jar in jars))
    return jars


def _download(folder: Path) -> list[Path]:
    try:
        return _resolve(folder)
    except _FAILURES as error:
        authorities = ssl.get_default_verify_paths()
        bundle = authorities.cafile or authorities.capath
        if not _untrusted(error) or bundle is None or "REQUESTS_CA_BUNDLE" in os.environ:
            raise _no_download(error) from None
    # A proxy with an authority of its own: the system trusts it, the bundle that requests brings does not.
    try:
        with _environment("REQUESTS_CA_BUNDLE", bundle):
            return _resolve(folder)
    except _FAILURES as error:
        raise _no_download(error) from None


def _resolve(folder: Path) -> list[Path]:
    """By jgo's Maven alone: its environments want a JDK to look into the jars, and would fetch one."""
    try:
        from jgo.maven import MavenContext  # noqa: PLC0415 -- an extra: absent in production
    except ImportError:
        raise LocalStackError(f"a local Kafka needs the extra packages: {INSTALL}") from None
    context = MavenContext(repo_cache=folder, timeout=_TIMEOUT_S)
    wanted = [context.create_dependency(coordinate) for coordinate in COORDINATES]
    inputs, transitive = context.resolver.resolve(wanted)
    needed = [*inputs, *(dependency for dependency in transitive if dependency.scope in {"compile", "runtime"})]
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        return list(pool.map(lambda dependency: Path(dependency.artifact.resolve()), needed))


def _untrusted(error: BaseException) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _no_download(error: Exception) -> LocalStackError:
    why = f"{type(error).__name__}: {str(error)[:200]}"
    remedy = "set REQUESTS_CA_BUNDLE to your CA file" if _untrusted(error) else "check the network and retry"
    return LocalStackError(f"cannot fetch Kafka {KAFKA_VERSION} from Maven Central ({why}); {remedy}")


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
