"""What the benchmarks of the batched path share: load another build, drain a topic, tell CPU and memory."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.engine.fakes import until


def load_build(file: Path) -> Any:
    """The module in a file, with `build_app(app_id, broker, fold, …)`. Raises SystemExit where it is none."""
    spec = importlib.util.spec_from_file_location("other_build", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def drain(app: Any, done: Callable[[], int], count: int) -> dict[str, float]:
    """From the first batch on until all is committed; CPU is that of the process, threads included."""
    starting = asyncio.ensure_future(app.start())
    await until(done, 60)
    gc.freeze()
    began, cpu, first = time.perf_counter(), time.process_time(), done()
    await until(lambda: done() >= count, 300)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    folded = count - first
    await starting
    return {"events_per_s": folded / seconds, "cpu_s_per_million": cpu / folded * 1e6, "rss_mb": peak_mb()}


def peak_mb() -> float:
    """Greatest resident memory of this very program: getrusage remembers what the process was before its exec."""
    return _memory_mb("self", "VmHWM")


def resident_mb(pid: int) -> float:
    """Resident memory of a process, now."""
    return _memory_mb(str(pid), "VmRSS")


def _memory_mb(process: str, field: str) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024
