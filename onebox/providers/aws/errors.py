"""What an error of AWS's means, decided in this one place."""

from __future__ import annotations

import contextlib
import difflib
import email.utils
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    OneboxError,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unclear,
    UsageError,
)

if TYPE_CHECKING:
    from onebox.providers.aws.client import Cloud

_NONE = "no capacity"
# What is not to be had in a zone, and why in few words.
_CAPACITY = {
    "InsufficientInstanceCapacity": _NONE,
    "InsufficientHostCapacity": _NONE,
    "InsufficientReservedInstanceCapacity": _NONE,
    "InsufficientCapacity": _NONE,
    "InsufficientFreeAddressesInSubnet": "no free address in the subnet",
    "SpotMaxPriceTooLow": "spot costs more than the maximum price",
    # A type that this zone does not have, said by RunInstances.
    "Unsupported": "not offered there",
}
_QUOTA = {"MaxSpotInstanceCountExceeded", "PendingVerification"}
_THROTTLED = {
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "SlowDown",
    "Client.RequestLimitExceeded",
}
_CREDENTIALS = {
    "AuthFailure",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "IncompleteSignature",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_DENIED = {
    "UnauthorizedOperation",
    "AccessDenied",
    "AccessDeniedException",
    "NotAuthorized",
    "OptInRequired",
    "Blocked",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "OperationNotPermitted",
}
_GONE = re.compile(r"Invalid\w+\.(NotFound|Unavailable)|ResourceNotFound\w*|NoSuch\w+")
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "NoAuthTokenError",
    "SSOError",
    "LoginError",
    "RefreshWithMFAUnsupportedError",
)
_BAD_SETTINGS = (
    "ProfileNotFound",
    "ConfigParseError",
    "ConfigNotFound",
    "InvalidRegionError",
    "InvalidConfigError",
)
_NOT_REACHED = (
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ProxyConnectionError",
    "SSLError",
)
_READS = ("describe_", "get_", "list_")

# Beyond this AWS refuses signatures; the cause is then the clock of this machine.
_SKEW_SECONDS = 240


def denied(error: BaseException) -> bool:
    """Tell whether credentials are good, but not for this call."""
    return code(error) in _DENIED


class Unanswered(ProviderError):
    """AWS was not reached, or failed at a question: nothing has changed by it."""


@contextlib.contextmanager
def explained(
    what: str, region: str = "", cloud: Cloud | None = None
) -> Iterator[None]:
    """Turn the SDK's errors into ours."""
    # The SDK is there by the time that something is asked of it.
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        raise refused(error.response, error.operation_name, what, region) from error
    except (exceptions.BotoCoreError, ResponseParserError) as error:
        raise _not_answered(error, what, region, cloud) from error


def code(error: BaseException) -> str:
    """Return AWS's own code for an error, "" if it has none."""
    response = getattr(error.__cause__, "response", None)
    if not isinstance(response, dict):
        return ""
    return str(response.get("Error", {}).get("Code", ""))


def refused(
    response: Mapping[str, Any], call: str, operation: str, region: str
) -> OneboxError:
    """Return what a refusal amounts to."""
    name = str(response.get("Error", {}).get("Code", ""))
    said = _plain(str(response.get("Error", {}).get("Message", "")))
    where = f" in {region}" if region else ""
    text = f"{call}{where}: {said} ({name})" if said else f"{call}{where}: {name}"
    if name in _CAPACITY:
        return NoCapacity(f"{said} ({name})", cause=_CAPACITY[name])
    if name in _THROTTLED:
        return Throttled(f"AWS asks for fewer calls: {text}", next="later, once more")
    if name in _QUOTA or (name.endswith("LimitExceeded") and name not in _THROTTLED):
        return QuotaExceeded(
            f"{said} ({name})",
            next="ask for more: https://console.aws.amazon.com/servicequotas",
            limit=name,
        )
    if name in _EXPIRED or name in _CREDENTIALS:
        return _credentials(response, name, text)
    if name in _DENIED:
        return _denied(name, said, call, where)
    if _GONE.fullmatch(name):
        return Gone(text)
    if _status(response) >= 500:
        if operation.startswith(_READS):
            return Unanswered(f"AWS failed: {text}", next="later, once more")
        return Unclear(f"AWS failed, and may have done it: {text}")
    return ProviderError(f"AWS refused {text}")


