"""Faults in a row over the whole line, on three brokers and a Redis that goes back: at rest all is as BullMQ says.

The short form has sixty with short pauses, the long one 20 seeds of 50, both among the long proofs:

    make proof ARGS="-k sixty_faults -s"
    make proof ARGS="-k faults"
    FAULTS_SEED=7 FAULTS_COUNT=50 FAULTS_KINDS=redis,stream python -m pytest -m slow tests/faults -s

FAULTS_SEED alone repeats one seed of the long form; FAULTS_KINDS names kinds, or faults. A failure says what is wrong,
the seed, and the faults since the last time that all was well.
"""

from __future__ import annotations

import os

import pytest

from tests.faults.run import Plan, run

SHORT_SEED = 11
LONG_SEEDS = range(1, 21)
KINDS = os.environ.get("FAULTS_KINDS", "")
ONLY = os.environ.get("FAULTS_SEED")
SEEDS = [int(ONLY)] if ONLY else [*LONG_SEEDS]

pytestmark = [pytest.mark.system, pytest.mark.node]


@pytest.mark.slow
async def test_sixty_faults(tmp_path):
    await passed(tmp_path, Plan(SHORT_SEED, 60, KINDS, longest_s=8))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
async def test_faults_in_a_row(tmp_path, seed):
    await passed(tmp_path, Plan(seed, int(os.environ.get("FAULTS_COUNT", "50")), KINDS))


async def passed(directory, plan: Plan) -> None:
    print(f"FAULTS_SEED={plan.seed} FAULTS_COUNT={plan.count} FAULTS_KINDS={plan.kinds}")  # noqa: T201 - to repeat it
    outcome = await run(directory, plan)
    print(outcome)  # noqa: T201 - what was done
    assert not outcome.wrong, "\n".join(outcome.wrong)
    assert len(outcome.done) == plan.count
    assert outcome.entries > 50 * plan.count  # a run in which nothing happened proves nothing
