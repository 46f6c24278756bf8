"""List responses of Compute Engine: filtered, in pages, and grouped by zone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.fakes.gcp import catalog, filters
from tests.fakes.gcp.faults import Answer, refusal
from tests.fakes.gcp.instances import Instances
from tests.fakes.gcp.operations import Later, Operations
from tests.fakes.gcp.schema import Call

PROJECT = "test-project"


class Lists:
    """
    The base of the project: clock, operations, instances, and list responses.

    Attributes:
        page: The number of resources on a page.

        unreachable: The zones that an aggregated list reports as unreachable.
    """

    def __init__(self, seconds: float) -> None:
        self.later = Later()
        self.operations = Operations(self.later, seconds)
        self.instances = Instances(self.later, self.operations)
        self.page = 2
        self.unreachable: set[str] = set()

    def paged(self, found: Iterable[dict[str, Any]], call: Call) -> dict[str, Any]:
        """Return one page of a list, filtered."""
        test = filters.parse(call.query.get("filter", ""))
        fitting = [one for one in found if test(one)]
        first = int(call.query.get("pageToken", "0"))
        answer: dict[str, Any] = {"items": fitting[first : first + self.page]}
        if first + self.page < len(fitting):
            answer["nextPageToken"] = str(first + self.page)
        return answer

    def scoped(
        self, kind: str, found: Iterable[dict[str, Any]], call: Call
    ) -> dict[str, Any]:
        """Return one page of the resources of all zones, grouped by zone."""
        page = self.paged(found, call)
        scopes: dict[str, Any] = {
            f"zones/{zone}": {"warning": _warning("NO_RESULTS_ON_PAGE", zone)}
            for zone in catalog.ALL_ZONES
        }
        for one in page["items"]:
            where = one.get("zone", one.get("region", ""))
            scope = f"{'zones' if 'zone' in one else 'regions'}/{where.split('/')[-1]}"
            if kind not in scopes.get(scope, {}):
                scopes[scope] = {kind: []}
            scopes[scope][kind].append(one)
        for zone in self.unreachable:
            scopes[f"zones/{zone}"] = {"warning": _warning("UNREACHABLE", zone)}
        return {**page, "items": scopes}


def zone_of(call: Call) -> dict[str, str]:
    """Return the zone of a call, as `Operations` expects it."""
    return {"zone": call.path["zone"]}


def unknown(what: str) -> Answer:
    """Return the 404 for a resource that does not exist."""
    return refusal(404, f"The resource '{what}' was not found", "notFound")


def exists(what: str) -> Answer:
    """Return the 409 for a resource that exists already."""
    return refusal(409, f"The resource '{what}' already exists", "alreadyExists")


def drop(resources: dict[Any, Any], key: Any) -> None:
    """Delete a resource, if it exists."""
    resources.pop(key, None)


def _warning(code: str, zone: str) -> dict[str, Any]:
    data = [{"key": "scope", "value": f"zones/{zone}"}]
    return {"code": code, "message": f"'{zone}': {code}", "data": data}
