"""The callers of Google Cloud Storage: tokens, service accounts, and signed links."""

from __future__ import annotations

import base64
import binascii
import calendar
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote_to_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.fakes.object_stores.gcs_errors import GoogleError
from tests.fakes.object_stores.messages import Reply, Request

FULL = "https://www.googleapis.com/auth/devstorage.full_control"
CLOUD = "https://www.googleapis.com/auth/cloud-platform"
ALGORITHM = "GOOG4-RSA-SHA256"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_AUDIENCE = "https://storage.googleapis.com/"
# The SDK writes this into its assertions, whatever the key file names.
_TOKENS = "https://oauth2.googleapis.com/token"
_WEEK = 604800
_SKEW = 900


@dataclass
class Caller:
    """
    Who makes a request.

    Attributes:
        email: That of the service account.

        scopes: The OAuth scopes of the token; of a link, all.

        expires: When the token expires, in seconds since the epoch.

        denied: Pairs of a permission such as "storage.objects.get" and a prefix of
            "bucket/key"; they add to those of the store.
    """

    email: str
    scopes: frozenset[str] = frozenset({CLOUD})
    expires: float | None = None
    denied: set[tuple[str, str]] = field(default_factory=set)


class Accounts:
    """The service accounts, by their key files, and the tokens."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPublicKey] = {}
        self.tokens: dict[str, Caller] = {}
        self.denied: dict[str, set[tuple[str, str]]] = {}

    def trust(self, key_file: Path) -> str:
        """Accept what the key in a file signs; return the account's address."""
        content = json.loads(key_file.read_text("utf-8"))
        key = serialization.load_pem_private_key(content["private_key"].encode(), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        email = str(content["client_email"])
        self.keys[email] = key.public_key()
        return email

    def issue(self, email: str, scopes: frozenset[str], expires: float) -> str:
        """Return a new token."""
        token = f"ya29.{len(self.tokens)}-{hashlib.sha256(email.encode()).hexdigest()}"
        denied = self.denied.setdefault(email, set())
        self.tokens[token] = Caller(email, scopes, expires, denied)
        return token

    def exchange(self, request: Request, now: float) -> Reply:
        """Answer the token endpoint: a token for an assertion that a key has signed."""
        form = parse_qs(request.body.decode())
        try:
            if form["grant_type"] != [_GRANT]:
                raise GoogleError(400, f"grant_type must be {_GRANT}")
            claims = self._claims(form["assertion"][0], now)
            if claims["aud"] != _TOKENS:
                raise GoogleError(400, f"the audience {claims['aud']} is not this")
            scopes = frozenset(str(claims["scope"]).split())
        except (KeyError, GoogleError) as error:
            return _as_json(
                400, {"error": "invalid_grant", "error_description": str(error)}
            )
        token = self.issue(claims["iss"], scopes, now + 3599)
        return _as_json(
            200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"}
        )

    def bearer(self, request: Request, now: float) -> Caller | None:
        """Return the caller of a token, None without one."""
        header = request.header("Authorization")
        if not header:
            return None
        kind, _, token = header.partition(" ")
        if kind != "Bearer":
            raise GoogleError(401, "Invalid Credentials")
        caller = self.tokens.get(token)
        if caller is None:
            caller = self._self_signed(token, now)
        if caller is None or (caller.expires is not None and now >= caller.expires):
            raise GoogleError(401, "Invalid Credentials")
        return caller

    def link(self, request: Request, now: float) -> Caller:
        """Return the caller of a link with a V4 signature."""
        query = dict(request.pairs)
        names = ("Credential", "Date", "Expires", "SignedHeaders", "Signature")
        missing = [name for name in names if f"X-Goog-{name}" not in query]
        if query.get("X-Goog-Algorithm") != ALGORITHM or missing:
            raise _bad("Invalid or missing X-Goog-* query parameters", str(missing))
        scope = query["X-Goog-Credential"].rpartition("@")[2].split("/")
        email = query["X-Goog-Credential"].split("/")[0]
        date = query["X-Goog-Date"]
        if len(scope) != 5 or scope[3:] != ["storage", "goog4_request"]:
            raise _bad("Invalid credential scope", query["X-Goog-Credential"])
        if not date.startswith(scope[1]):
            raise _bad("The dates of scope and link differ", date)
        _check_link_time(date, query["X-Goog-Expires"], now)
        key = self.keys.get(email)
        canonical = _canonical(request, query)
        to_sign = "\n".join(
            [
                ALGORITHM,
                date,
                "/".join(scope[1:]),
                hashlib.sha256(canonical).hexdigest(),
            ]
        )
        if key is None or not _verify(key, query["X-Goog-Signature"], to_sign):
            error = GoogleError(
                403,
                "Access denied.",
                code="SignatureDoesNotMatch",
                details="The request signature we calculated does not match the "
                "signature you provided. Check your Google secret key and signing "
                "method.",
            )
            error.more = {
                "StringToSign": to_sign,
                "CanonicalRequest": canonical.decode(),
            }
            raise error
        signed = set(query["X-Goog-SignedHeaders"].split(";"))
        present = {name.lower() for name in request.headers}
        loose = sorted(
            name for name in present - signed if name.startswith(("x-goog-", "x-amz-"))
        )
        if loose or "host" not in signed:
            raise _bad("All x-goog-* headers must be signed", str(loose or ["host"]))
        return Caller(email, denied=self.denied.setdefault(email, set()))

    def _self_signed(self, token: str, now: float) -> Caller | None:
        """Return the caller of a token that the SDK has signed with a key."""
        try:
            claims = self._claims(token, now)
        except (KeyError, GoogleError):
            return None
        scopes = frozenset(str(claims.get("scope", "")).split())
        if not scopes and claims.get("aud") == _AUDIENCE:
            scopes = frozenset({CLOUD})
        email = str(claims["iss"])
        if not scopes or claims.get("sub") != email:
            return None
        return Caller(
            email, scopes, claims["exp"], self.denied.setdefault(email, set())
        )

    def _claims(self, token: str, now: float) -> Mapping[str, Any]:
        """Return the claims of a JSON web token with a valid signature."""
        parts = token.split(".")
        try:
            head, claims = (json.loads(_base64url(part)) for part in parts[:2])
            signature = _base64url(parts[2])
            key = self.keys[claims["iss"]]
        except (ValueError, KeyError, IndexError, TypeError):
            raise GoogleError(400, "not a token of a known account") from None
        text = ".".join(parts[:2])
        if head.get("alg") != "RS256" or not _verify(key, signature.hex(), text):
            raise GoogleError(400, "Invalid JWT Signature.")
        if not claims["iat"] - _SKEW <= now < claims["exp"] <= claims["iat"] + 3600:
            raise GoogleError(
                400,
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a "
                "reasonable timeframe.",
            )
        assert isinstance(claims, dict)
        return claims


def is_link(request: Request) -> bool:
    """Return whether a request is a signed link, of any version."""
    names = {name for name, _ in request.pairs}
    if {"GoogleAccessId", "Signature"} <= names:
        raise _bad("this fake has V4 signatures only", "GoogleAccessId")
    return "X-Goog-Signature" in names or "X-Goog-Algorithm" in names


def _canonical(request: Request, query: Mapping[str, str]) -> bytes:
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in request.pairs
        if name != "X-Goog-Signature"
    )
    names = query["X-Goog-SignedHeaders"].split(";")
    if names != sorted(names):
        raise _bad("the signed headers are not sorted", ";".join(names))
    headers = ""
    for name in names:
        values = request.headers.get_all(name, [])
        if not values:
            raise _bad("Header was included in signedheaders, but not sent", name)
        headers += f"{name}:{','.join(' '.join(str(v).split()) for v in values)}\n"
    payload = "UNSIGNED-PAYLOAD"
    if "x-goog-content-sha256" in names:
        payload = request.header("x-goog-content-sha256")
        if payload != hashlib.sha256(request.body).hexdigest():
            raise _bad("x-goog-content-sha256 is not that of the body", payload)
    return "\n".join(
        [
            request.method,
            quote(unquote_to_bytes(request.raw_path), safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            headers,
            query["X-Goog-SignedHeaders"],
            payload,
        ]
    ).encode()


def _check_link_time(date: str, expires: str, now: float) -> None:
    try:
        signed = calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        raise _bad("X-Goog-Date is no time", date) from None
    if not re.fullmatch("[0-9]+", expires) or not 0 < int(expires) <= _WEEK:
        raise _bad("X-Goog-Expires must be from 1 to 604800 seconds", expires)
    if now > signed + int(expires):
        end = time.strftime("%a, %d %b %Y %H:%M:%S", time.gmtime(signed + int(expires)))
        raise GoogleError(
            400,
            "Invalid argument.",
            code="ExpiredToken",
            details=f"The provided token has expired. Request signature expired at: "
            f"{end} GMT",
        )
    if now + _SKEW < signed:
        raise _bad("The link is not valid yet", date)


def _verify(key: rsa.RSAPublicKey, signature: str, text: str) -> bool:
    try:
        raw = binascii.unhexlify(signature)
        key.verify(raw, text.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def _as_json(status: int, body: Mapping[str, object]) -> Reply:
    headers = {"Content-Type": "application/json"}
    return Reply(status, headers, json.dumps(body).encode())


def _base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _bad(message: str, details: str) -> GoogleError:
    return GoogleError(400, message, code="InvalidArgument", details=details)
