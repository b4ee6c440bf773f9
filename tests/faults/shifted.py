"""The product with its wall clock shifted: `FAULTS_SHIFT_MS=3600000 python -m tests.faults.shifted bridge`.

The product itself knows no such variable. Modules take the clock by name, so it is changed before they are imported.
"""

from __future__ import annotations

import os

from streams import clock


def main() -> None:
    shift_ms, real = int(os.environ.get("FAULTS_SHIFT_MS", "0")), clock.wall_ms
    clock.wall_ms = lambda: real() + shift_ms
    from streams.cli import main as command  # noqa: PLC0415 -- see above

    command()


if __name__ == "__main__":
    main()
