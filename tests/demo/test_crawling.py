from __future__ import annotations

import fnmatch
import random
from itertools import islice

import pytest
from pipeshub_sdk.models import CrawlingJobData

from streams.demo import crawling

KINDS = ("once", "delayed", "flaky", "failing", "revoked")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_a_job_is_one_of_the_seed(kind: str, seed: int) -> None:
    job = crawling.crawl(random.Random(seed), kind)

    data = CrawlingJobData.model_validate(job.data)
    assert job.name == f"crawl-{data.connector}-{data.connector_id}"
    assert job.opts["jobId"].startswith(job.name)
    assert 1 <= job.opts["priority"] <= 10


def test_the_template_of_the_scheduler_and_the_long_jobs_are_too() -> None:
    rng = random.Random(1)
    template, long = crawling.repeating(rng), crawling.indexing(rng)

    assert CrawlingJobData.model_validate(template.data).schedule_config.schedule_type == "custom"
    assert "jobId" not in template.opts  # BullMQ gives each iteration its own
    assert CrawlingJobData.model_validate(long.data).schedule_config.schedule_type == "once"
    assert long.opts["attempts"] == 1


def test_the_first_jobs_are_of_every_kind_and_ids_never_repeat() -> None:
    jobs = list(islice(crawling.crawls(random.Random(1)), 300))
    first = jobs[:6]

    assert any("delay" in job.opts for job in first)
    assert any(job.data["metadata"].get("fails") == 1 for job in first)
    assert any(job.data["metadata"].get("revoked") for job in first)
    assert len({job.opts["jobId"] for job in jobs}) == len(jobs)


def test_the_queues_are_those_that_the_bridge_of_the_demo_reads() -> None:
    for queue in (crawling.CRAWLING, crawling.INDEXING):
        assert fnmatch.fnmatchcase(queue, crawling.QUEUES)