def _denied(name: str, said: str, call: str, where: str) -> OneboxError:
    if "ServiceLinkedRole" in name:
        return NotAllowed(
            f"the first spot machine of an account needs a role of AWS's own, which "
            f"these credentials may not create ({name})",
            next="once, with an administrator's: aws iam create-service-linked-role "
            "--aws-service-name spot.amazonaws.com",
        )
    if name == "OptInRequired":
        return NotAllowed(f"this account has no EC2{where}: {said} ({name})")
    wanted = re.search(r"perform: ([\w-]+:\w+)(?: on resource: (\S+))?", said)
    action = wanted.group(1) if wanted else call
    on = f" on {wanted.group(2)}" if wanted and wanted.group(2) else ""
    return NotAllowed(
        f"these credentials may not do {action}{on}{where} ({name})",
        next="inv doctor --policy prints the permissions that onebox needs",
    )


def _credentials(response: Mapping[str, Any], name: str, text: str) -> OneboxError:
    skew = _skew(response)
    if abs(skew) > _SKEW_SECONDS:
        ahead = "ahead of" if skew > 0 else "behind"
        return NotAllowed(
            f"this machine's clock is {abs(skew) / 60:.0f} minutes {ahead} AWS's, "
            f"which refuses its signatures ({name})",
            next="set the clock",
        )
    if name in _EXPIRED:
        return NotAllowed(
            f"the AWS credentials have expired ({name})",
            next="aws sso login, or whatever gave them to you; then once more",
        )
    return NotAllowed(
        f"AWS does not accept these credentials: {text}",
        next="inv doctor; a region that the account has not enabled says the same",
    )


def _not_answered(
    error: Exception, what: str, region: str, cloud: Cloud | None
) -> OneboxError:
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    if isinstance(error, _named(exceptions, _NO_CREDENTIALS)):
        return NotAllowed(
            f"there are no usable AWS credentials: {_plain(str(error))}",
            next="aws configure, aws sso login, or AWS_PROFILE; then inv doctor",
        )
    if isinstance(error, _named(exceptions, _BAD_SETTINGS)):
        return UsageError(
            f"the AWS configuration cannot be used: {_plain(str(error))}",
            next="see ~/.aws/config, AWS_PROFILE and AWS_REGION",
        )
    if isinstance(error, _named(exceptions, _NOT_REACHED)):
        if cloud is not None and region not in cloud.known_regions():
            near = difflib.get_close_matches(region, cloud.known_regions(), 2)
            return UsageError(
                f"there is no AWS region {region}",
                next=f"did you mean {' or '.join(near)}?"
                if near
                else "see [aws] region",
            )
        return Unanswered(
            f"AWS cannot be reached: {_plain(str(error))}",
            next="see the network, a proxy (HTTPS_PROXY) and AWS_CA_BUNDLE",
        )
    text = f"{what} in {region}: {_plain(str(error))}"
    if isinstance(error, (exceptions.HTTPClientError, ResponseParserError)):
        if not what.startswith(_READS):
            return Unclear(f"no clear answer from AWS to {text}")
        return Unanswered(f"no clear answer from AWS to {text}")
    return ProviderError(f"AWS cannot be asked for {text}")


def _named(module: ModuleType, names: tuple[str, ...]) -> tuple[type[Exception], ...]:
    # Which errors there are depends on the SDK's version.
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


def _skew(response: Mapping[str, Any]) -> float:
    """Return by how many seconds this machine's clock is ahead of the server's."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        there = email.utils.parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return 0.0
    here = datetime.now(timezone.utc)
    return float((here - there).total_seconds()) if there.tzinfo else 0.0


def _plain(text: str) -> str:
    """Return a message without the blob that AWS appends, on one line."""
    text = re.sub(r"\s*Encoded authorization failure message: \S+", "", text)
    return " ".join(text.split()).rstrip(".")[:400]


def _status(response: Mapping[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
