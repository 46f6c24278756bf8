"""
Turn errors of Compute Engine into errors of onebox, by a table of its codes.

Google reports an error in one of two forms: as the response that refuses a call, or as
the result of an operation that was accepted and failed later. One table of rules serves
both forms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from onebox.errors import (
    Gone,
    NoCapacity,
    NoCredentials,
    NotAllowed,
    OneboxError,
    QuotaExceeded,
    Throttled,
    Unclear,
    UsageError,
)
from onebox.providers.kernel.errors import (
    Exists,
    Refusal,
    Rule,
    Unanswered,
    explain,
    header_seconds,
)

LOGIN = "gcloud auth application-default login"

_LINK = r"(?P<link>https://console\S+?)(?=\.?[\s'\",]|\.?$)"
_DISABLED = "accessNotConfigured|SERVICE_DISABLED"
_QUOTA = "QUOTA_EXCEEDED|quotaExceeded|LIMIT_EXCEEDED|limitExceeded"
_MORE_QUOTA = (
    "a smaller --vm or another region, or request an increase at "
    "https://console.cloud.google.com/iam-admin/quotas"
)
_BY_POLICY = "a policy of your organization forbids it: {text}"
_REFUSED = (401, 403)
_SERVER_ERROR = (408, *range(500, 600))

_ACCOUNT = "[gcp] service_account"
_NO_ACCOUNT = f"{_ACCOUNT} = {{account}}: Google knows no such service account"
_LIST_ACCOUNTS = (
    "gcloud iam service-accounts list; one that was just created is known after a "
    "minute"
)
_EMAIL = r"(?P<account>[\w.:-]+@[\w.-]*\w)"
# The parts of Google's messages before the account that may not be attached.
_NO_ACCESS = r"access to service account|'iam\.serviceAccounts\.actAs'"


def may_attach_command(email: str) -> str:
    """Return the command that permits a user to attach a service account."""
    return (
        f"gcloud iam service-accounts add-iam-policy-binding {email} "
        "--role=roles/iam.serviceAccountUser --member=user:…"
    )


_RULES = (
    Rule(Throttled, "Google asks for fewer calls: {text}", status=(429,), next="later"),
    Rule(
        Throttled,
        "Google asks for fewer calls: {text}",
        pattern="rateLimitExceeded|RATE_LIMIT_EXCEEDED|RATE_EXCEEDED",
        next="later",
    ),
    Rule(
        NoCapacity,
        pattern="RESOURCE_POOL_EXHAUSTED|STOCKOUT|resourcePoolExhausted"
        "|enough resources available",
        next="another --vm, another zone or region, or later",
        cause="no capacity",
    ),
    Rule(
        QuotaExceeded,
        "a quota does not allow it: {text}",
        pattern=rf"(?s)(?=.*(?:{_QUOTA})).*?Quota '(?P<name>[A-Z0-9_-]+)'",
        next=_MORE_QUOTA,
        limit="{name}",
    ),
    Rule(
        QuotaExceeded,
        "a quota does not allow it: {text}",
        pattern=_QUOTA,
        next=_MORE_QUOTA,
    ),
    Rule(
        NotAllowed,
        _BY_POLICY,
        pattern=r"constraints/compute\.vmExternalIpAccess",
        next='set [gcp] private = true, and reach = "iap" or jump if needed',
    ),
    Rule(
        NotAllowed,
        _BY_POLICY,
        pattern=r"constraints/compute\.requireOsLogin",
        next="ask for an exception for this project",
    ),
    Rule(
        NotAllowed,
        _BY_POLICY,
        pattern="constraints/",
        next="ask the administrator of the organization",
    ),
    Rule(
        NotAllowed,
        f"{_ACCOUNT} = {{account}}: these credentials may not attach this service "
        "account (iam.serviceAccounts.actAs)",
        pattern=rf"(?:{_NO_ACCESS}).*?{_EMAIL}",
        next=f"{may_attach_command('{account}')}; then inv doctor",
    ),
    Rule(
        NotAllowed,
        f"{_ACCOUNT}: {{text}}",
        pattern=f"SERVICE_ACCOUNT_ACCESS_DENIED|{_NO_ACCESS}",
        next="grant these credentials roles/iam.serviceAccountUser on it; then inv "
        "doctor",
    ),
    Rule(
        UsageError,
        _NO_ACCOUNT,
        pattern=rf"{_EMAIL}\]?' of type 'serviceAccount' was not found",
        next=_LIST_ACCOUNTS,
    ),
    Rule(
        UsageError,
        _NO_ACCOUNT,
        pattern=r"serviceAccounts\[\d+\]\.email': '(?P<account>[^']*)'",
        next=_LIST_ACCOUNTS,
    ),
    Rule(
        UsageError,
        "[gcp] scopes: {text}",
        pattern=r"serviceAccounts\[\d+\]\.scopes",
        next="correct [gcp] scopes",
    ),
    Rule(
        NotAllowed,
        "the Compute Engine API is off: {text}",
        status=_REFUSED,
        pattern=rf"(?s)(?=.*(?:{_DISABLED})).*?{_LINK}",
        next="enable it at {link} , wait a minute, then try again",
    ),
    Rule(
        NotAllowed,
        "the Compute Engine API is off: {text}",
        status=_REFUSED,
        pattern=_DISABLED,
        next="enable it in Google's console, wait a minute, then try again",
    ),
    Rule(
        NotAllowed,
        "the project has no billing account: {text}",
        status=_REFUSED,
        pattern="billing",
        next="see https://console.cloud.google.com/billing",
    ),
    Rule(
        NotAllowed, "the credentials are not valid: {text}", status=(401,), next=LOGIN
    ),
    Rule(
        NotAllowed,
        "not permitted: {text}",
        status=(403,),
        next="inv doctor names the missing permission",
    ),
    Rule(NotAllowed, code=r"[\s\S]*PERMISSION[\s\S]*", next="inv doctor"),
    Rule(Gone, status=(404,)),
    Rule(Exists, status=(409,)),
    Rule(
        NotAllowed,
        status=(412,),
        pattern="deletion",
        next="switch off its deletion protection in Google's console",
    ),
    Rule(
        Unclear,
        "Google's API failed, and the call may have taken effect: {text}",
        status=_SERVER_ERROR,
        changes=True,
        next="try again later",
    ),
    Rule(
        Unanswered,
        "Google's API failed: {text}",
        status=_SERVER_ERROR,
        next="try again later",
    ),
)

# The first item of each pair is Google's name for a kind of resource, in a path or a
# field. The second item is the setting of onebox that chooses such a resource.
_SETTINGS = (
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


def of_call(
    error: Exception, doing: str, *, changes: bool, named: bool = False
) -> OneboxError:
    """
    Return the onebox error for an exception that a call of Google's library raised.

    Args:
        doing: What the call is for, as in "looking for ob-1".

        changes: Whether the call could have changed something.

        named: Whether the call names resources that the user has chosen. A wrong name
            is a UsageError then.
    """
    status = getattr(error, "code", None)
    if not isinstance(status, int):
        return _without_response(error, doing, changes)
    reasons, message = _reasons(error), _message(error)
    refusal = Refusal(
        doing,
        message,
        reasons[0] if reasons else "",
        int(status),
        " ".join([*reasons, message]),
        changes,
    )
    explained = explain(_RULES, refusal)
    return _wrong_name(explained, int(status)) if named else explained


def of_operation(failures: Sequence[Any], doing: str) -> OneboxError:
    """Return the onebox error for an operation that was accepted and then failed."""
    codes = " ".join(str(one.code) for one in failures)
    message = "; ".join(f"{one.message.strip()} ({one.code})" for one in failures)
    message = message or "the operation failed without a reason"
    refusal = Refusal(doing, message, codes, details=f"{codes} {message}")
    return explain(_RULES, refusal)


def retry_after(error: Exception) -> float | None:
    """Return the seconds in the response's Retry-After header, None if it has none."""
    response = getattr(error, "response", None)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return header_seconds(str(text))


