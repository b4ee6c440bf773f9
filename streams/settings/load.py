"""Files and environment into settings: every problem found, nothing secret said, the origin of each value kept."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from streams.settings import rules, schema
from streams.settings.errors import ConfigError, Problem, nearest
from streams.settings.model import DEFAULT_SOURCE, DEFAULT_URL, SOURCE_NAME, Settings
from streams.settings.schema import ANY, ENV_PREFIX, Path

ENVIRONMENT: Final = "environment"


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody gave it. `where` is a file or ENVIRONMENT, `key` the key or variable as written there."""

    value: Any
    where: str
    key: str

    @property
    def origin(self) -> str:
        """For people: the file, or the variable's name."""
        return f"{self.where} {self.key}" if self.where == ENVIRONMENT else self.where


@dataclass(slots=True)
class Collected:
    """What the files and the environment say."""

    values: dict[Path, Given] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def load(files: Sequence[FilePath], environ: Mapping[str, str]) -> Settings:
    """Settings of the TOML files (a later one wins) under the environment. Raises ConfigError with all problems."""
    collected = Collected()
    for file in files:
        _read_file(file, collected)
    _read_environment(environ, collected)
    _complete_sources(collected)
    settings = _validate(collected)
    if settings is None or collected.problems:
        raise ConfigError(collected.problems)
    origins = {schema.dotted(path): given.origin for path, given in collected.values.items()}
    settings.loaded_from(origins, [*collected.warnings, *rules.odd(settings)])
    return settings


def _read_file(file: FilePath, collected: Collected) -> None:
    where, text = str(file), ""
    try:
        text = file.read_text("utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        collected.problems.append(Problem(where, "", f"cannot be read: {error.strerror}"))
    except UnicodeDecodeError:
        collected.problems.append(Problem(where, "", "is not UTF-8"))
    except tomllib.TOMLDecodeError as error:
        collected.problems.append(_toml_problem(where, text, error))
    else:
        _walk(table, (), where, collected)


def _toml_problem(where: str, text: str, error: tomllib.TOMLDecodeError) -> Problem:
    """The parser's words name keys and single characters, never a value."""
    message, _, place = str(error).rpartition(" (at ")
    line = place.removeprefix("line ").partition(",")[0]
    number = line if line.isdigit() else str(len(text.splitlines()))
    return Problem(f"{where}:{number}", "", f"is no valid TOML: {message}")


def _walk(table: dict[str, Any], path: Path, where: str, collected: Collected) -> None:
    known = schema.known_keys()
    for name, value in table.items():
        inner = (*path, name)
        generic = schema.generic(inner)
        if generic in known:
            collected.values[inner] = Given(value, where, schema.dotted(inner))
        elif generic not in schema.sections() and inner != ("sources",):
            collected.problems.append(_unknown(inner, where))
        elif not isinstance(value, dict):
            message = f"must be a table: [{schema.dotted(inner)}]"
            collected.problems.append(Problem(where, schema.dotted(inner), message))
        elif len(inner) == 2 and generic[1] == ANY and not SOURCE_NAME.fullmatch(name):  # noqa: PLR2004 - sources.<name>
            collected.problems.append(Problem(where, schema.dotted(inner), _BAD_SOURCE))
        else:
            _walk(value, inner, where, collected)


_BAD_SOURCE: Final = "a source's name has only lower case letters, digits and _"


def _unknown(path: Path, where: str) -> Problem:
    name = nearest(path[-1], _names_in(schema.generic(path)[:-1]))
    hint = f"did you mean {schema.dotted((*path[:-1], name))}?" if name else _elsewhere(path[-1], schema.dotted)
    return Problem(where, schema.dotted(path), "unknown key", hint)


def _names_in(section: Path) -> set[str]:
    """Keys and tables right under a section."""
    below = [path for path in (*schema.known_keys(), *schema.sections()) if len(path) > len(section)]
    return {path[len(section)] for path in below if path[: len(section)] == section}


def _elsewhere(name: str, spell: Any) -> str:
    """A hint at a key of the same name in another section."""
    found = [spell(schema.named(path)) for path in schema.known_keys() if path[-1] == name]
    return f"did you mean {found[0]}?" if found else ""


def _read_environment(environ: Mapping[str, str], collected: Collected) -> None:
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX):
            path = tuple(name.removeprefix(ENV_PREFIX).lower().split("__"))
            _read_variable(name, path, environ[name], collected)


