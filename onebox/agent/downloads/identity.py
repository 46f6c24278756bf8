"""Get a token of the identity that the cloud gives to the box, from its metadata."""

from __future__ import annotations

import json
import os
import threading
import time

from ..preemption_notice import SERVICE, Address, request

# A client sends this instead of a token, which it does not have.
BOX_IDENTITY = "the identity of the box"
_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
# A token is replaced this many seconds before it expires.
_EARLY = 60.0
_lock = threading.Lock()
_token, _expires = "", 0.0


def authorization() -> str:
    """
    Return the header that authorizes a request to Google as the box's service account.

    Compute Engine, "Authenticate workloads": the token is valid for about an hour.

    Raises:
        OSError: The metadata service has no token, because the box has no identity.
    """
    global _token, _expires
    with _lock:
        if time.monotonic() > _expires:
            headers = {"Metadata-Flavor": "Google"}
            status, body = request(_address(), "GET", _PATH, headers)
            if status != 200:
                raise OSError("the box has no identity (HTTP %d)" % status)
            try:
                answer = json.loads(body)
                token = str(answer["access_token"])
                seconds = float(answer["expires_in"])
            except (ValueError, KeyError, TypeError) as error:
                raise OSError("no token of the box: %r" % error) from error
            _token, _expires = token, time.monotonic() + seconds - _EARLY
        return "Bearer " + _token


def _address() -> Address:
    """Return the address of the metadata service; Google's tools read the variable."""
    host, _, port = os.environ.get("GCE_METADATA_HOST", "").partition(":")
    return (host, int(port or "80")) if host else SERVICE
