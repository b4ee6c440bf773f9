"""The generated pages: path in the repository, and what stands in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from streams.commands.config import plain
from streams.docs.lifecycle import lifecycle_page
from streams.docs.topics import asyncapi_page, topics_page
from streams.settings import schema
from streams.settings.schema import Key
from streams.telemetry.names import METRICS, Metric, Role

_NOTE: Final = "<!-- Made by `python -m streams.docs`; change the code instead. -->"

_SETTINGS_HEAD: Final = f"""{_NOTE}

# Settings

One TOML file (`--config FILE`; several allowed, a later one wins) under the environment; nothing is needed for
localhost. [`config/default.toml`](../config/default.toml) has every setting with its default,
[`config/production.example.toml`](../config/production.example.toml) what a production set-up changes.

- A variable is `BULLMQ_STREAMS_` + section + `__` + key, in upper case. Lists are given as JSON: `["a", "b"]`.
- A key that does not exist is an error, in a file or under a section in the environment, and nothing starts.
  Other variables that begin with `BULLMQ_STREAMS_` only warn: Kubernetes makes some for a service of that name.
- As soon as one source is named, only those named are there; `default` alone needs no `url`.
- `bullmq-streams config check` names all errors at once, `bullmq-streams config show` the settings in force and where
  each comes from. Passwords are never printed.
"""

_METRICS_HEAD: Final = f"""{_NOTE}

# Metrics and health

Both processes serve, on `http_host` and their `http_port`:

| path | |
|---|---|
| `/metrics` | Prometheus |
| `/livez` | 200, or 503 with the loops that have not turned for 30 s, in `stale` |
| `/readyz` | 200, or 503 with what is `missing`: `redis`, `replica`, `kafka`, `topics`, `recovery` |

Besides those below, the usual `process_*` and `python_info`. No label ever holds a job's id.
"""


def settings_page() -> str:
    """docs/settings.md."""
    return "\n".join([_SETTINGS_HEAD, *_sections(_markdown)]) + "\n"


def default_toml() -> str:
    """config/default.toml."""
    head = "# Every setting with its default. Made by `python -m streams.docs`; copy what you want to change.\n"
    return "\n".join([head, *_sections(_toml)]) + "\n"


def metrics_page() -> str:
    """docs/metrics.md."""
    roles: tuple[Role, ...] = ("bridge", "worker")
    lines = [_METRICS_HEAD]
    for role in roles:
        lines += [f"## {role.capitalize()}", "", "| metric | type | labels | |", "|---|---|---|---|"]
        lines += [_metric(metric) for metric in METRICS if metric.role == role]
        lines.append("")
    buckets = {metric.name: metric.buckets for metric in METRICS if metric.buckets}
    lines += ["## Buckets", "", "Upper bounds in seconds.", "", "| histogram | |", "|---|---|"]
    lines += [f"| `{name}` | {' · '.join(f'{bound:g}' for bound in bounds)} |" for name, bounds in buckets.items()]
    return "\n".join(lines) + "\n"


def _metric(metric: Metric) -> str:
    labels = " ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.full_name}` | {metric.kind} | {labels} | {metric.help} |"


def _sections(write: Callable[[schema.Path, str, list[Key]], list[str]]) -> Iterator[str]:
    """What `write` makes of each table that has keys of its own."""
    for path, model in schema.sections().items():
        own = [key for key in schema.known_keys().values() if key.path[:-1] == path]
        if own:
            yield from [*write(path, "" if not path else (model.__doc__ or "").partition("\n")[0], own), ""]


def _markdown(path: schema.Path, about: str, keys: list[Key]) -> list[str]:
    heading = [f"## `{schema.dotted(path)}`", "", about, ""] if path else ["## Top level", ""]
    return [*heading, "| key | default | |", "|---|---|---|", *map(_row, keys)]


def _row(key: Key) -> str:
    default = _default(key)
    shown = "" if default is None else f"`{schema.toml(default)}`"
    return f"| `{schema.dotted(key.path)}` | {shown} | {_about(key)}<br>`{schema.variable(key.path)}` |"


def _toml(path: schema.Path, about: str, keys: list[Key]) -> list[str]:
    heading = [f"# {about}", f"[{schema.dotted(schema.named(path))}]"] if path else []
    lines = []
    for key in keys:
        default = _default(key)
        example = key.choices[0] if key.choices else ""
        setting = f"{key.path[-1]} = {schema.toml(example if default is None else default)}"
        lines += [f"# {_about(key)}", f"#{setting}" if default is None else setting]
    return [*heading, *lines]


def _about(key: Key) -> str:
    text = (key.field.description or "").replace("\n", " ")
    return f"{text} One of {', '.join(f'`{choice}`' for choice in key.choices)}." if key.choices else text


def _default(key: Key) -> Any:
    return plain(key.default)


PAGES: Final[dict[str, Callable[[], str]]] = {
    "docs/settings.md": settings_page,
    "docs/metrics.md": metrics_page,
    "docs/lifecycle.md": lifecycle_page,
    "docs/topics.md": topics_page,
    "docs/asyncapi.json": asyncapi_page,
    "config/default.toml": default_toml,
}
