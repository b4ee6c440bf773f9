"""Every command of the README, as written, in a fresh clone with an empty HOME and little on the PATH."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bullmq import Queue

from streams.local import stack
from streams.local.errors import LocalStackError
from tests.commands.support import free_port
from tests.needs import missing
from tests.port import working

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
NOT_ON_PATH = re.compile(r"java|javac|node|nodejs|npm|npx|docker.*|redis-.*|valkey-.*|kafka.*|python.*|pip.*")
PATIENCE_S = 60.0
QUEUE = "crawling-scheduler"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line]


def runs_on(command: str) -> bool:
    """Whether it is one of those that run until they are stopped."""
    words = shlex.split(command)
    return words[:1] == ["bullmq-streams"] and (
        words[1] in ("bridge", "worker") or (words[1] == "tail" and "--max" not in words)
    )


# -- the machine ------------------------------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with what the PATH of a plain machine has, and this Python as `python3`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for directory in ("/usr/local/bin", "/usr/bin", "/bin"):
        for program in Path(directory).glob("*"):
            if not NOT_ON_PATH.fullmatch(program.name) and not (folder / program.name).is_symlink():
                (folder / program.name).symlink_to(program)
    (folder / "python3").symlink_to(Path(sys.executable).resolve())
    return folder


@dataclass
class Terminal:
    """Runs lines one after the other in one folder; what they export holds for the next ones."""

    folder: Path
    environ: dict[str, str]
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, line: str, timeout_s: float = 300) -> str:
        """The line's output; it must exit with 0."""
        state = self.folder.parent / "environ"
        script = f'{line}\ncode=$?\nenv -0 > "{state}"\nexit $code'
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environ, capture_output=True, text=True,
            timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        self.environ = dict(pair.split("=", 1) for pair in state.read_text().split("\0") if pair)
        return done.stdout

    def start(self, name: str, line: str) -> None:
        """Run it beside the others, in a session of its own, its output in a file."""
        with self._log(name).open("wb") as out:
            self.started[name] = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environ,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal its session; returns the exit code."""
        process = self.started.pop(name)
        os.killpg(process.pid, number)
        return process.wait(PATIENCE_S)

    def output(self, name: str) -> str:
        return self._log(name).read_text()

    def _log(self, name: str) -> Path:
        return self.folder.parent / f"{name.replace('/', '_')}.log"


@pytest.fixture
def clone(tmp_path: Path, tools: Path) -> Iterator[Terminal]:
    """A terminal in a fresh clone of what is committed."""
    if (ROOT / ".git").exists() is False:
        missing("this is not a git checkout", "the README begins with a clone")
    folder, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    kept = re.compile(r"LANG|LC_.*|TERM|PIP_.*|\w*CERT\w*|\w*CA_BUNDLE|https?_proxy|no_proxy", re.IGNORECASE)
    environ = {name: value for name, value in os.environ.items() if kept.fullmatch(name)}
    terminal = Terminal(folder, {**environ, "HOME": str(home), "PATH": str(tools)})
    yield terminal
    for process in terminal.started.values():
        process.kill()
        process.wait()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[stack.Servers]:
    """A Kafka and a Redis of the test's own: the README uses the default names everywhere."""
    folder = tmp_path / "servers"
    try:
        yield stack.up(folder)
    except LocalStackError as error:
        missing(str(error), "this test needs real servers")
    finally:
        stack.down(folder)


def until(met: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := met()):
        assert time.monotonic() < deadline, what
        time.sleep(0.3)
    return value


# -- an application on BullMQ -----------------------------------------------------------------------------------------


async def run_jobs(url: str, *errors: str | None) -> None:
    """One job for each, that completes (None) or fails with the text."""
    done = asyncio.Event()
    left = len(errors)

    async def process(job: Any, _token: str) -> str:
        nonlocal left
        left -= 1
        if left == 0:
            done.set()  # the worker's end waits for the job's
        if job.data["error"] is not None:
            raise ValueError(job.data["error"])
        return "done"

    queue = Queue(QUEUE, {"connection": url})
    for error in errors:
        await queue.add("crawl-drive", {"error": error}, {})
    async with working(QUEUE, process, url):
        await asyncio.wait_for(done.wait(), PATIENCE_S)
    await queue.close()


