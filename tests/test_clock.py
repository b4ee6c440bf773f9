from __future__ import annotations

from datetime import UTC, datetime

from streams.clock import wall_ms


def test_it_counts_ms_since_the_epoch():
    before = datetime.now(UTC)
    told = datetime.fromtimestamp(wall_ms() / 1000, UTC)
    after = datetime.now(UTC)
    assert -0.001 <= (told - before).total_seconds() <= (after - before).total_seconds() + 0.001
