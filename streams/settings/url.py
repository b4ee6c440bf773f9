"""Addresses of servers: checked without ever repeating them, and shown without their passwords."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import SecretStr

MASK: Final = "***"
_SCHEMES: Final = ("redis", "rediss")
_QUERY_SECRET: Final = re.compile(r"(?i)((?:^|&)[^=&]*(?:pass|secret|token|pwd)[^=&]*=)[^&]*")
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_LARGEST_PORT: Final = 65535


def check_url(url: SecretStr) -> SecretStr:
    """A Redis URL. Raises ValueError; its text holds nothing of the URL."""
    try:
        parts = urlsplit(url.get_secret_value())
        _ = parts.port
    except ValueError:
        raise ValueError(
            "is no URL: encode special characters of the password (@ as %40, / as %2F, # as %23)"
        ) from None
    if parts.scheme not in _SCHEMES:
        raise ValueError("must begin with redis:// or rediss://")
    if not parts.hostname:
        raise ValueError("names no host")
    if parts.fragment or not re.fullmatch(r"/?|/\d+", parts.path):
        raise ValueError("must end with the number of a database, such as /0, or with the host")
    return url


def check_bootstrap(text: str) -> str:
    """`host:port`, separated by commas; spaces are taken out. Raises ValueError."""
    servers = [server.strip() for server in text.split(",")]
    for server in servers:
        match = _SERVER.fullmatch(server)
        if match is None or not 0 < int(match[2]) <= _LARGEST_PORT:
            raise ValueError("must be host:port, several separated by commas")
    return ",".join(servers)


def masked(url: str) -> str:
    """The URL with its password as `***`, in the address or in the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    return parts._replace(netloc=_masked_netloc(parts), query=_QUERY_SECRET.sub(rf"\1{MASK}", parts.query)).geturl()


def _masked_netloc(parts: SplitResult) -> str:
    login, at, host = parts.netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{user}{colon}{MASK if colon else ''}{at}{host}"


def password_of(url: str) -> list[str]:
    """The secret parts of a URL as they may turn up in a text: as written and decoded."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    found = [login.partition(":")[2], *(match[0].rpartition("=")[2] for match in _QUERY_SECRET.finditer(parts.query))]
    return [spelling for secret in found if secret for spelling in {secret, unquote(secret)}]
