from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from streams.commands.errors import CommandError
from streams.demo.children import Child, Children

STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


async def first_line(child: Child) -> str:
    async with asyncio.timeout(10):
        while not (found := child.new_lines()):  # noqa: ASYNC110 - a file sets no event
            await asyncio.sleep(0.02)
    return found[0]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def children(tmp_path: Path) -> Children:
    return Children(tmp_path)


async def test_a_child_stops_by_itself_on_sigterm_and_has_a_session_of_its_own(children: Children) -> None:
    child = children.start("sleeper", [sys.executable, "-c", "print('here', flush=True); import time; time.sleep(60)"])
    await first_line(child)
    assert os.getsid(child.process.pid) == child.process.pid

    await child.stop()
    assert child.process.returncode == -signal.SIGTERM


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks into /proc")
async def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(children: Children) -> None:
    child = children.start("stubborn", [sys.executable, "-c", STUBBORN])
    grandchild = int(await first_line(child))
    assert is_alive(grandchild)

    await child.stop(grace_s=0.3)
    assert child.process.returncode == -signal.SIGKILL
    async with asyncio.timeout(5):
        while is_alive(grandchild):  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(0.02)


async def test_one_that_ended_is_reported_with_the_end_of_its_log(children: Children) -> None:
    child = children.start("bad", [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])
    assert await child.wait()

    with pytest.raises(CommandError) as failure:
        children.require_alive(child)
    assert "bad ended by itself with code 3; run: bullmq-streams doctor" in str(failure.value)
    assert str(failure.value).endswith("the reason")
    assert str(child.log) in str(failure.value)


async def test_lines_come_whole_and_once(children: Children) -> None:
    child = children.start("talker", [sys.executable, "-c", "print('one'); print('two'); print('thr', end='')"])
    said: list[str] = []
    assert await children.run(child, said.append) == 0
    assert said == ["one", "two"]


async def test_a_run_that_is_cancelled_interrupts_the_child_and_waits_for_it(children: Children) -> None:
    code = "import time\nprint('up', flush=True)\ntry: time.sleep(60)\nexcept KeyboardInterrupt: raise SystemExit(7)"
    child = children.start("long", [sys.executable, "-c", code])
    up = asyncio.Event()
    run = asyncio.ensure_future(children.run(child, lambda _: up.set()))
    await asyncio.wait_for(up.wait(), 10)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert child.process.returncode == 7


async def test_a_command_that_is_not_there_is_told(children: Children) -> None:
    with pytest.raises(CommandError, match="no-such-program cannot be started"):
        children.start("x", ["no-such-program"])


async def test_kill_ends_what_still_runs(children: Children) -> None:
    child = children.start("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"])
    children.kill()
    assert await child.wait(5)
    children.kill()
    assert child.process.returncode == -signal.SIGKILL
