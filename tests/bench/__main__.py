"""`make bench`: all benchmarks, one after the other, on servers of their own.

    python -m tests.bench [--against FILE.py]

`--against`: another build of the batched path to run the worker beside (see worker_bench).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from streams.local import stack


def main() -> int:
    """Run them; the code of the first that fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--against", type=Path)
    against = parser.parse_args().against
    beside = ["--against", str(against)] if against else []
    with tempfile.TemporaryDirectory() as folder:
        servers = stack.up(Path(folder), jvm_heap_mb=768)
        kafka = ["--bootstrap", servers.bootstrap]
        runs = (
            ["fold_bench"],
            ["produce_bench", *kafka],
            ["bridge_bench", "--kafka", servers.bootstrap, "--redis", servers.redis_url],
            ["engine_bench", *kafka],
            ["worker_bench", *kafka, *beside],
            ["worker_bench", *kafka, *beside, "--interleaved", "10"],
            ["worker_bench", *kafka, *beside, "--interleaved", "2000", "--jobs", "50000"],
            ["worker_bench", *kafka, *beside, "--jobs", "200000", "--scenario", "success", "--rounds", "1"],
            ["latency_bench", *kafka, "--redis", servers.redis_url],
        )
        try:
            for run in runs:
                sys.stdout.write(f"== {' '.join(run)}\n")
                sys.stdout.flush()
                done = subprocess.run([sys.executable, "-m", f"tests.bench.{run[0]}", *run[1:]], check=False)
                if done.returncode:
                    return done.returncode
        finally:
            stack.down(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
