from __future__ import annotations

import ast
from pathlib import Path

import pytest

import streams.engine
from streams.engine import private

SOURCES = sorted(Path(streams.engine.__file__).parent.glob("*.py"))
LISTED = {name for entry in private.PRIVATE for name in entry.names}


def test_installed_libraries_are_the_ones_the_private_names_were_read_in() -> None:
    assert private.problems() == [], "read the new version's source, then change streams/engine/private.py"


def test_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(private.VERSIONS, "aiokafka", "0.0.1")
    (problem,) = private.problems()
    assert "aiokafka" in problem
    assert "0.0.1" in problem


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(private.VERSIONS, "no-such-library", "1")
    assert private.problems() == ["no-such-library: private names were read in 1, installed is nothing"]


@pytest.mark.parametrize(
    ("owner", "problem"),
    [
        ("faust.topics:Topic", "faust.topics:Topic._nonesuch is gone (x)"),
        ("faust.topics", "faust.topics._nonesuch is gone (x)"),
        ("faust.nowhere:Topic", "faust.nowhere:Topic is gone (x)"),
        ("faust.topics:Nothing", "faust.topics:Nothing is gone (x)"),
    ],
)
def test_a_name_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch, owner: str, problem: str) -> None:
    monkeypatch.setattr(private, "PRIVATE", (private.Private(owner, ("_nonesuch",), "x"),))
    assert private.problems() == [problem]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_foreign_private_name_is_used_without_being_listed(source: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in {"self", "os"})
        and not (isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super")
    }
    assert used <= LISTED
