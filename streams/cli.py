"""The command line. Every command imports its work when it runs, so that `--help` is quick."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from streams import __version__
from streams.errors import UserError
from streams.escape import printable

if TYPE_CHECKING:
    from streams.settings import Settings


class Group(TyperGroup):
    """Turns the errors of any command into lines on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            for line in str(error).split("\n"):
                typer.secho(f"error: {printable(line)}", err=True, fg=typer.colors.RED)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # The reader has had enough (`| head`); without this Python complains once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="BullMQ job events on Kafka: every event, the status of every job, transitions, and alerts.",
)
topics_app = typer.Typer(no_args_is_help=True, help="Create, correct and compare the Kafka topics.")
config_app = typer.Typer(no_args_is_help=True, help="Check and show the settings.")
app.add_typer(topics_app, name="topics")
app.add_typer(config_app, name="config")

Files = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", metavar="FILE", help="TOML file of settings; several allowed, a later one wins."),
]
SourceName = Annotated[
    str | None, typer.Option("--source", help="The source of the queue; by default the only one, or `default`.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bullmq-streams {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    config: Files = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """BullMQ job events on Kafka: every event, the status of every job, transitions, and alerts."""
    ctx.obj = list(config or [])


def _files(ctx: typer.Context, config: list[Path] | None) -> list[Path]:
    return [*(ctx.obj or []), *(config or [])]


def _settings(ctx: typer.Context, config: list[Path] | None) -> Settings:
    from streams.settings import load

    settings = load(_files(ctx, config), os.environ)
    for warning in settings.warnings:
        typer.secho(f"warning: {printable(warning)}", err=True, fg=typer.colors.YELLOW)
    return settings


def source_of(settings: Settings, given: str | None) -> str:
    """The source meant: the one named, else the only one, else `default`."""
    if given is not None:
        return given
    return next(iter(settings.sources)) if len(settings.sources) == 1 else "default"


def _number(value: float | None) -> float | None:
    if value is not None and math.isnan(value):
        raise typer.BadParameter("must be a number")
    return value


def _run(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Run to the end and exit with the result. Ctrl-C, where the work does not handle it, ends with 130."""
    try:
        code = asyncio.run(work)
    except KeyboardInterrupt:
        code = 130
    raise typer.Exit(code)


@app.command()
def bridge(ctx: typer.Context, config: Files = None) -> None:
    """Read BullMQ's event streams and publish them on Kafka, until stopped."""
    settings = _settings(ctx, config)
    from streams import telemetry
    from streams.commands import run

    telemetry.configure(settings)
    _run(run.bridge(settings))


@app.command()
def worker(ctx: typer.Context, config: Files = None) -> None:
    """Keep the status of every job and write transitions and alerts, until stopped."""
    settings = _settings(ctx, config)
    from streams import telemetry
    from streams.worker import app as worker_app

    telemetry.configure(settings)
    _run(worker_app.main(settings))


@topics_app.command("apply")
def topics_apply(ctx: typer.Context, config: Files = None, json: Json = False) -> None:
    """Create the topics that are missing and correct the settings of the others."""
    settings = _settings(ctx, config)
    from streams.commands import topics

    _run(topics.apply(settings, as_json=json))


@topics_app.command("check")
def topics_check(ctx: typer.Context, config: Files = None, json: Json = False) -> None:
    """Compare the topics with their declaration; exits with 1 where they differ."""
    settings = _settings(ctx, config)
    from streams.commands import topics

    _run(topics.check(settings, as_json=json))


@app.command()
def demo(
    ctx: typer.Context,
    config: Files = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1, callback=_number, help="End by itself, so long after the first job, and judge what was seen."
        ),
    ] = None,
    docker: Annotated[bool, typer.Option("--docker", help="Run on Docker Compose.")] = False,
    bootstrap: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka to use.")] = None,
    redis: Annotated[str | None, typer.Option(metavar="URL", help="Redis to use.")] = None,
) -> None:
    """A sample application on real BullMQ, live in the terminal."""
    settings = _settings(ctx, config)
    from streams.demo import run as demo_run

    _run(demo_run.main(settings, seconds=seconds, docker=docker, bootstrap=bootstrap, redis=redis))


