"""`doctor`: every finding about Redis, Kafka and the clocks, each with its remedy."""

from __future__ import annotations

from streams.commands import doctor_kafka, doctor_redis
from streams.commands.findings import Finding, report
from streams.settings import Settings


async def doctor(settings: Settings, *, as_json: bool) -> int:
    """Look at everything, also where something before was amiss; returns the exit code."""
    findings: list[Finding] = []
    for name, source in settings.sources.items():
        findings += await doctor_redis.examine(name, source)
    findings += await doctor_kafka.examine(settings)
    return report(findings, as_json=as_json)
