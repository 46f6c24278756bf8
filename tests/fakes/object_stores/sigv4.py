"""Check AWS Signature Version 4 by hand: in a header, in a link, and of a form."""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote_to_bytes

from tests.fakes.object_stores.messages import Request
from tests.fakes.object_stores.s3_errors import (
    RefusedError,
    bad_parameters,
    iso,
    malformed,
    unknown_key,
    unsupported,
)

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
_SKEW = 900
_WEEK = 604800
_HEADER = re.compile(
    rf"{ALGORITHM} Credential=([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]+)"
)


@dataclass
class Credential:
    """
    An access key.

    Attributes:
        token: The session token of temporary credentials, "" for a user's own key.

        expires: When they expire, in seconds since the epoch, None for never.

        denied: Pairs of an action such as "s3:GetObject" and a prefix of
            "bucket/key"; they add to those of the store.
    """

    key: str
    secret: str
    token: str = ""
    expires: float | None = None
    denied: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True)
class Signed:
    """
    A valid signature.

    Attributes:
        payload: The hash of the body that is signed, or a word that stands for none.
    """

    credential: Credential
    region: str
    payload: str


@dataclass(frozen=True)
class _Claim:
    scope: str
    headers: str
    signature: str
    date: str
    token: str
    payload: str
    expires: int | None = None


def check(
    request: Request, credentials: Mapping[str, Credential], region: str, now: float
) -> Signed | None:
    """
    Return the valid signature of a request, None if it has none at all.

    Args:
        region: That of the bucket.

        now: The time of the server's clock.

    Raises:
        RefusedError: The signature, its time, or the credentials are not valid.
    """
    query = dict(request.pairs)
    authorization = request.header("Authorization")
    if "X-Amz-Algorithm" in query and authorization:
        raise RefusedError(
            400,
            "InvalidArgument",
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query "
            "parameter, Signature query string parameter or the Authorization header "
            "should be specified",
        )
    if {"AWSAccessKeyId", "Signature"} <= set(query) or re.match("AWS ", authorization):
        raise unsupported()
    if "X-Amz-Algorithm" in query:
        claim = _of_link(request, query)
    elif authorization:
        claim = _of_header(request, authorization)
    else:
        return None
    credential, date, scope_region = _scope(
        claim.scope, credentials, region, claim.expires is not None
    )
    _check_time(claim, now)
    if not claim.date.startswith(date):
        raise malformed("Invalid credential date.")
    check_token(credential, claim.token, now)
    canonical = _canonical(request, claim)
    scope = claim.scope.partition("/")[2]
    to_sign = "\n".join(
        [ALGORITHM, claim.date, scope, hashlib.sha256(canonical).hexdigest()]
    )
    if not hmac.compare_digest(
        signature(credential.secret, date, scope_region, to_sign), claim.signature
    ):
        raise RefusedError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you "
            "provided. Check your key and signing method.",
            AWSAccessKeyId=credential.key,
            StringToSign=to_sign,
            SignatureProvided=claim.signature,
            CanonicalRequest=canonical.decode(),
        )
    _check_headers(request, claim)
    _check_payload(request, claim.payload)
    return Signed(credential, scope_region, claim.payload)


