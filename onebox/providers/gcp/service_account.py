"""The service account of a box, as which programs on it can use Google's APIs."""

from __future__ import annotations

from typing import Any

from onebox.providers.gcp import scopes, sdk
from onebox.providers.gcp.client import Cloud
from onebox.providers.gcp.errors import may_attach_command
from onebox.providers.gcp.settings import GCPSettings
from onebox.providers.values import Check, Request

_PUBLIC = "https://iam.googleapis.com"
_PERMISSION = "iam.serviceAccounts.actAs"
_SECONDS = 20


def field(settings: GCPSettings, request: Request) -> dict[str, Any]:
    """
    Return the field of a new instance that attaches the service account.

    It is {} without one in the settings, and for a builder: the set-up script of an
    image needs no rights in the project.
    """
    if not settings.service_account or request.tags.kind != "box":
        return {}
    account = {
        "email": settings.service_account,
        "scopes": scopes.urls(settings.scopes),
    }
    return {"service_accounts": [account]}


def of_instance(instance: Any) -> str:
    """Return the identity of an instance, "" if it has no service account."""
    accounts = instance.service_accounts
    return "; ".join(scopes.identity(one.email, one.scopes) for one in accounts)


def check(cloud: Cloud) -> Check:
    """Check that the service account of the settings may be attached to a box."""
    settings = cloud.settings
    email = settings.service_account
    if settings.endpoint and not settings.iam_endpoint:
        text = "with [gcp] endpoint, the IAM API needs an endpoint too"
        return _unknown(text, "set [gcp] iam_endpoint")
    failures: tuple[type[Exception], ...] = (*sdk.failures(), ValueError)
    base = (settings.iam_endpoint or _PUBLIC).rstrip("/")
    try:
        # "-" stands for the project of the account, which may be another one.
        answer = sdk.session(cloud.account.credentials).post(
            f"{base}/v1/projects/-/serviceAccounts/{email}:testIamPermissions",
            json={"permissions": [_PERMISSION]},
            timeout=_SECONDS,
        )
        body = answer.json()
    except failures as error:
        return _unknown(f"{type(error).__name__}: {' '.join(str(error).split())}")
    body = body if isinstance(body, dict) else {}
    if answer.status_code == 200:
        if _PERMISSION in (body.get("permissions") or ()):
            return Check("identity", True, f"{settings.identity} can be attached")
        detail = f"these credentials may not attach {email}: they lack {_PERMISSION}"
        return Check("identity", False, detail, may_attach_command(email))
    if answer.status_code == 404:
        return Check(
            "identity",
            False,
            f"there is no service account {email}",
            "correct [gcp] service_account; one that was just created is known after "
            "a minute",
        )
    failure = body.get("error")
    reason = failure.get("message") if isinstance(failure, dict) else ""
    text = " ".join(str(reason or answer.reason).split())[:300]
    return _unknown(f"{answer.status_code} {text}")


def _unknown(why: str, next: str = "inv doctor") -> Check:
    return Check("identity", None, f"not known: {why}", next)
