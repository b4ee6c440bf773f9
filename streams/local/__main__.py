"""`python -m streams.local up|down --dir D`: the local servers by hand."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from streams.local import stack
from streams.local.errors import LocalStackError


def main(arguments: Sequence[str] | None = None) -> int:
    """`up` prints {"bootstrap", "redis"}; what it does goes to stderr. 0 well, 1 it cannot, 2 usage."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.action == "down":
            stack.down(asked.dir, _say)
        else:
            servers = stack.up(
                asked.dir,
                kafka_port=asked.kafka_port,
                redis_port=asked.redis_port,
                jvm_heap_mb=asked.heap_mb,
                say=_say,
            )
            sys.stdout.write(json.dumps({"bootstrap": servers.bootstrap, "redis": servers.redis_url}) + "\n")
    except LocalStackError as error:
        _say(f"error: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m streams.local", description="A local Kafka and Valkey.")
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--dir", type=Path, required=True, help="data, logs and pid files; kept by `down`")
    parser.add_argument("--kafka-port", type=int, default=0, help="default: any free one, kept for the folder")
    parser.add_argument("--redis-port", type=int, default=0, help="default: any free one, kept for the folder")
    parser.add_argument("--heap-mb", type=int, default=256, help="the broker's memory; more than 256 is for load")
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
