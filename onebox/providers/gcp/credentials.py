"""Find the application-default credentials of Google's own tools, and the project."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from datetime import timezone
from typing import Any

from onebox.errors import SetupError
from onebox.providers.gcp import errors, sdk

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@dataclass(frozen=True)
class Account:
    """Credentials for Google; *project* is the project that they name, or ""."""

    credentials: Any = field(repr=False)
    project: str

    @property
    def who(self) -> str:
        """
        Return a text with the kind of the credentials and the name of their account.
        """
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
        """
        Return when the credentials expire (epoch seconds).

        Return None if they are renewed automatically, or if the time is unknown.
        """
        expiry = getattr(self.credentials, "expiry", None)
        # Only a user's login without a refresh token cannot be renewed. Other kinds of
        # credentials have no `refresh_token` attribute, and renew themselves.
        renews = getattr(self.credentials, "refresh_token", "by other means")
        if expiry is None or renews:
            return None
        return float(expiry.replace(tzinfo=timezone.utc).timestamp())


def find() -> Account:
    """
    Return the application-default credentials.

    Raises:
        NotAllowed: There are no credentials, or they cannot be read.
    """
    auth = sdk.auth()
    try:
        with warnings.catch_warnings():
            # The library warns about a login without a quota project. onebox does not
            # need a quota project.
            warnings.simplefilter("ignore")
            credentials, project = auth.default(scopes=[_SCOPE])
    except sdk.failures() as error:
        raise errors.no_credentials(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # The library raises any of these for a file that is not a key file.
        raise errors.no_credentials(f"{type(error).__name__}: {error}") from error
    return Account(credentials, str(project or ""))


def project(account: Account, configured: str) -> str:
    """
    Return the project that onebox.toml names, or else that of the credentials.

    Raises:
        SetupError: No project is named in onebox.toml or in the credentials.
    """
    if configured or account.project:
        return configured or account.project
    raise SetupError(
        "no project of Google Cloud is set",
        next='set project = "…" in [gcp] of onebox.toml, or: '
        "gcloud config set project …",
    )
