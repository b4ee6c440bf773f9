"""The command line. Every command imports its work when it runs, so that `--help` is quick."""

# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from streams import __version__
from streams.commands.errors import CommandError
from streams.settings.errors import ConfigError

if TYPE_CHECKING:
    from streams.settings import Settings

FAILED: Final = 1
USAGE: Final = 2


class Group(TyperGroup):
    """Turns the errors of any command into lines on standard error and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            _complain(*str(error).splitlines())
            raise typer.Exit(USAGE) from None
        except (CommandError, _failures()) as error:
            _complain(str(error))
            raise typer.Exit(FAILED) from None
        except BrokenPipeError:
            # The reader has had enough (`| head`); without this Python complains once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None


def _failures() -> type[Exception]:
    """ListenError, looked up without importing the HTTP server."""
    module = sys.modules.get("streams.telemetry.http")
    return module.ListenError if module else CommandError


def _complain(*lines: str) -> None:
    for line in lines:
        typer.secho(f"error: {line}", err=True, fg=typer.colors.RED)


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
        typer.secho(f"warning: {warning}", err=True, fg=typer.colors.YELLOW)
    return settings


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


def main() -> None:
    """Entry point of `bullmq-streams`."""
    app()


if __name__ == "__main__":
    main()
