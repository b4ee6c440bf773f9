"""Settings as environment variables, for the processes that the demo starts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr

from streams.settings import Settings, schema
from streams.settings.schema import ANY, Path


def variables(settings: Settings) -> dict[str, str]:
    """Every setting that has a value, so that `load([], …)` of them gives the same settings."""
    found = {}
    for path in _paths(settings):
        value = _value(settings, path)
        if value is not None:
            found[schema.variable(path)] = _text(value)
    return found


def environment(settings: Settings) -> dict[str, str]:
    """The environment of this process with these settings in the place of its own."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith(schema.ENV_PREFIX)}
    return {**rest, "PYTHONUNBUFFERED": "1", **variables(settings)}


def _paths(settings: Settings) -> Iterator[Path]:
    for path in schema.known_keys():
        if ANY in path:
            yield from (schema.named(path, source) for source in settings.sources)
        else:
            yield path


def _value(settings: Settings, path: Path) -> Any:
    value: Any = settings
    for name in path:
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return json.dumps(value)
    return str(value)
