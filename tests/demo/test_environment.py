from __future__ import annotations

from pathlib import Path

import pytest

from streams.demo.environment import environment, variables
from streams.settings import Settings, load

FILE = """
[kafka]
security_protocol = "SASL_PLAINTEXT"
sasl_mechanism = "PLAIN"
sasl_username = "u"
sasl_password = "hush"
[sources.default]
url = "redis://:p%40ss@host:1/2"
queues = ["demo-*", "b\\u00fc"]
[sources.second]
url = "rediss://other"
[bridge]
snapshot = false
[alerts.stuck]
check_interval_s = 2.5
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "settings.toml"
    file.write_text(FILE, "utf-8")
    return load([file], {})


def test_a_child_has_the_same_settings(settings: Settings) -> None:
    assert load([], variables(settings)).model_dump() == settings.model_dump()
    assert load([], variables(load([], {}))).model_dump() == load([], {}).model_dump()


def test_variables_of_this_process_do_not_reach_a_child_beside_them(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BULLMQ_STREAMS_SOURCES__THIRD__URL", "redis://third")
    monkeypatch.setenv("SOMETHING", "else")
    found = environment(settings)

    assert load([], found).model_dump() == settings.model_dump()
    assert found["SOMETHING"] == "else"
