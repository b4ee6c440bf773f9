"""A Redis URL: all that redis-py would choke on, or silently take otherwise than meant, told without the URL.

redis-py hands every parameter of the query on to the connection, unchecked, and lets it win over what the caller
sets: a misspelt one is a TypeError at connect, `protocol=2` or `socket_timeout=1` breaks the reader. So only the
parameters listed here are taken.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from streams.settings.errors import nearest

_SCHEMES: Final = ("redis", "rediss")
_PORT: Final = 6379
_LARGEST_DB: Final = 2**31 - 1
_LONGEST_CONNECT_S: Final = 10.0
"""The bridge waits no longer for a connection."""
_ENCODE: Final = "is no URL: encode special characters of the password (@ as %40, / as %2F, # as %23, ? as %3F)"
_HOST: Final = re.compile(r"[\w.-]+")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,40}")
"""What may be repeated as a parameter's name; anything else could be a part of a password."""


def check_url(url: SecretStr) -> SecretStr:
    """A Redis URL. Raises ValueError; its text holds nothing of the URL but the names of parameters."""
    text = url.get_secret_value()
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("has a space or a control character: encode it (a space as %20)")
    try:
        text.encode()
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(_ENCODE) from None
    if parts.scheme not in _SCHEMES:
        raise ValueError("must begin with redis:// or rediss://")
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(_ENCODE)
    _check_server(parts)
    found = list(_parameters(parts))
    if found:
        raise ValueError("; ".join(found))
    return url


def _check_server(parts: SplitResult) -> None:
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError("has a port that is not between 1 and 65535" if "range" in str(error) else _ENCODE) from None
    if port == 0:
        raise ValueError("has a port that is not between 1 and 65535")
    if not parts.hostname:
        raise ValueError("names no host")
    if not is_host(unquote(parts.hostname)):
        raise ValueError("names a host that can be none (one host: several are not supported)")
    if parts.fragment or not re.fullmatch(r"/?|/\d+", parts.path, re.ASCII):
        raise ValueError("must end with the number of a database, such as /0, or with the host")
    if len(parts.path) > 1 and not _is_db(parts.path[1:]):
        raise ValueError(f"names a database that is not between 0 and {_LARGEST_DB}")


def is_host(name: str) -> bool:
    """Whether a name or address could be one of a host."""
    try:
        if ":" in name:
            ipaddress.IPv6Address(name)
            return True
        name.encode("idna")
    except ValueError:
        return False
    return _HOST.fullmatch(name) is not None


def server(url: str) -> tuple[str, int, int]:
    """Host, port and database of a URL that is right."""
    parts = urlsplit(url)
    database = parts.path.strip("/") or dict(parse_qsl(parts.query)).get("db", "0")
    return unquote(parts.hostname or "").lower(), parts.port or _PORT, int(database)


# -- parameters -------------------------------------------------------------------------------------------------


def _is_db(text: str) -> bool:
    return bool(re.fullmatch(r"\d{1,10}", text, re.ASCII)) and int(text) <= _LARGEST_DB


def _is_connect_timeout(text: str) -> bool:
    try:
        return 0 < float(text) <= _LONGEST_CONNECT_S
    except ValueError:
        return False


def _is_bool(text: str) -> bool:
    return text.lower() in ("true", "false", "1", "0", "yes", "no")


def _is_client_name(text: str) -> bool:
    return re.fullmatch(r"[!-~]+", text) is not None


def _is_ciphers(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _anything(_: str) -> bool:
    return True


_BOOL: Final = (_is_bool, "true or false")
_FILE: Final = (_anything, "a file")

TAKEN: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "username": (_anything, "text"),
    "password": (_anything, "text"),
    "db": (_is_db, f"a number between 0 and {_LARGEST_DB}"),
    "client_name": (_is_client_name, "letters, digits and signs without spaces"),
    "socket_connect_timeout": (_is_connect_timeout, f"seconds, more than 0 and at most {_LONGEST_CONNECT_S:.0f}"),
    "socket_keepalive": _BOOL,
    "ssl_ca_certs": _FILE,
    "ssl_ca_path": (_anything, "a folder"),
    "ssl_ca_data": (_anything, "certificates in PEM"),
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
    "ssl_password": (_anything, "text"),
    "ssl_check_hostname": _BOOL,
    "ssl_cert_reqs": (lambda text: text in ("required", "optional", "none"), "one of required, optional, none"),
    "ssl_min_version": (lambda text: text in ("771", "772"), "771 (TLS 1.2) or 772 (TLS 1.3)"),
    "ssl_ciphers": (_is_ciphers, "ciphers as OpenSSL names them"),
}
"""Parameter → whether a value can be one, and what it must be."""

