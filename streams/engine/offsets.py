"""Committed offsets as the coordinator tells them.

A coordinator that moves, or still loads the group, refuses the question as a whole. aiokafka looks at the partitions
of the answer alone, finds none, and takes that for "nothing was committed": everything would be read from the
beginning. Here the refusal is raised, and aiokafka asks again.
"""

from __future__ import annotations

from typing import Any

from aiokafka import errors
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.protocol.commit import OffsetFetchRequest

_send = GroupCoordinator._send_req  # noqa: SLF001 - listed in private.py
_ELSEWHERE = (errors.NotCoordinatorForGroupError, errors.GroupCoordinatorNotAvailableError)


async def send_checked(coordinator: Any, request: Any) -> Any:
    """In place of `GroupCoordinator._send_req`. Raises KafkaError also where an OffsetFetch as a whole was refused."""
    response = await _send(coordinator, request)
    code = getattr(response, "error_code", 0) if isinstance(request, OffsetFetchRequest) else 0
    if code:
        error = errors.for_code(code)
        if error in _ELSEWHERE:
            coordinator.coordinator_dead()
        raise error
    return response
