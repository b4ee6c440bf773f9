"""`python -m streams.bridge`: the bridge alone, set by the environment."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from streams import settings
from streams.bridge.run import run


async def main() -> int:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await run(settings.load([], os.environ), stop=stop)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    sys.exit(asyncio.run(main()))