@app.command()
def doctor(ctx: typer.Context, config: Files = None, json: Json = False) -> None:
    """Examine Redis, Kafka and the clocks; every finding comes with its remedy."""
    settings = _settings(ctx, config)
    from streams.commands import doctor as command

    _run(command.doctor(settings, as_json=json))


@app.command()
def status(
    ctx: typer.Context,
    queue: Annotated[str | None, typer.Argument(help="Only this queue.")] = None,
    job_id: Annotated[str | None, typer.Argument(help="This job's row and its history.")] = None,
    source: SourceName = None,
    config: Files = None,
    json: Json = False,
) -> None:
    """Jobs by state, lag and losses of all queues, or of one; or one job with its history.

    Reads the topic status to its end: about ten seconds for each million jobs. A single job takes one partition of it.
    """
    settings = _settings(ctx, config)
    from streams.commands import status as command

    name = source_of(settings, source)
    if queue is not None and job_id is not None:
        _run(command.job(settings, name, queue, job_id, as_json=json))
    _run(command.overview(settings, None if queue is None else (name, queue), as_json=json))


@app.command()
def snapshot(
    ctx: typer.Context,
    source: Annotated[str | None, typer.Option("--source", help="Only queues of this source.")] = None,
    queue: Annotated[str, typer.Option("--queue", metavar="PATTERN", help="Only queues that match.")] = "*",
    wait: Annotated[bool, typer.Option(help="Wait until the workers have compared all partitions.")] = True,
    timeout: Annotated[
        float, typer.Option(min=1, max=86_400, callback=_number, help="Give up after so many seconds.")
    ] = 300,
    config: Files = None,
    json: Json = False,
) -> None:
    """Compare queues with the table: every job in Redis is looked at, and every row that has none is closed.

    Bridge and workers do it; this asks them through Kafka. Exits with 1 after --timeout, naming what is missing.
    """
    settings = _settings(ctx, config)
    from streams.commands import snapshot as command

    _run(command.snapshot(settings, source, queue, wait=wait, timeout_s=timeout, as_json=json))


class Topic(StrEnum):
    """Topics that `tail` reads."""

    EVENTS = "events"
    TRANSITIONS = "transitions"
    STATUS = "status"
    ALERTS = "alerts"
    HEALTH = "health"
    DEAD_LETTERS = "dead-letters"


def _start(text: str) -> str:
    if text not in ("beginning", "end") and not text.isdecimal():
        raise typer.BadParameter("must be beginning, end, or milliseconds since the epoch")
    return text


@app.command()
def tail(
    ctx: typer.Context,
    topic: Annotated[Topic, typer.Argument(help="Which topic.")],
    queue: Annotated[str | None, typer.Option(help="Only this queue.")] = None,
    job: Annotated[str | None, typer.Option(help="Only jobs with this id.")] = None,
    source: SourceName = None,
    start: Annotated[
        str, typer.Option("--from", metavar="beginning|end|MS", callback=_start, help="Where to begin.")
    ] = "end",
    most: Annotated[int | None, typer.Option("--max", min=1, help="End after so many records.")] = None,
    config: Files = None,
    json: Json = False,
) -> None:
    """Print the records of a topic as they come, until Ctrl-C or --max.

    On a terminal one readable line each; elsewhere, and with --json, one JSON object a line.

    With --from beginning it prints what is there and goes on waiting.
    """
    settings = _settings(ctx, config)
    from streams.commands import tail as command

    wanted = command.Filter(topic.value, source_of(settings, source), queue, job)
    _run(command.tail(settings, wanted, int(start) if start.isdecimal() else start, most, as_json=json))


@config_app.command("check")
def config_check(ctx: typer.Context, config: Files = None, json: Json = False) -> None:
    """Name everything that is wrong with the settings; exits with 2 where something is."""
    from streams.commands import config as command

    raise typer.Exit(command.check(_files(ctx, config), as_json=json))


@config_app.command("show")
def config_show(ctx: typer.Context, config: Files = None, json: Json = False) -> None:
    """Print the settings in force and where each comes from; secrets are masked."""
    settings = _settings(ctx, config)
    from streams.commands import config as command

    raise typer.Exit(command.show(settings, as_json=json))


def main() -> None:
    """Entry point of `bullmq-streams`."""
    app()


if __name__ == "__main__":
    main()