# -- the tests --------------------------------------------------------------------------------------------------------


def with_addresses(line: str, servers: stack.Servers) -> str:
    """The two exports with the addresses of these servers: the only lines that a reader changes as well."""
    line = line.replace("SERVERS=localhost:9092", f"SERVERS={servers.bootstrap}")
    return line.replace("URL=redis://localhost:6379/0", f"URL={servers.redis_url}")


def is_ready(port: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


@pytest.mark.system
def test_every_command_works_as_written(clone, servers):
    ports = {"BRIDGE": str(free_port()), "WORKER": str(free_port())}
    clone.environ |= {f"BULLMQ_STREAMS_{name}__HTTP_PORT": port for name, port in ports.items()}
    asyncio.run(run_jobs(servers.redis_url, None, "first error"))
    lines = [line for line in commands() if not line.startswith("make demo")]
    assert sum(with_addresses(line, servers) != line for line in lines) == 2
    outputs: dict[str, str] = {}
    for line in lines:
        if runs_on(line):
            clone.start(line, line)
        else:
            if line == "bullmq-streams status":
                until(lambda: all(map(is_ready, ports.values())), "bridge and worker are not ready")
                until(functools.partial(counts, clone), "the jobs do not arrive")
            outputs[line] = clone.run(with_addresses(line, servers))
    assert "ok" in outputs["bullmq-streams status"]
    assert len(outputs["bullmq-streams tail transitions --from beginning --max 3"].splitlines()) == 3
    new_failures(clone, servers)
    for line in [line for line in lines if runs_on(line)]:
        assert clone.end(line) == 0, clone.output(line)


def counts(clone: Terminal) -> bool:
    queues = json.loads(clone.run("bullmq-streams status --json"))["queues"]
    return any(queue["jobs"].get("completed") == queue["jobs"].get("failed") == 1 for queue in queues)


def new_failures(clone: Terminal, servers: stack.Servers) -> None:
    """A job that fails now reaches the alerts that are tailed, and the consumer of the README."""
    (code,) = blocks("python")
    (clone.folder / "consumer.py").write_text(code)
    clone.start("consumer", "python consumer.py")
    until(lambda: "first error" in clone.output("consumer"), "the consumer does not print the first failure")
    asyncio.run(run_jobs(servers.redis_url, "second error"))
    until(lambda: f"{QUEUE} 3 second error" in clone.output("consumer"), "the consumer prints nothing new")
    clone.end("consumer")
    until(lambda: "second error" in clone.output("bullmq-streams tail alerts --json"), "no alert was printed")
    (alert,) = map(json.loads, clone.output("bullmq-streams tail alerts --json").splitlines())
    assert (alert["value"]["rule"], alert["value"]["job_id"]) == ("failed", "3")


@pytest.mark.system
@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make demo")])
def test_the_demo_in_a_fresh_clone(clone, line):
    clone.start("demo", line)
    if "--seconds" in line:
        process = clone.started.pop("demo")
        assert process.wait(300) == 0, clone.output("demo")
        return
    deadline = time.monotonic() + 300
    while "first job completed" not in clone.output("demo"):
        assert time.monotonic() < deadline, clone.output("demo")
        time.sleep(0.5)
    assert clone.end("demo", signal.SIGINT) in (0, 2, 130, -signal.SIGINT)  # make ends as it was told to
    assert "summary" in clone.output("demo")


class TestPages:
    PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))

    @pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
    def test_every_link_leads_somewhere(self, page):
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith(("https://", "mailto:")):
                continue
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.exists(), target
            if anchor:
                assert anchor in anchors(file), target

    def test_the_readme_names_every_page(self):
        linked = set(re.findall(r"\]\(([^)\s#]+)", README))
        pages = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")}
        assert pages <= linked


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
