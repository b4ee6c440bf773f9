"""npm's BullMQ in four versions, installed once per lock file, each behind the name `bullmq`."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.needs import missing

HERE: Final = Path(__file__).parent
PACKAGES: Final = {"v4": "bullmq4", "v5seed": "bullmq5seed", "v5": "bullmq5", "v6": "bullmq6"}


def install(version: str) -> Path:
    """A folder whose `node_modules` holds `bullmq` in the version asked for (a key of PACKAGES), and `ioredis`.

    A script reaches them by the environment NODE_PATH=<folder>/node_modules, or by their full path.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("Node.js and npm are not here", "install them to test against npm's BullMQ")
    with (HERE / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _npm_ci()
        return _view(version)


def _npm_ci() -> None:
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    stamp = HERE / "node_modules" / ".installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        missing(f"npm cannot install BullMQ: {done.stderr.strip()[-500:]}", "check the network")
    stamp.write_text(wanted)


def _view(version: str) -> Path:
    """Links, because npm can keep versions apart only under other names. Node follows them to the real packages."""
    modules = HERE / "node_modules"
    view = modules / ".versions" / version
    (view / "node_modules").mkdir(parents=True, exist_ok=True)
    for name, package in (("bullmq", PACKAGES[version]), ("ioredis", "ioredis")):
        link = view / "node_modules" / name
        if not link.is_symlink():
            link.symlink_to(modules / package)
    return view
