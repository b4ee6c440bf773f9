from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from streams.commands.errors import CommandError
from streams.demo import compose
from streams.demo.children import Children

Docker = Callable[[str], None]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    """Puts a program `docker` on an otherwise empty PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(compose, "_file", lambda: tmp_path / "docker-compose.yml")

    def make(script: str) -> None:
        program = folder / "docker"
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        program.chmod(0o755)

    return make


async def up(tmp_path: Path) -> str:
    logs = tmp_path / "logs"
    logs.mkdir()
    with pytest.raises(CommandError) as failure:
        async with AsyncExitStack() as ends:
            await compose.up(Children(logs), ends, lambda _: None, lambda _: None)
    return str(failure.value)


@pytest.mark.usefixtures("docker")
async def test_without_docker_there_is_a_remedy(tmp_path: Path) -> None:
    said = await up(tmp_path)
    assert "no docker on the PATH; install Docker with Compose, or leave out --docker" in said


async def test_without_compose_there_is_a_remedy(docker: Docker, tmp_path: Path) -> None:
    docker("echo 'unknown command: docker compose' >&2; exit 1")
    assert "docker has no Compose: unknown command: docker compose; install" in await up(tmp_path)


async def test_without_a_daemon_there_is_a_remedy(docker: Docker, tmp_path: Path) -> None:
    docker('[ "$1" = info ] && { echo "Cannot connect" >&2; exit 1; }; exit 0')
    assert "the Docker daemon does not answer: Cannot connect; start Docker" in await up(tmp_path)


async def test_when_up_fails_its_words_are_shown_and_what_it_started_is_removed(docker: Docker, tmp_path: Path) -> None:
    docker('case "$*" in *" up "*) echo "port is already allocated"; exit 1;; esac; exit 0')
    said = await up(tmp_path)
    assert "port is already allocated" in said
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    assert last.startswith("compose --project-name bullmq-streams-demo ")
    assert last.endswith("down --volumes --remove-orphans")