def _read_variable(name: str, path: Path, text: str, collected: Collected) -> None:
    key = schema.known_keys().get(schema.generic(path))
    spelt = schema.variable(path) == name
    if key is not None and spelt:
        if path[0] == "sources" and not SOURCE_NAME.fullmatch(path[1]):
            collected.problems.append(Problem(ENVIRONMENT, name, _BAD_SOURCE))
        else:
            _take_text(name, path, text, collected, as_json=key.is_list)
        return
    hint = _near_variable(path)
    if len(path) > 1 and (path[:1] in schema.sections() or path[0] == "sources"):
        hint = hint or _elsewhere(path[-1], schema.variable)
        collected.problems.append(Problem(ENVIRONMENT, name, "unknown key", hint))
    else:
        collected.warnings.append(str(Problem(ENVIRONMENT, name, "is no setting and is ignored", hint)))


def _near_variable(path: Path) -> str:
    """Compared without the common prefix and without the underscores, which are what people get wrong."""
    source = path[1] if len(path) > 2 else DEFAULT_SOURCE  # noqa: PLR2004 - sources.<name>.<key>
    known = {"_".join(each): schema.variable(each) for each in (schema.named(k, source) for k in schema.known_keys())}
    near = nearest("_".join(path), known, cutoff=0.75)
    return f"did you mean {known[near]}?" if near else ""


def _take_text(name: str, path: Path, text: str, collected: Collected, *, as_json: bool) -> None:
    value: Any = text
    if as_json:
        try:
            value = json.loads(text)
        except ValueError:
            collected.problems.append(Problem(ENVIRONMENT, name, 'must be a list in JSON, such as ["a", "b"]'))
            return
    collected.values[path] = Given(value, ENVIRONMENT, name)


def _complete_sources(collected: Collected) -> None:
    """The source `default` has an address by default; any other must be given one."""
    named: dict[str, Given] = {}
    for path, given in collected.values.items():
        if path[0] == "sources":
            named.setdefault(path[1], given)
    for name, given in named.items():
        if name != DEFAULT_SOURCE and ("sources", name, "url") not in collected.values:
            path = ("sources", name, "url")
            key = schema.variable(path) if given.where == ENVIRONMENT else schema.dotted(path)
            collected.problems.append(Problem(given.where, key, "is missing"))


def _nested(values: Iterable[tuple[Path, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in values:
        table = tree
        for name in path[:-1]:
            table = table.setdefault(name, {})
        table[path[-1]] = value
    return tree


def _validate(collected: Collected) -> Settings | None:
    tree = _nested((path, given.value) for path, given in collected.values.items())
    for source in tree.get("sources", {}).values():
        source.setdefault("url", DEFAULT_URL)
    settings = None
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        collected.problems.extend(_problems(error.errors(include_url=False, include_context=False), collected))
    collected.problems.extend(_across(collected))
    if settings is not None and not collected.problems:
        collected.problems.extend(
            _problem(path, message, hint, collected) for path, message, hint in rules.unusable(settings)
        )
    return settings


def _problems(errors: Iterable[ErrorDetails], collected: Collected) -> Iterator[Problem]:
    """One problem for each key: pydantic names every part of a union and every item of a list."""
    seen: set[Path] = set()
    for error in errors:
        path = tuple(str(part) for part in error["loc"])
        while path and path not in collected.values:
            path = path[:-1]
        if not path:
            yield Problem("settings", ".".join(map(str, error["loc"])), error["msg"])
        if not path or path in seen:
            continue
        seen.add(path)
        given = collected.values[path]
        key = schema.known_keys()[schema.generic(path)]
        near = nearest(str(given.value), key.choices)
        yield Problem(given.where, given.key, rules.message(key, error), f"did you mean {near}?" if near else "")


def _across(collected: Collected) -> Iterator[Problem]:
    values = {path: given.value for path, given in collected.values.items()}
    for path, message, hint in rules.across(values):
        yield _problem(path, message, hint, collected)


def _problem(path: Path, message: str, hint: str, collected: Collected) -> Problem:
    given = collected.values.get(path)
    if given is None:
        return Problem("settings", schema.dotted(path), message, hint)
    return Problem(given.where, given.key, message, hint)
