"""Write the generated files under the folder given, the current one by default."""

from __future__ import annotations

import sys
from pathlib import Path

from streams.docs.pages import PAGES


def main(root: Path) -> None:
    """Write every page."""
    for name, page in PAGES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page(), "utf-8")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
