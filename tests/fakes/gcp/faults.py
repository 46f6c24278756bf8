"""The faults that a test requests: of a call, or of an accepted operation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROJECT_NUMBER = "123456789012"
ENABLE = (
    "https://console.developers.google.com/apis/api/compute.googleapis.com/overview"
    f"?project={PROJECT_NUMBER}"
)


@dataclass
class Fault:
    """
    A fault of the next calls of one method.

    Attributes:
        kind: A key of `ANSWERS`; or "cut", "hang", "garbage", "page", "truncated"
            (with "-after": the call takes effect all the same); or "op:" and the
            code with which the operation fails.

        times: The number of calls that fail.

        after: The number of calls that succeed before.
    """

    method: str
    kind: str
    times: int = 1
    after: int = 0
    message: str = ""
    retry_after: int | None = None


@dataclass(frozen=True)
class Answer:
    """An HTTP error response."""

    status: int
    body: Mapping[str, Any]


def refusal(
    status: int, message: str, reason: str, *details: Mapping[str, Any]
) -> Answer:
    """Return an error response in Compute Engine's format."""
    error: dict[str, Any] = {
        "code": status,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": reason}],
    }
    if details:
        error["details"] = list(details)
    return Answer(status, {"error": error})


ANSWERS: Mapping[str, Answer] = {
    "429": refusal(429, "Too many requests.", "rateLimitExceeded"),
    "rate": refusal(
        403,
        "Quota exceeded for quota group 'default' and limit 'Queries per user per "
        "100 seconds'.",
        "rateLimitExceeded",
    ),
    "500": refusal(500, "Internal error. Please try again.", "backendError"),
    "503": refusal(503, "The service is currently unavailable.", "backendError"),
    "notFound": refusal(404, "The resource was not found", "notFound"),
    "401": refusal(
        401,
        "Request had invalid authentication credentials. Expected OAuth 2 access "
        "token, login cookie or other valid authentication credential.",
        "authError",
    ),
    "disabled": refusal(
        403,
        f"Compute Engine API has not been used in project {PROJECT_NUMBER} before or "
        f"it is disabled. Enable it by visiting {ENABLE} then retry. If you enabled "
        "this API recently, wait a few minutes.",
        "accessNotConfigured",
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "SERVICE_DISABLED",
            "domain": "googleapis.com",
            "metadata": {"activationUrl": ENABLE, "service": "compute.googleapis.com"},
        },
    ),
    "forbidden": refusal(
        403,
        "Required 'compute.instances.create' permission for "
        "'projects/test-project/zones/us-central1-a/instances/x'",
        "forbidden",
    ),
    "billing": refusal(
        403,
        "This API method requires billing to be enabled. Please enable billing on "
        "project #test-project by visiting "
        "https://console.developers.google.com/billing/enable?project=test-project "
        "then retry.",
        "forbidden",
    ),
    "quota": refusal(
        403,
        "Quota 'N2D_CPUS' exceeded.  Limit: 24.0 in region us-central1.",
        "quotaExceeded",
    ),
    "policy": refusal(
        412,
        "Constraint constraints/compute.vmExternalIpAccess violated for project "
        "test-project. Add instance to the constraint to use external IP.",
        "conditionNotMet",
    ),
    "stockout": refusal(
        503,
        "The zone 'projects/test-project/zones/us-central1-a' does not have enough "
        "resources available to fulfill the request. '(resource type:compute)'.",
        "ZONE_RESOURCE_POOL_EXHAUSTED",
    ),
}

OPERATIONS: Mapping[str, str] = {
    "ZONE_RESOURCE_POOL_EXHAUSTED": (
        "The zone 'projects/test-project/zones/us-central1-a' does not have enough "
        "resources available to fulfill the request.  Try a different zone, or try "
        "again later."
    ),
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": (
        "The zone does not have enough resources available to fulfill the request. "
        "'(resource type:compute)'."
    ),
    "STOCKOUT": "The zone does not have enough resources available (stockout).",
    "QUOTA_EXCEEDED": "Quota 'CPUS_ALL_REGIONS' exceeded.  Limit: 12.0 globally.",
    "INTERNAL_ERROR": "Internal error. Please try again or contact Google Support.",
    "PERMISSIONS_ERROR": "Required 'compute.subnetworks.use' permission.",
    "RESOURCE_OPERATION_RATE_EXCEEDED": "Operation rate exceeded for resource.",
}


def no_access(email: str) -> str:
    """Return Google's message about a service account that may not be attached."""
    return (
        f"The user does not have access to service account '{email}'.  User: "
        "'tester@test-project.iam.gserviceaccount.com'.  Ask a project owner to grant "
        "you the iam.serviceAccountUser role on the service account"
    )


def page() -> bytes:
    """Return the HTML page of a gateway."""
    return b"<html><head><title>502 Bad Gateway</title></head></html>"


def encoded(answer: Answer) -> bytes:
    """Return the encoded body of an error response."""
    return json.dumps(answer.body).encode()
