"""`config check` and `config show`: what is wrong with the settings, and what is in force from where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from pydantic import SecretStr

from streams.commands import console
from streams.escape import printable
from streams.settings import ConfigError, Settings, load, schema
from streams.settings.url import MASK, masked


def check(files: Sequence[Path], *, as_json: bool) -> int:
    """Say what is wrong, all at once; returns the exit code. Text goes to standard error only for errors."""
    try:
        settings = load(files, os.environ)
    except ConfigError as error:
        if not as_json:
            raise
        console.print_json({"ok": False, "errors": [asdict(each) for each in error.problems], "warnings": []})
        return 2
    if as_json:
        console.print_json({"ok": True, "errors": [], "warnings": list(settings.warnings)})
        return 0
    for warning in settings.warnings:
        typer.secho(f"warning: {printable(warning)}", err=True, fg=typer.colors.YELLOW)
    console.line(("the configuration is valid", "green"))
    return 0


def show(settings: Settings, *, as_json: bool) -> int:
    """Print every setting with its origin; secrets masked."""
    values = in_force(settings)
    if as_json:
        console.print_json({key: {"value": value, "origin": settings.origin(key)} for key, value in values.items()})
        return 0
    shown = {key: literal(value) for key, value in values.items()}
    widths = max(map(len, shown)), min(max(map(len, shown.values())), 60)
    for key, text in shown.items():
        origin = settings.origin(key)
        style = "dim" if origin == "default" else "green"
        console.line((f"{key:<{widths[0]}}", "bold"), (f" = {text:<{widths[1]}}", ""), (f"  # {origin}", style))
    return 0


def in_force(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key, as plain values, secrets masked."""
    values = {}
    for path in schema.known_keys():
        for source in settings.sources if schema.ANY in path else ("",):
            named = schema.named(path, source)
            values[schema.dotted(named)] = plain(_at(settings, named), is_url=path[-1] == "url")
    return values


def _at(settings: Settings, path: schema.Path) -> Any:
    value: Any = settings
    for name in path:
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def plain(value: Any, *, is_url: bool = False) -> Any:
    """A value as JSON has it. A secret is its mask; a URL keeps what is not secret."""
    if isinstance(value, SecretStr):
        return masked(value.get_secret_value()) if is_url else MASK
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Path):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def literal(value: Any) -> str:
    """A value as TOML spells it; an unset one as `unset`."""
    return "unset" if value is None else schema.toml(value)
