"""The errors of S3, as documents in XML."""

from __future__ import annotations

from datetime import datetime, timezone

from tests.fakes.object_stores.messages import Reply

# The status of an error that a test requests, and its usual code.
CODES = {
    400: "RequestTimeout",
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "OperationAborted",
    429: "TooManyRequests",
    500: "InternalError",
    503: "SlowDown",
}
_MESSAGES = {
    "SlowDown": "Please reduce your request rate.",
    "InternalError": "We encountered an internal error. Please try again.",
    "ServiceUnavailable": "Please reduce your request rate.",
    "RequestTimeout": "Your socket connection to the server was not read from or "
    "written to within the timeout period. Idle connections will be closed.",
    "AccessDenied": "Access Denied",
}


class RefusedError(Exception):
    """A refusal: code, message, and further elements and headers of the response."""

    def __init__(self, status: int, code: str, message: str, **more: object) -> None:
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.more = {name: str(value) for name, value in more.items()}
        self.headers: dict[str, str] = {}


def refused(status: int, code: str) -> RefusedError:
    """Return a refusal with the usual message."""
    return RefusedError(status, code, _MESSAGES.get(code, code))


def denied(action: str, resource: str, caller: str) -> RefusedError:
    """Return the refusal of an action that no policy allows."""
    return RefusedError(
        403,
        "AccessDenied",
        f"User: {caller} is not authorized to perform: {action} on resource: "
        f'"arn:aws:s3:::{resource}" because no identity-based policy allows the '
        f"{action} action",
    )


def no_key(key: str) -> RefusedError:
    """Return the refusal of a key that does not exist."""
    return RefusedError(404, "NoSuchKey", "The specified key does not exist.", Key=key)


def no_bucket(name: str) -> RefusedError:
    """Return the refusal of a bucket that does not exist."""
    return RefusedError(
        404, "NoSuchBucket", "The specified bucket does not exist", BucketName=name
    )


def document(error: RefusedError, resource: str) -> Reply:
    """Return the response of a refusal."""
    fields = {
        "Code": error.code,
        "Message": error.message,
        **error.more,
        "Resource": resource,
        "RequestId": "4442587FB7D0A2F9",
        "HostId": "fake",
    }
    inner = "".join(f"<{name}>{text(value)}</{name}>" for name, value in fields.items())
    return xml(f"<Error>{inner}</Error>", error.status)


def xml(document: str, status: int = 200) -> Reply:
    """Return a response with a document."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'.encode()
    return Reply(status, {"Content-Type": "application/xml"}, body)


def text(value: str) -> str:
    """
    Return a text as S3 writes it into a document.

    A control character becomes a reference such as "&#x1;", which XML 1.0 does not
    allow, so that a client must ask for encoding-type=url.
    """
    for plain, reference in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        value = value.replace(plain, reference)
    value = value.replace('"', "&quot;")
    return "".join(one if one >= " " else f"&#x{ord(one):x};" for one in value)


def iso(seconds: float) -> str:
    """Return a time as S3's error documents write it."""
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def unknown_key(key: str) -> RefusedError:
    """Return the refusal of an access key that does not exist."""
    return RefusedError(
        403,
        "InvalidAccessKeyId",
        "The AWS Access Key Id you provided does not exist in our records.",
        AWSAccessKeyId=key,
    )


def unsupported() -> RefusedError:
    """Return the refusal of Signature Version 2."""
    # The regions that opened after 2014 refuse version 2, and so do we everywhere.
    return RefusedError(
        400,
        "InvalidRequest",
        "The authorization mechanism you have provided is not supported. Please use "
        "AWS4-HMAC-SHA256.",
    )


def bad_parameters(message: str) -> RefusedError:
    """Return the refusal of a signed link."""
    return RefusedError(400, "AuthorizationQueryParametersError", message)


def malformed(message: str) -> RefusedError:
    """Return the refusal of a signature that cannot be read."""
    return RefusedError(400, "AuthorizationHeaderMalformed", message)
