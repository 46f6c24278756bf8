"""
Reach boxes through Google's Identity-Aware Proxy (IAP), with `gcloud`.

IAP connects to the instance from one range of Google's own addresses. The command is
that of gcloud's reference, `compute start-iap-tunnel`; with `--listen-on-stdin` it
serves one connection on its stdin and stdout, as `gcloud compute ssh` uses it.
"""

from __future__ import annotations

from onebox import subprocess_env
from onebox.errors import SetupError
from onebox.providers.kernel import reach
from onebox.providers.kernel.reach import Tool, name
from onebox.providers.values import Check, Proxy

IAP = "iap"
# Identity-Aware Proxy, "Using IAP for TCP forwarding": all of IAP's connections come
# from this range.
NETWORK = "35.235.240.0/20"
PERMISSION = "iap.tunnelInstances.accessViaIAP"
_VARIABLES = ("CLOUDSDK_", "GOOGLE_")
# With one of these, gcloud uses other credentials than those of its logins.
_OTHER_LOGINS = {
    "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE",
    "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE",
}
_INSTALL = "install the gcloud CLI: https://cloud.google.com/sdk/docs/install"
_GCLOUD = Tool(
    "gcloud",
    _INSTALL,
    ("--version",),
    r"Google Cloud SDK (\d+)\.(\d+)\.(\d+)",
    (),
    _VARIABLES,
)
# Messages of gcloud for which it does not help to wait until the box has booted.
_REFUSALS = (
    r"\b4033\b|not authorized|PERMISSION_DENIED|Required '.*' permission|"
    r"active account|invalid_grant|Reauthentication|SERVICE_DISABLED|"
    r"has not been used in project|unrecognized arguments|Invalid choice"
)


def proxy(way: str, box: str, project: str, zone: str) -> Proxy | None:
    """
    Return the command that leads to an instance, None if ssh connects directly.

    Args:
        way: The value of `reach` with which the box was created.

        box: The name of the instance.
    """
    if way != IAP:
        return None
    words = [
        *("gcloud", "compute", "start-iap-tunnel", name(box), "22"),
        *("--listen-on-stdin", "--project", name(project), "--zone", name(zone)),
        # Otherwise gcloud prints advice about the speed of the tunnel.
        *("--verbosity", "error"),
    ]
    return Proxy(tuple(words), _VARIABLES, _REFUSALS, _INSTALL)


def require(way: str) -> None:
    """Raise SetupError if gcloud is missing or not logged in, but needed."""
    if way == IAP:
        reach.require([_GCLOUD])
        login()


def login() -> Check:
    """
    Return the line of `inv doctor` about the account that gcloud uses.

    gcloud has its own login, apart from the application-default credentials.

    Raises:
        SetupError: gcloud has no account.
    """
    if _OTHER_LOGINS & subprocess_env.environment(_VARIABLES).keys():
        return Check("gcloud login", True, "by a variable of CLOUDSDK_AUTH_")
    words = ["auth", "list", "--filter=status:ACTIVE", "--format=value(account)"]
    code, output = reach.run(["gcloud", *words], _VARIABLES)
    accounts = [line for line in output.splitlines() if "@" in line and " " not in line]
    if code or not accounts:
        raise SetupError(
            "gcloud has no active account; it does not use the application-default "
            "credentials",
            next="gcloud auth login",
        )
    return Check("gcloud login", True, accounts[0])


def version() -> Check:
    """Return the line of `inv doctor` about gcloud. Raises SetupError."""
    return _GCLOUD.check()
