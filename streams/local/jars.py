"""Kafka's jars: fetched once from Maven Central into the user's cache, and checked against one hash at each start."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from streams.local.errors import INSTALL, LocalStackError

KAFKA_VERSION: Final = "4.3.1"
ENDPOINT: Final = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
# SHA-256 over the lines "<sha256 of the jar>  <its name>\n", sorted by name. The resolver checks no hash itself.
JARS_SHA256: Final = "9b241538730d32e890117f2362eee3ff6ed60f753d73e6a46652b547a64df32f"

Say = Callable[[str], None]


def class_path(say: Say) -> str:
    """Java's class path for the broker.

    Raises LocalStackError without the extra `local`, without a network at the first call, and where a jar is not the
    pinned one.
    """
    cache = _cache()
    with _one_at_a_time(cache):
        jars = sorted(_resolve(cache, say), key=lambda jar: jar.name)
    if digest(jars) != JARS_SHA256:
        raise LocalStackError(
            f"the jars in {cache} are not those of Kafka {KAFKA_VERSION}; remove that folder and retry"
        )
    return os.pathsep.join(map(str, jars))


def digest(jars: Sequence[Path]) -> str:
    """One hash for names and contents of all jars."""
    lines = (f"{hashlib.sha256(jar.read_bytes()).hexdigest()}  {jar.name}\n" for jar in jars)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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


def _resolve(cache: Path, say: Say) -> list[Path]:
    if not (cache / "jgo").exists():
        say(f"fetching Kafka {KAFKA_VERSION} from Maven Central: 42 MB, once, into {cache}")
    try:
        return _jgo(cache)
    except OSError as error:  # the errors of requests are OSErrors
        bundle = ssl.get_default_verify_paths()
        authorities = bundle.cafile or bundle.capath
        if not _untrusted(error) or authorities is None or "REQUESTS_CA_BUNDLE" in os.environ:
            raise _no_download(error) from None
    # A proxy with an authority of its own: the system trusts it, the bundle that requests brings does not.
    try:
        with _environment("REQUESTS_CA_BUNDLE", authorities):
            return _jgo(cache)
    except OSError as error:
        raise _no_download(error) from None


def _jgo(cache: Path) -> list[Path]:
    try:
        from jgo.env import EnvironmentBuilder  # noqa: PLC0415 -- an extra: absent in production
        from jgo.maven import MavenContext  # noqa: PLC0415 -- as above
    except ImportError:
        raise LocalStackError(f"a local Kafka needs the extra packages: {INSTALL}") from None
    builder = EnvironmentBuilder(MavenContext(repo_cache=cache / "m2", timeout=60), cache_dir=cache / "jgo")
    # all_jars, not class_path_jars: most jars have a module name and are kept apart for Java's module path
    return list(builder.from_endpoint(ENDPOINT).all_jars)


def _untrusted(error: BaseException) -> bool:
    return "CERTIFICATE_VERIFY_FAILED" in str(error)


def _no_download(error: OSError) -> LocalStackError:
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
