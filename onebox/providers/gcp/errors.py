"""
Say what went wrong, in the words and classes of `onebox.errors`.

The only place that knows Google's reasons and codes. They come in two kinds: of
calls that are refused, and of operations that were accepted and then failed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    OneboxError,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unclear,
    UsageError,
)

LOGIN = "gcloud auth application-default login"

_CAPACITY = re.compile(r"RESOURCE_POOL_EXHAUSTED|STOCKOUT|resourcePoolExhausted")
_QUOTA = re.compile(r"QUOTA_EXCEEDED|quotaExceeded|LIMIT_EXCEEDED|limitExceeded")
_RATE = re.compile(
    r"[rR]ateLimitExceeded|RATE_LIMIT_EXCEEDED|OPERATION_RATE_EXCEEDED|RATE_EXCEEDED"
)
_DISABLED = re.compile(r"accessNotConfigured|SERVICE_DISABLED")
_QUOTA_NAME = re.compile(r"Quota '([A-Z0-9_-]+)'")
_POLICY = re.compile(r"constraints/([A-Za-z.]+)")
_LINK = re.compile(r"https://console\S+?(?=[\s'\",]|$)")
# What names a thing here, by what Google calls it: in a path, or in a field's name.
_NAMES = (
    ("machineType", "--vm"),
    ("diskType", "[gcp] disk_type"),
    ("subnetwork", "[gcp] subnet"),
    ("network", "[gcp] network"),
    ("image", "[image] base or use"),
    ("sourceImage", "[image] base or use"),
    ("zone", "[gcp] zones"),
    ("region", "[gcp] region"),
    ("project", "[gcp] project"),
)
_FIELD = re.compile(r"Invalid value for field '(?:[^']*\.)?([A-Za-z]+)': '([^']+)'")


@dataclass(frozen=True)
class Failure:
    """
    What one call has come to.

    *again* says that the same call may succeed later, *lost* that nobody knows
    whether this one did; *wait* is what the server asks for, in seconds.
    """

    error: OneboxError
    again: bool = False
    lost: bool = False
    wait: float | None = None
    status: int = 0
    reason: str = ""


def of_call(error: Exception, doing: str, *, changes: bool) -> Failure:
    """Say what a call's exception means. *changes*: the call was to change things."""
    status = getattr(error, "code", None)
    if not isinstance(status, int):
        return _without_answer(error, doing, changes)
    reasons = _reasons(error)
    reason = reasons[0] if reasons else ""
    message = _message(error)
    said = f"{doing}: {message}" + (f" ({reason})" if reason else "")
    every = " ".join([*reasons, message])

    def failure(kind: OneboxError, **more: Any) -> Failure:
        return Failure(kind, status=int(status), reason=reason, **more)

    if status == 429 or (status in (400, 403, 503) and _RATE.search(every)):
        throttled = Throttled(f"Google asks for fewer calls: {said}", next="later")
        return failure(throttled, again=True, wait=_retry_after(error))
    if _CAPACITY.search(every):
        return failure(_no_capacity(said))
    if status == 403 and _QUOTA.search(every):
        return failure(_quota(said))
    if status in (401, 403):
        return failure(_not_allowed(said, every, status))
    if status == 404:
        return failure(Gone(said))
    if status == 412 and _POLICY.search(message):
        return failure(_policy(said, message))
    if status == 412 and "deletion" in message.lower():
        unprotect = "switch off its deletion protection in Google's console"
        return failure(NotAllowed(said, next=unprotect))
    if status >= 500 or status == 408:
        kind = Unclear if changes else ProviderError
        later = kind(f"Google's API fails: {said}", next="later, once more")
        return failure(later, again=True, lost=True, wait=_retry_after(error))
    return failure(ProviderError(said))


def of_operation(errors: Sequence[Any], doing: str) -> ProviderError:
    """Say what the errors inside an operation that was accepted mean."""
    codes = " ".join(str(error.code) for error in errors)
    said = "; ".join(f"{error.message.strip()} ({error.code})" for error in errors)
    said = f"{doing}: {said or 'the operation failed, and does not say why'}"
    everything = f"{codes} {said}"
    if _CAPACITY.search(codes) or "enough resources available" in said:
        return _no_capacity(said)
    if _QUOTA.search(codes):
        return _quota(said)
    if _RATE.search(codes):
        return Throttled(said, next="later")
    if _POLICY.search(everything):
        return _policy(said, everything)
    if "PERMISSION" in codes:
        return NotAllowed(said, next="inv doctor")
    return ProviderError(said)


