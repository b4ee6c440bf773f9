"""`demo` as a user runs it: on a pipe, from an empty home, and interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from streams.demo import run
from streams.settings import ConfigError, load

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for leftovers in /proc")
MARK = "BULLMQ_DEMO_TEST"


@dataclass
class Demo:
    """A demo whose processes can all be told by a variable that they inherit."""

    process: subprocess.Popen[str]
    mark: str

    def left(self) -> dict[int, str]:
        """Processes of it that still run: pid → command."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        return found

    def wait_for(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"the demo ended without saying {text!r}")


def start(home: Path, *arguments: str, cache: bool = True) -> Demo:
    mark = uuid.uuid4().hex
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BULLMQ_STREAMS_")}
    environment |= {"HOME": str(home), "TMPDIR": str(home), MARK: mark}
    if cache:  # Kafka's jars need not be fetched again
        environment.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    else:
        environment.pop("XDG_CACHE_HOME", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "demo", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return Demo(process, mark)


@contextlib.contextmanager
def ended(demo: Demo) -> Iterator[Demo]:
    """Whatever the test finds, nothing of the demo outlives it."""
    try:
        with demo.process:
            yield demo
    finally:
        for pid in demo.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.system
def test_a_minute_from_an_empty_home_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    with ended(start(tmp_path, "--seconds", "60", cache=False)) as demo:
        printed, _ = demo.process.communicate(timeout=240)
        left = demo.left()

    assert demo.process.returncode == 0, printed
    assert "all that should be seen was seen" in printed
    assert left == {}
    assert not list(tmp_path.glob("bullmq-streams-demo-*"))


@pytest.mark.system
@pytest.mark.parametrize("moment", ["starting kafka", "bridge is ready", "first job completed"])
def test_ctrl_c_ends_all_that_was_started(tmp_path: Path, moment: str) -> None:
    with ended(start(tmp_path)) as demo:
        demo.wait_for(moment)
        demo.process.send_signal(signal.SIGINT)
        printed, _ = demo.process.communicate(timeout=60)
        left = demo.left()

    assert demo.process.returncode == 0, printed
    assert left == {}
    assert not list(tmp_path.glob("bullmq-streams-demo-*"))


@pytest.mark.system
def test_a_reader_that_goes_away_ends_it_too(tmp_path: Path) -> None:
    with ended(start(tmp_path)) as demo:
        demo.wait_for("first job waiting")
        assert demo.process.stdout is not None
        demo.process.stdout.close()
        assert demo.process.wait(60) != 0
        left = demo.left()

    assert left == {}


@pytest.mark.system
def test_a_child_that_dies_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with ended(start(tmp_path)) as demo:
        demo.wait_for("first job waiting")
        (bridge,) = [pid for pid, command in demo.left().items() if command.endswith("streams.cli bridge ")]
        os.kill(bridge, signal.SIGKILL)
        printed, _ = demo.process.communicate(timeout=60)
        left = demo.left()

    assert demo.process.returncode == 1
    assert "bridge ended by itself with code -9; run: bullmq-streams doctor" in printed
    assert left == {}
    (folder,) = tmp_path.glob("bullmq-streams-demo-*")
    assert (folder / "bridge.log").exists()


@pytest.mark.system
@pytest.mark.slow
def test_too_short_a_demo_says_what_it_may_not_show_and_what_it_has_not(tmp_path: Path) -> None:
    began = time.monotonic()
    with ended(start(tmp_path, "--seconds", "2")) as demo:
        printed, _ = demo.process.communicate(timeout=120)

    assert demo.process.returncode == 1
    assert "2 s are too short to see for sure: " in printed
    assert "not seen: a job paused, a job stuck, " in printed
    assert time.monotonic() - began < 100


async def test_docker_and_servers_of_ones_own_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="--docker"):
        await run.main(load([], {}), seconds=None, docker=True, bootstrap="localhost:9092", redis=None)
