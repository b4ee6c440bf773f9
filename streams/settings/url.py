"""Addresses of servers: checked without ever repeating them, and shown without their passwords."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from streams.settings.redis_url import is_host

MASK: Final = "***"
_QUERY_SECRET: Final = re.compile(r"(?i)((?:^|&)[^=&]*(?:pass|secret|token|pwd)[^=&]*=)[^&]*")
_SERVER: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(\d{1,5})")
_LARGEST_PORT: Final = 65535


def check_bootstrap(text: str) -> str:
    """`host:port`, separated by commas; spaces are taken out. Raises ValueError."""
    servers = [server.strip() for server in text.split(",")]
    for server in servers:
        match = _SERVER.fullmatch(server)
        if match is None or not is_host(match[1].strip("[]")) or not 0 < int(match[2]) <= _LARGEST_PORT:
            raise ValueError("must be host:port, several separated by commas")
    return ",".join(servers)


def check_host(text: str) -> str:
    """A name or address to bind to. Raises ValueError."""
    if not is_host(text):
        raise ValueError("must be a host name or an address, such as 127.0.0.1")
    return text


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
