"""Records as they stand on the topics, with only what a test is about."""

from __future__ import annotations

from typing import Any

from streams.demo.board import Board

NOW_MS = 1_795_478_836_000


def transition(to: str, **more: Any) -> dict[str, Any]:
    return {
        "source": "default",
        "queue": "q",
        "job_id": "crawl-drive-1-abcdef",
        "name": "crawl-drive-1",
        "from": "active",
        "to": to,
        "at": NOW_MS,
        "cause": to,
        "error": None,
        "observed": False,
        **more,
    }


def alert(rule: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "fingerprint": f"{rule}-1",
        "rule": rule,
        "status": status,
        "starts_at": NOW_MS,
        "ends_at": NOW_MS + 7_400 if status == "resolved" else None,
        "reason": "in the active list without a lock",
        "resolved_by": "rescued" if status == "resolved" else None,
        "labels": {"job_name": "crawl-drive-1"},
        "job_id": "crawl-drive-1-abcdef",
        **more,
    }


def full_board() -> Board:
    """All that the demo wants to see."""
    board = Board()
    for number, state in enumerate(("waiting", "active", "delayed", "paused", "stuck", "completed", "failed")):
        board.event(NOW_MS - 1_000)
        board.status(f"default/q/{number}", {"state": state})
        board.transition(transition(state), written_ms=NOW_MS - 40, now_ms=NOW_MS)
    board.alert(alert("failed", "firing"), NOW_MS)
    board.alert(alert("stuck", "firing"), NOW_MS)
    board.alert(alert("stuck", "resolved"), NOW_MS)
    return board
