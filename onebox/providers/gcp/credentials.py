"""Find the credentials that Google's own tools would use, and the project."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from datetime import timezone
from typing import Any

from onebox.errors import UsageError
from onebox.providers.gcp import errors, sdk

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class Account:
    """Whose credentials these are; *project* is the one they name, if any."""

    credentials: Any = field(repr=False)
    project: str

    @property
    def who(self) -> str:
        """Say what kind of credentials they are, and whose."""
        email = getattr(self.credentials, "service_account_email", "")
        if email and email != "default":
            return f"service account {email}"
        module = type(self.credentials).__module__.rpartition(".")[2]
        kind = {
            "credentials": "your own login",
            "external_account": "workload identity",
            "impersonated_credentials": "an impersonated service account",
        }.get(module, module.replace("_", " "))
        login = getattr(self.credentials, "account", "")
        return f"{kind} {login}".strip()

    @property
    def expires(self) -> float | None:
        """Return when (epoch seconds) they end for good, None if they renew."""
        expiry = getattr(self.credentials, "expiry", None)
        # Only a login that came without the means to renew itself ends so.
        renews = getattr(self.credentials, "refresh_token", "by its own means")
        if expiry is None or renews:
            return None
        return float(expiry.replace(tzinfo=timezone.utc).timestamp())


def find() -> Account:
    """
    Return the application-default credentials.

    Raises:
        NotAllowed: There are none, or they cannot be read.
    """
    auth = sdk.auth()
    try:
        with warnings.catch_warnings():
            # Of a login without a quota project: it works for Compute Engine.
            warnings.simplefilter("ignore")
            credentials, project = auth.default(scopes=[_SCOPE])
    except sdk.failures() as error:
        raise errors.no_credentials(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # A key file that is no key: whatever its parser stumbled over.
        raise errors.no_credentials(f"{type(error).__name__}: {error}") from error
    return Account(credentials, str(project or ""))


def project(account: Account, said: str) -> str:
    """
    Return the project to work in: what onebox.toml says, else the credentials.

    Raises:
        UsageError: Neither names one.
    """
    if said or account.project:
        return said or account.project
    raise UsageError(
        "it is not known which project of Google Cloud to use",
        next='set project = "…" in [gcp] of onebox.toml, or: '
        "gcloud config set project …",
    )
