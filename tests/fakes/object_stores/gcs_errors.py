"""The errors of Google Cloud Storage, in JSON and in XML."""

from __future__ import annotations

import json

from tests.fakes.object_stores.messages import Reply
from tests.fakes.object_stores.s3_errors import text

_BEARER = 'Bearer realm="https://accounts.google.com/"'
# The reason in JSON and the code in XML of an error that a test requests.
_USUAL = {
    400: ("badRequest", "InvalidArgument", "Invalid argument."),
    401: ("authError", "AuthenticationRequired", "Invalid Credentials"),
    403: ("forbidden", "AccessDenied", "Access denied."),
    404: ("notFound", "NoSuchKey", "The specified key does not exist."),
    408: ("requestTimeout", "RequestTimeout", "Request timed out."),
    412: (
        "conditionNotMet",
        "PreconditionFailed",
        "At least one of the pre-conditions you specified did not hold.",
    ),
    429: (
        "rateLimitExceeded",
        "SlowDown",
        "The object exceeded the rate limit for object mutation operations (create, "
        "update, and delete). Please reduce your request rate.",
    ),
    500: (
        "internalError",
        "InternalError",
        "We encountered an internal error. Please try again.",
    ),
    502: ("backendError", "BadGateway", "Error 502 (Server Error)!!1"),
    503: ("backendError", "ServiceUnavailable", "Service unavailable."),
}


class GoogleError(Exception):
    """
    A refusal.

    Args:
        reason: The reason in JSON, "" for the usual one.

        code: The code in XML, "" for the usual one.

        details: A further sentence, which XML has.
    """

    def __init__(
        self,
        status: int,
        message: str = "",
        reason: str = "",
        code: str = "",
        details: str = "",
    ) -> None:
        usual = _USUAL.get(status, ("error", "Error", "Error"))
        self.status = status
        self.message = message or usual[2]
        self.reason, self.code = reason or usual[0], code or usual[1]
        self.details = details
        self.more: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.anonymous = False
        super().__init__(f"{self.code}: {self.message} {details}")


def permission(who: str, action: str, where: str = "object") -> GoogleError:
    """Return the refusal of a permission that the caller lacks."""
    sentence = (
        f"{who} does not have {action} access to the Google Cloud Storage {where}. "
        f"Permission '{action}' denied on resource (or it may not exist)."
    )
    error = GoogleError(403, "Access denied.", details=sentence)
    if who.startswith("Anonymous"):
        # The JSON API asks for credentials.
        error.reason, error.anonymous = "required", True
    return error


def no_object(bucket: str, key: str) -> GoogleError:
    """Return the refusal of an object that does not exist."""
    error = GoogleError(404, code="NoSuchKey")
    error.details = f"No such object: {bucket}/{key}"
    return error


def no_bucket() -> GoogleError:
    """Return the refusal of a bucket that does not exist."""
    return GoogleError(404, "The specified bucket does not exist.", code="NoSuchBucket")


def as_json(error: GoogleError) -> Reply:
    """Return the response of the JSON API."""
    status = 401 if error.anonymous else error.status
    # The JSON API has one sentence, the more precise one.
    message = error.details or error.message
    one = {"message": message, "domain": "global", "reason": error.reason}
    headers = {"Content-Type": "application/json; charset=UTF-8", **error.headers}
    if status == 401:
        one |= {"locationType": "header", "location": "Authorization"}
        wrong = ', error="invalid_token"' if error.reason == "authError" else ""
        headers["WWW-Authenticate"] = _BEARER + wrong
    body = {"error": {"code": status, "message": message, "errors": [one]}}
    return Reply(status, headers, json.dumps(body).encode())


def as_xml(error: GoogleError) -> Reply:
    """Return the response of the XML API."""
    fields = {"Code": error.code, "Message": error.message, **error.more}
    if error.details:
        fields["Details"] = error.details
    inner = "".join(f"<{name}>{text(value)}</{name}>" for name, value in fields.items())
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error>{inner}</Error>"
    headers = {"Content-Type": "application/xml; charset=UTF-8", **error.headers}
    return Reply(error.status, headers, body.encode())
