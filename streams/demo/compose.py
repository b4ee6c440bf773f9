"""`demo --docker`: everything on Docker Compose, in a project of the demo's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import streams
from streams import admin, topology
from streams.commands import errors
from streams.commands.errors import CommandError
from streams.demo.children import Children
from streams.settings import Settings, load

Say = Callable[[str], None]

FILE: Final = "docker-compose.yml"
PROJECT: Final = "bullmq-streams-demo"
WITHOUT: Final = "or leave out --docker: the demo then runs on servers from PyPI"
TOPICS_S: Final = 120.0
DOWN_S: Final = 60.0
"""Docker gives each container 10 s to stop."""


async def up(children: Children, ends: AsyncExitStack, say: Say, say_end: Say) -> Settings:
    """Servers, bridge, worker and sample application in containers; `ends` removes them. Raises CommandError.

    Returns the settings that reach its Kafka from here.
    """
    file = _file()
    await _require_docker(children)
    compose = ("docker", "compose", "--project-name", PROJECT, "--file", str(file))

    async def down() -> None:
        say_end("docker compose down")
        child = children.start("compose-down", (*compose, "down", "--volumes", "--remove-orphans"), _plain())
        await child.wait(DOWN_S)

    ends.push_async_callback(down)
    say(f"docker compose up ({file}); the first time it builds and fetches images")
    child = children.start("compose-up", (*compose, "--progress", "plain", "up", "--build", "--detach"), _plain())
    if await children.run(child, lambda _: None):
        raise child.failure("failed", f"look at: docker compose -p {PROJECT} logs; {WITHOUT}")
    settings = load([], {})
    await _topics(settings)
    return settings


def _file() -> Path:
    """In the checkout that this package runs from, else in the working directory."""
    places = (Path(streams.__file__).parents[1] / FILE, Path.cwd() / FILE)
    for place in places:
        if place.is_file():
            return place
    raise CommandError(f"{FILE} is not here", f"run it in a clone of the repository, {WITHOUT}")


async def _require_docker(children: Children) -> None:
    if shutil.which("docker") is None:
        raise CommandError("there is no docker on the PATH", f"install Docker with Compose, {WITHOUT}")
    for arguments, problem, remedy in (
        (("compose", "version"), "docker has no Compose", "install Docker's Compose plugin (v2)"),
        (("info",), "the Docker daemon does not answer", "start Docker, or see whether this user may use it"),
    ):
        child = children.start(f"docker-{arguments[0]}", ("docker", *arguments), _plain())
        if await children.run(child, lambda _: None, signal.SIGTERM):
            raise CommandError(f"{problem}: {child.tail().splitlines()[0]}", f"{remedy}, {WITHOUT}")


async def _topics(settings: Settings) -> None:
    """Wait until a container has set up the topics."""
    try:
        async with asyncio.timeout(TOPICS_S):
            while not await _are_there(settings):  # noqa: ASYNC110 - a topic on a broker sets no event
                await asyncio.sleep(1)
    except TimeoutError:
        raise CommandError(
            f"no topics on {settings.kafka.bootstrap_servers} within {TOPICS_S:.0f} s",
            f"look at: docker compose -p {PROJECT} logs",
        ) from None


async def _are_there(settings: Settings) -> bool:
    try:
        with errors.kafka(settings):
            async with admin.cluster(settings) as cluster:
                there = await cluster.partitions()
    except CommandError:
        return False
    return all(settings.topic(topic.name) in there for topic in topology.TOPICS)


def _plain() -> dict[str, str]:
    """The variables of this project are meant for what runs outside of containers."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BULLMQ_STREAMS_")}
