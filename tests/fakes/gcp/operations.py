"""Operations that take time, and events that happen later."""

from __future__ import annotations

import base64
import heapq
import itertools
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from tests.fakes.gcp.faults import OPERATIONS

ROOT = "https://www.googleapis.com/compute/v1/projects/test-project"


class Later:
    """A queue of events; the first caller after an event's time runs it."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        """Run *do* after some seconds."""
        at = time.monotonic() + seconds
        heapq.heappush(self._queue, (at, next(self._count), do))

    def hurry(self) -> None:
        """Make every queued event due now, in its order."""
        inorder = sorted(self._queue, key=lambda one: one[:2])
        self._queue = [(0.0, place, do) for place, (_, _, do) in enumerate(inorder)]

    def run(self) -> None:
        """Run the events that are due."""
        while self._queue and self._queue[0][0] <= time.monotonic():
            heapq.heappop(self._queue)[2]()


class Operations:
    """All operations of the project, as `zoneOperations` lists them."""

    def __init__(self, later: Later, seconds: float) -> None:
        self._later = later
        self.seconds = seconds
        self.all: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count(1)

    def begin(
        self,
        kind: str,
        target: Mapping[str, Any],
        place: Mapping[str, str],
        done: Callable[[], None] = lambda: None,
        *,
        error: str = "",
        message: str = "",
        seconds: float | None = None,
        project: str = "test-project",
    ) -> dict[str, Any]:
        """Return a running operation; at its end it calls *done*, or has *error*."""
        operation = self.note(kind, target, place, "RUNNING", project)

        def end() -> None:
            done()
            operation.update(status="DONE", progress=100, endTime=now())
            if error:
                text = message or OPERATIONS.get(error, error)
                operation["error"] = {"errors": [{"code": error, "message": text}]}
                operation["httpErrorStatusCode"] = 503
                operation["httpErrorMessage"] = "SERVICE UNAVAILABLE"

        seconds = self.seconds if seconds is None else seconds
        self._later.after(seconds / 2, lambda: operation.update(progress=50))
        self._later.after(seconds, end)
        return operation

    def note(
        self,
        kind: str,
        target: Mapping[str, Any],
        place: Mapping[str, str],
        status: str = "DONE",
        project: str = "test-project",
    ) -> dict[str, Any]:
        """Return a new operation that is already done."""
        number = next(self._numbers)
        name = f"operation-{number:08}"
        root = ROOT.replace("test-project", project)
        where = "/".join(f"{key}s/{value}" for key, value in place.items()) or "global"
        operation = {
            "kind": "compute#operation",
            "id": str(7_000_000_000 + number),
            "name": name,
            "operationType": kind,
            "targetId": str(target.get("id", "0")),
            "targetLink": str(target.get("selfLink", "")),
            "status": status,
            "progress": 0,
            "insertTime": now(),
            "startTime": now(),
            "user": "tester@test-project.iam.gserviceaccount.com",
            "selfLink": f"{root}/{where}/operations/{name}",
            **{key: f"{ROOT}/{key}s/{value}" for key, value in place.items()},
        }
        self.all[name] = operation
        return operation


def now() -> str:
    """Return the present time in Compute Engine's format: with the offset -08:00."""
    moment = datetime.now(timezone.utc).timestamp() - 8 * 3600
    local = datetime.fromtimestamp(moment, timezone.utc)
    return (
        local.strftime("%Y-%m-%dT%H:%M:%S.") + f"{local.microsecond // 1000:03}-08:00"
    )


def fingerprint(value: object) -> str:
    """Return a fingerprint of a value, in base64 as in the API."""
    return base64.urlsafe_b64encode(str(hash(str(value))).encode()).decode()