def signature(secret: str, date: str, region: str, text: str) -> str:
    """Return the signature of a text for S3."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def check_form(
    fields: Mapping[str, str],
    credentials: Mapping[str, Credential],
    region: str,
    now: float,
) -> Credential:
    """Return the credential that has signed the policy of a form."""
    if "x-amz-algorithm" not in fields:
        if "awsaccesskeyid" in fields:
            raise unsupported()
        raise RefusedError(403, "AccessDenied", "Access Denied")
    for name in ("policy", "x-amz-credential", "x-amz-date", "x-amz-signature"):
        if name not in fields:
            raise RefusedError(
                400,
                "InvalidArgument",
                f"Bucket POST must contain a field named '{name}'.",
                ArgumentName=name,
            )
    credential, date, scope_region = _scope(
        fields["x-amz-credential"], credentials, region, True
    )
    check_token(credential, fields.get("x-amz-security-token", ""), now)
    expected = signature(credential.secret, date, scope_region, fields["policy"])
    if not hmac.compare_digest(expected, fields["x-amz-signature"]):
        raise RefusedError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you "
            "provided. Check your key and signing method.",
            AWSAccessKeyId=credential.key,
            StringToSign=fields["policy"],
        )
    return credential


def check_token(credential: Credential, token: str, now: float) -> None:
    """Refuse a missing, wrong or expired session token."""
    if credential.token and not token:
        raise unknown_key(credential.key)
    if token != credential.token:
        raise RefusedError(
            400,
            "InvalidToken",
            "The provided token is malformed or otherwise invalid.",
        )
    if credential.expires is not None and now >= credential.expires:
        raise RefusedError(400, "ExpiredToken", "The provided token has expired.")


def _of_link(request: Request, query: Mapping[str, str]) -> _Claim:
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise bad_parameters('X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"')
    names = ("Credential", "Date", "Expires", "SignedHeaders", "Signature")
    for name in names:
        if f"X-Amz-{name}" not in query:
            raise bad_parameters(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, "
                "X-Amz-Credential, X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, "
                "and X-Amz-Expires parameters."
            )
    text = query["X-Amz-Expires"]
    if not re.fullmatch("-?[0-9]+", text):
        raise bad_parameters("X-Amz-Expires should be a number")
    if int(text) < 0:
        raise bad_parameters("X-Amz-Expires must be non-negative")
    if int(text) > _WEEK:
        raise bad_parameters(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given "
            "X-Amz-Expires must be less than 604800 seconds"
        )
    return _Claim(
        query["X-Amz-Credential"],
        query["X-Amz-SignedHeaders"],
        query["X-Amz-Signature"],
        query["X-Amz-Date"],
        query.get("X-Amz-Security-Token", ""),
        query.get("X-Amz-Content-Sha256", UNSIGNED),
        int(text),
    )


def _of_header(request: Request, authorization: str) -> _Claim:
    match = _HEADER.fullmatch(authorization)
    if not match:
        raise RefusedError(
            400,
            "AuthorizationHeaderMalformed",
            "The authorization header that you provided is not valid.",
        )
    date, payload = request.header("x-amz-date"), request.header("x-amz-content-sha256")
    if not date:
        raise RefusedError(
            403,
            "AccessDenied",
            "AWS authentication requires a valid Date or x-amz-date header",
        )
    if not payload:
        raise RefusedError(
            400,
            "InvalidRequest",
            "Missing required header for this request: x-amz-content-sha256",
        )
    token = request.header("x-amz-security-token")
    scope, headers, signature = match.groups()
    return _Claim(scope, headers, signature, date, token, payload)


def _scope(
    scope: str, credentials: Mapping[str, Credential], region: str, link: bool
) -> tuple[Credential, str, str]:
    """Return credential, date and region of a scope."""
    parts = scope.split("/")
    if len(parts) != 5 or parts[3:] != ["s3", "aws4_request"]:
        raise malformed(
            'The Credential is mal-formed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/'
            'SERVICE/aws4_request".'
        )
    key, date, found = parts[:3]
    if key not in credentials:
        raise unknown_key(key)
    if region and found != region:
        code, what = (
            ("AuthorizationQueryParametersError", "Error parsing the X-Amz-Credential")
            if link
            else (
                "AuthorizationHeaderMalformed",
                "The authorization header is malformed",
            )
        )
        what += " parameter" if link else ""
        message = f"{what}; the region '{found}' is wrong; expecting '{region}'"
        raise RefusedError(400, code, message, Region=region)
    return credentials[key], date, found


def _check_time(claim: _Claim, now: float) -> None:
    try:
        signed = calendar.timegm(time.strptime(claim.date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise malformed(
            "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""
        ) from None
    if claim.expires is None:
        if abs(now - signed) > _SKEW:
            raise RefusedError(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too "
                "large.",
                RequestTime=claim.date,
                ServerTime=iso(now),
                MaxAllowedSkewMilliseconds=_SKEW * 1000,
            )
    elif now > signed + claim.expires:
        raise RefusedError(
            403,
            "AccessDenied",
            "Request has expired",
            **{"X-Amz-Expires": claim.expires},
            Expires=iso(signed + claim.expires),
            ServerTime=iso(now),
        )
    elif now + _SKEW < signed:
        raise RefusedError(
            403,
            "AccessDenied",
            "Request is not yet valid",
            **{"X-Amz-Date": iso(signed)},
            ServerTime=iso(now),
        )


def _canonical(request: Request, claim: _Claim) -> bytes:
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in request.pairs
        if name != "X-Amz-Signature"
    )
    headers = ""
    for name in claim.headers.split(";"):
        values = request.headers.get_all(name, [])
        text = ",".join(" ".join(str(one).split()) for one in values)
        headers += f"{name}:{text}\n"
    return "\n".join(
        [
            request.method,
            quote(unquote_to_bytes(request.raw_path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            headers,
            claim.headers,
            claim.payload,
        ]
    ).encode()


def _check_headers(request: Request, claim: _Claim) -> None:
    signed = set(claim.headers.split(";"))
    present = {"host", *(name.lower() for name in request.headers)}
    missing = sorted(
        name
        for name in present - signed
        if name == "host" or name.startswith("x-amz-")
        # The hash of the body is part of what is signed.
        if name != "x-amz-content-sha256"
    )
    if missing:
        raise RefusedError(
            403,
            "AccessDenied",
            "There were headers present in the request which were not signed",
            HeadersNotSigned=", ".join(missing),
        )


def _check_payload(request: Request, payload: str) -> None:
    if payload == UNSIGNED or payload == "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
        return
    if payload.startswith("STREAMING-"):
        raise RefusedError(
            501, "NotImplemented", f"this fake does not check chunks of {payload}"
        )
    actual = hashlib.sha256(request.body).hexdigest()
    if actual != payload:
        raise RefusedError(
            400,
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was "
            "computed.",
            ClientComputedContentSHA256=payload,
            S3ComputedContentSHA256=actual,
        )