def no_credentials(detail: str) -> NoCredentials:
    """Return the onebox error for missing or unusable credentials for Google."""
    return NoCredentials(
        f"there are no usable credentials for Google Cloud: {_short(detail)}",
        next=f"{LOGIN}, or set GOOGLE_APPLICATION_CREDENTIALS",
    )


def _wrong_name(error: OneboxError, status: int) -> OneboxError:
    """Return a UsageError if *error* is about a name in the settings, else *error*."""
    field = _FIELD.search(error.message) if status == 400 else None
    for part, setting in _SETTINGS:
        name = ""
        if status == 404:
            path = rf"\b{part}s/(?:family/)?([^\s'\"/]+)['\"\s]"
            found = re.search(path, error.message)
            name = found[1] if found else ""
        elif field and field[1] == part:
            name = field[2].rpartition("/")[2]
        if name:
            text = f"there is no {name} on Google Cloud here: {error.message}"
            return UsageError(text, next=f"another {setting}")
    return error


def _without_response(error: Exception, doing: str, changes: bool) -> OneboxError:
    """Return the onebox error for a call that failed before Google sent a response."""
    kind, text = type(error).__name__, _short(str(error))
    if kind in ("DefaultCredentialsError", "MalformedError"):
        return no_credentials(text)
    if kind == "TransportError" or not type(error).__module__.startswith("google.auth"):
        return (Unclear if changes else Unanswered)(
            f"no answer from Google's API ({kind}) while {doing}",
            next="check the network, then try again",
        )
    return NotAllowed(
        f"Google no longer accepts the credentials: {text}",
        next=f"{LOGIN}, or a new key in GOOGLE_APPLICATION_CREDENTIALS",
    )


def _reasons(error: Any) -> list[str]:
    """
    Return the reasons in an error response, followed by its links for enabling an API.

    The old response format has the reasons in `errors`, the new format in `details`.
    """
    body = _body(error)
    found = [one.get("reason") for one in body.get("errors", ())]
    found += [one.get("reason") for one in body.get("details", ())]
    links = [
        str(one.get("metadata", {}).get("activationUrl", ""))
        for one in body.get("details", ())
    ]
    return [str(one) for one in (*found, *links) if one]


def _message(error: Any) -> str:
    text = _body(error).get("message") or str(getattr(error, "message", error))
    return _short(str(text))


def _body(error: Any) -> dict[str, Any]:
    """Return the error object in the body of a response, {} if there is none."""
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


def _short(text: str) -> str:
    return " ".join(text.split())[:600]