_SET_BY_US: Final = "is set by the bridge itself"
_NO_EFFECT: Final = "has no effect here"
REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("protocol", "decode_responses", "encoding", "encoding_errors", "legacy_responses", "socket_timeout"),
        _SET_BY_US,
    ),
    **dict.fromkeys(
        ("timeout", "max_connections", "health_check_interval", "retry_on_timeout", "retry_on_error"), _NO_EFFECT
    ),
    **dict.fromkeys(("host", "port"), "belongs before the path, as in redis://host:6379/0"),
    "path": "would be a Unix socket, which is not supported",
    "ssl": "is said by rediss://",
}
"""Parameter that the client knows → why it is not taken."""


def _parameters(parts: SplitResult) -> Iterator[str]:
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), errors="strict")
    except ValueError:
        yield "has parameters that are not name=value, joined by &"
        return
    counts = Counter(name for name, _ in pairs)
    for name, value in dict(pairs).items():
        problem = _problem(name, value, parts.scheme)
        if problem or counts[name] > 1:
            yield problem or f"has the parameter {name} twice"
    given = dict(pairs)
    if "db" in given and parts.path.strip("/"):
        yield "gives the database twice: after the host and among the parameters"
    if parts.scheme == "rediss" and not any(_problem(*pair, parts.scheme) for pair in pairs):
        yield from _certificates(given)


def _problem(name: str, value: str, scheme: str) -> str:
    """What is wrong with a parameter; empty where nothing is. The value is never repeated."""
    if name in REFUSED:
        return f"has the parameter {name}, which {REFUSED[name]}: take it out"
    if name not in TAKEN:
        near = nearest(name, TAKEN)
        hint = f"; did you mean {near}?" if near else f"; those known are {', '.join(TAKEN)}"
        return f"has the unknown parameter {name if _NAME.fullmatch(name) else '***'}{hint}"
    if name.startswith("ssl_") and scheme != "rediss":
        return f"has the parameter {name}, which needs rediss://"
    is_right, what = TAKEN[name]
    return "" if value and is_right(value) else f"has the parameter {name}, which must be {what}"


def _certificates(given: Mapping[str, str]) -> Iterator[str]:
    """Load what the connection would load, so that a file that is none is found now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    cafile, capath, cadata = (given.get(f"ssl_ca_{name}") for name in ("certs", "path", "data"))
    if capath and not Path(capath).is_dir():
        yield "has the parameter ssl_ca_path, which must be a folder"
    if cafile or capath or cadata:
        try:
            context.load_verify_locations(cafile, capath, cadata)
        except (OSError, ValueError) as error:
            yield f"has certificates of authorities that cannot be loaded: {reason(error)}"
    if given.get("ssl_keyfile") and not given.get("ssl_certfile"):
        yield "has the parameter ssl_keyfile, which needs ssl_certfile"
    elif given.get("ssl_certfile"):
        try:
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(given["ssl_certfile"], given.get("ssl_keyfile"), given.get("ssl_password", ""))
        except (OSError, ValueError) as error:
            yield f"has a client certificate that cannot be loaded: {reason(error)}"


def reason(error: Exception) -> str:
    """Why a certificate cannot be loaded, in few words and without any value."""
    if isinstance(error, ssl.SSLError):
        words = (error.reason or str(error)).lower().replace("_", " ")
        return next((said for known, said in _SSL_REASONS.items() if known in words), "it is no PEM file")
    return (error.strerror if isinstance(error, OSError) else "") or "it cannot be used"


_NO_KEY: Final = "no certificate or no private key in it, or the password of the key is wrong"
_SSL_REASONS: Final = {
    "no certificate or crl found": "no certificate in it",
    "pem lib": _NO_KEY,
    "no start line": _NO_KEY,
    "key values mismatch": "the private key belongs to another certificate",
}
