"""What a check found: printed as text or JSON, and judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from streams.commands import console

_STYLES = {"ok": ("✓", "green"), "info": ("·", "dim"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}


Level = Literal["ok", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about the system; `remedy` is empty where nothing is wrong. Only an `error` fails the command."""

    level: Level
    check: str
    message: str
    remedy: str = ""


def ok(findings: Iterable[Finding]) -> bool:
    """Whether none of them is an error."""
    return all(finding.level != "error" for finding in findings)


def report(findings: Sequence[Finding], *, as_json: bool, **more: Any) -> int:
    """Print them; returns the exit code. `more` = further keys of the JSON object."""
    if as_json:
        console.print_json({"ok": ok(findings), **more, "findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            _print(finding)
    return 0 if ok(findings) else 1


def _print(finding: Finding) -> None:
    sign, style = _STYLES[finding.level]
    console.line((f"{sign} ", style), (f"{finding.check}: ", "bold"), (finding.message, ""))
    if finding.remedy:
        console.line(("  → ", style), (finding.remedy, ""))
