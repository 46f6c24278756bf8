"""
The OAuth scopes that limit what an attached service account can be used for.

The short names are those of `gcloud compute instances create --scopes`, as far as each
stands for one scope.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from onebox.settings.checks import InvalidValue
from onebox.settings.quoting import nearest, show, suggest

_AUTH = "https://www.googleapis.com/auth/"
# The scope of all APIs: then only the roles of the service account limit it.
ALL = "cloud-platform"
_NAMES = {
    "bigquery": "bigquery",
    ALL: "cloud-platform",
    "cloud-source-repos": "source.full_control",
    "cloud-source-repos-ro": "source.read_only",
    "compute-ro": "compute.readonly",
    "compute-rw": "compute",
    "datastore": "datastore",
    "logging-write": "logging.write",
    "monitoring": "monitoring",
    "monitoring-read": "monitoring.read",
    "monitoring-write": "monitoring.write",
    "pubsub": "pubsub",
    "service-control": "servicecontrol",
    "service-management": "service.management.readonly",
    "sql-admin": "sqlservice.admin",
    "storage-full": "devstorage.full_control",
    "storage-ro": "devstorage.read_only",
    "storage-rw": "devstorage.read_write",
    "taskqueue": "taskqueue",
    "trace": "trace.append",
    "userinfo-email": "userinfo.email",
}
_SHORT = {f"{_AUTH}{scope}": name for name, scope in _NAMES.items()}


def are_scopes(value: object) -> None:
    """Raise InvalidValue for a string that is neither a URL of Google nor a name."""
    assert isinstance(value, tuple)
    for item in value:
        if item not in _NAMES and not re.fullmatch(f"{_AUTH}[a-z0-9._-]+", item):
            raise InvalidValue(
                f"{show(item)} is not a scope such as {ALL}, storage-ro or "
                f"{_AUTH}devstorage.read_only{suggest(item, _NAMES)}",
                meant=nearest(item, _NAMES),
            )


def urls(scopes: Iterable[str]) -> list[str]:
    """
    Return the URLs of scopes; without any scope, the URL of all APIs.

    >>> urls(["storage-ro"]), urls([])[0].rpartition("/")[2]
    (['https://www.googleapis.com/auth/devstorage.read_only'], 'cloud-platform')
    """
    found = [f"{_AUTH}{_NAMES[one]}" if one in _NAMES else one for one in scopes]
    return list(dict.fromkeys(found)) or [f"{_AUTH}{ALL}"]


def identity(email: str, urls: Iterable[str]) -> str:
    """
    Return a service account with its scopes, unless they allow all APIs.

    >>> identity("me@p.iam.gserviceaccount.com", urls(["storage-ro"]))
    'me@p.iam.gserviceaccount.com (storage-ro)'
    """
    names = sorted({_SHORT.get(url, url) for url in urls})
    return email if ALL in names else f"{email} ({', '.join(names)})"
