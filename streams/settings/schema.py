"""The settings as a flat list of keys, read out of the models: for loading, showing and the docs."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from streams.settings.model import DEFAULT_SOURCE, DEFAULT_URL, Settings, Source

ENV_PREFIX: Final = "BULLMQ_STREAMS_"
ANY: Final = "<name>"
"""Stands in a key for the name of a source."""

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `path` of a source's setting has ANY in the place of the name."""

    path: Path
    field: FieldInfo

    @property
    def is_list(self) -> bool:
        """Whether the value is a list, which the environment gives as JSON."""
        return typing.get_origin(self.field.annotation) is tuple

    @property
    def is_secret(self) -> bool:
        """Whether the value must never be printed (a URL: but for its password)."""
        annotation = self.field.annotation
        return SecretStr in (annotation, *typing.get_args(annotation))

    @property
    def choices(self) -> tuple[str, ...]:
        """The closed set of values, if it is one."""
        annotation = self.field.annotation
        for each in (annotation, *typing.get_args(annotation)):
            if typing.get_origin(each) is Literal:
                return typing.get_args(each)
        return ()

    @property
    def default(self) -> Any:
        """The default; None where there is none or it is no value."""
        if self.path == ("sources", ANY, "url"):
            return DEFAULT_URL
        return None if self.field.is_required() else self.field.default


def dotted(path: Path) -> str:
    """`kafka.partitions`."""
    return ".".join(path)


def variable(path: Path) -> str:
    """`BULLMQ_STREAMS_KAFKA__PARTITIONS`."""
    return ENV_PREFIX + "__".join(path).upper()


@lru_cache(maxsize=1)
def known_keys() -> dict[Path, Key]:
    """All settings, in the models' order."""
    return {key.path: key for key in _walk(Settings, ())}


@lru_cache(maxsize=1)
def sections() -> dict[Path, type[BaseModel]]:
    """All tables, in order; the sources' one as (`sources`, ANY)."""
    return dict(_tables(Settings, ()))


def generic(path: Path) -> Path:
    """The path with a source's name replaced by ANY."""
    return (path[0], ANY, *path[2:]) if len(path) > 1 and path[0] == "sources" else path


def named(path: Path, source: str = DEFAULT_SOURCE) -> Path:
    """The path with ANY replaced by a source's name."""
    return tuple(source if part == ANY else part for part in path)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a nested table, else None."""
    annotation = field.annotation
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return None


def _walk(model: type[BaseModel], path: Path) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            yield from _walk(inner, (*path, name))
        elif (*path, name) == ("sources",):
            yield from _walk(Source, ("sources", ANY))
        else:
            yield Key((*path, name), field)


def _tables(model: type[BaseModel], path: Path) -> Iterator[tuple[Path, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        inner = section_of(field)
        if inner is not None:
            yield from _tables(inner, (*path, name))
        elif (*path, name) == ("sources",):
            yield ("sources", ANY), Source


def toml(value: Any) -> str:
    """A plain value as TOML spells it: JSON does for text, numbers, booleans and lists."""
    return json.dumps(value, ensure_ascii=False)