def wrong_name(failure: Failure) -> OneboxError:
    """Return the failure's error; a UsageError if it is about a name of the user's."""
    error = failure.error
    field = _FIELD.search(error.message) if failure.status == 400 else None
    for part, setting in _NAMES:
        name = ""
        if failure.status == 404:
            path = rf"\b{part}s/(?:family/)?([^\s'\"/]+)['\"\s]"
            found = re.search(path, error.message)
            name = found[1] if found else ""
        elif field and field[1] == part:
            name = field[2].rpartition("/")[2]
        if name:
            what = f"there is no {name} on Google Cloud here: {error.message}"
            return UsageError(what, next=f"another {setting}")
    return error


def no_credentials(detail: str) -> NotAllowed:
    """Return the error of a machine that has no credentials for Google."""
    return NotAllowed(
        f"there are no usable credentials for Google Cloud: {_short(detail)}",
        next=f"{LOGIN}, or set GOOGLE_APPLICATION_CREDENTIALS",
    )


def _without_answer(error: Exception, doing: str, changes: bool) -> Failure:
    """Say what it means that no answer came: no credentials, or no connection."""
    kind, text = type(error).__name__, _short(str(error))
    if kind in ("DefaultCredentialsError", "MalformedError"):
        return Failure(no_credentials(text))
    if kind == "TransportError" or not type(error).__module__.startswith("google.auth"):
        what = f"no answer from Google's API ({kind}) while {doing}"
        lost = (Unclear if changes else ProviderError)(
            what, next="look at the network, then once more"
        )
        return Failure(lost, again=True, lost=True)
    return Failure(
        NotAllowed(
            f"Google does not take the credentials any more: {text}",
            next=f"{LOGIN}, or a new key in GOOGLE_APPLICATION_CREDENTIALS",
        )
    )


def _not_allowed(said: str, every: str, status: int) -> NotAllowed:
    link = _LINK.search(every)
    if _DISABLED.search(every):
        where = link[0].rstrip(".") if link else "Google's console"
        enable = f"enable it at {where} , wait a minute, then once more"
        return NotAllowed(f"the Compute Engine API is off: {said}", next=enable)
    if "billing" in every.lower():
        where = link[0] if link else "https://console.cloud.google.com/billing"
        return NotAllowed(f"no billing account: {said}", next=f"see {where}")
    if status == 401:
        return NotAllowed(f"the credentials are not valid: {said}", next=LOGIN)
    return NotAllowed(f"not permitted: {said}", next="inv doctor names what is missing")


def _no_capacity(said: str) -> NoCapacity:
    return NoCapacity(
        said,
        next="another --vm, another zone or region, or later",
        cause="no capacity",
    )


def _quota(said: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"a quota does not allow it: {said}",
        next="a smaller --vm or another region, or ask for more at "
        "https://console.cloud.google.com/iam-admin/quotas",
        limit=limit(said),
    )


def limit(said: str) -> str:
    """
    Return the name of the quota that a refusal is about, "" if it has none.

    >>> limit("Quota 'N2_CPUS' exceeded.  Limit: 24.0 in region us-central1.")
    'N2_CPUS'
    """
    found = _QUOTA_NAME.search(said)
    return found[1] if found else ""


def _policy(said: str, message: str) -> NotAllowed:
    found = _POLICY.search(message)
    constraint = found[1] if found else ""
    advice = {
        "compute.vmExternalIpAccess": "set [gcp] private = true, and jump if needed",
        "compute.requireOsLogin": "have it lifted for this project",
    }.get(constraint, "ask who administers the organization")
    return NotAllowed(f"a policy of your organization forbids it: {said}", next=advice)


def _reasons(error: Any) -> list[str]:
    """Return the error's reasons: of the old form first, then of the new one."""
    body = _body(error)
    found = [one.get("reason") for one in body.get("errors", ())]
    found += [one.get("reason") for one in body.get("details", ())]
    links = [
        str(one.get("metadata", {}).get("activationUrl", ""))
        for one in body.get("details", ())
    ]
    return [str(one) for one in (*found, *links) if one]


def _message(error: Any) -> str:
    said = _body(error).get("message") or str(getattr(error, "message", error))
    return _short(str(said))


def _body(error: Any) -> dict[str, Any]:
    """Return the answer's own account of the error, as far as it is one."""
    try:
        found = error.response.json()["error"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    lists = {
        key: [one for one in found.get(key) or () if isinstance(one, dict)]
        for key in ("errors", "details")
    }
    return {**found, **lists}


def _retry_after(error: Any) -> float | None:
    response = getattr(error, "response", None)
    said = response.headers.get("Retry-After", "") if response is not None else ""
    return float(said) if str(said).isdigit() else None


def _short(text: str) -> str:
    return " ".join(text.split())[:600]
