"""A worker process of a real BullMQ application, to be killed.

    python -m tests.system.application URL QUEUE '{"lockDuration": 2000, …}' SECONDS_PER_JOB

Prints `begun <id>` for each job that it begins.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from bullmq import Worker


async def main(url: str, queue: str, options: str, seconds: str) -> None:
    async def process(job: Any, _token: str) -> str:
        sys.stdout.write(f"begun {job.id}\n")
        sys.stdout.flush()
        await asyncio.sleep(float(seconds))
        return "done"

    worker = Worker(queue, process, {"connection": url, "autorun": False, **json.loads(options)})
    await worker.backend.blocking_connection.getRedisVersion()  # or it waits whole seconds for delayed jobs
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
