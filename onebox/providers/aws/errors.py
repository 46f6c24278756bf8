"""Turn AWS's error codes, and the exceptions of its SDK, into errors of onebox."""

from __future__ import annotations

import contextlib
import difflib
import re
import time
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onebox.errors import (
    Gone,
    NoCapacity,
    NoCredentials,
    NotAllowed,
    OneboxError,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unclear,
    UsageError,
)
from onebox.providers.kernel.clock import server_time
from onebox.providers.kernel.errors import Refusal, Rule, Unanswered, explain

if TYPE_CHECKING:
    from onebox.providers.aws.client import Cloud

_EXPIRED = "ExpiredToken(Exception)?|RequestExpired"
_CREDENTIALS = (
    f"{_EXPIRED}|AuthFailure|InvalidClientTokenId|UnrecognizedClientException"
    "|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidSignatureException"
    "|MissingAuthenticationToken(Exception)?|IncompleteSignature|RequestTimeTooSkewed"
)
_DENIED = (
    r"UnauthorizedOperation|AccessDenied(Exception)?|NotAuthorized|OptInRequired"
    r"|Blocked|AuthFailure\.ServiceLinkedRoleCreationNotPermitted"
    r"|OperationNotPermitted"
)
_ROLE = "AuthFailure.ServiceLinkedRoleCreationNotPermitted"
_POLICY = "inv doctor --policy prints the permissions that onebox needs"
_OWN = "{message} ({code})"
_SERVER_ERROR = range(500, 600)

_RULES = (
    Rule(
        NoCapacity,
        _OWN,
        code="Insufficient(Instance|Host|ReservedInstance)?Capacity",
        cause="no capacity",
    ),
    Rule(
        NoCapacity,
        _OWN,
        code="InsufficientFreeAddressesInSubnet",
        cause="no free address in the subnet",
    ),
    Rule(
        NoCapacity,
        _OWN,
        code="SpotMaxPriceTooLow",
        cause="spot costs more than the maximum price",
    ),
    # RunInstances answers with "Unsupported" if the zone does not offer the type.
    Rule(NoCapacity, _OWN, code="Unsupported", cause="not offered there"),
    Rule(
        Throttled,
        "AWS asks for fewer calls: {text}",
        code=r"(Client\.)?RequestLimitExceeded|Throttl(ing|ed)(Exception)?"
        r"|RequestThrottled(Exception)?|TooManyRequestsException|SlowDown",
        next="try again later",
    ),
    Rule(
        QuotaExceeded,
        _OWN,
        code=r"MaxSpotInstanceCountExceeded|PendingVerification|[\w.]*LimitExceeded",
        next="request an increase: https://console.aws.amazon.com/servicequotas",
        limit="{code}",
    ),
    Rule(
        NotAllowed,
        "the AWS credentials have expired ({code})",
        code=_EXPIRED,
        next="aws sso login, or renew them where they came from; then try again",
    ),
    Rule(
        NotAllowed,
        "AWS does not accept these credentials: {text}",
        code=_CREDENTIALS,
        next="inv doctor; a region that is not enabled for the account gives the same "
        "error",
    ),
    Rule(
        NotAllowed,
        "the first spot instance of an account needs a service-linked role, which "
        "these credentials may not create ({code})",
        code=re.escape(_ROLE),
        next="once, as an administrator: aws iam create-service-linked-role "
        "--aws-service-name spot.amazonaws.com",
    ),
    Rule(NotAllowed, "the account has no EC2: {text}", code="OptInRequired"),
    Rule(
        NotAllowed,
        "these credentials lack the permission {action} on {resource}, for {call} "
        "({code})",
        code=_DENIED,
        pattern=r"perform: (?P<action>[\w-]+:\w+) on resource: (?P<resource>\S+)",
        next=_POLICY,
    ),
    Rule(
        NotAllowed,
        "these credentials lack the permission {action}, for {call} ({code})",
        code=_DENIED,
        pattern=r"perform: (?P<action>[\w-]+:\w+)",
        next=_POLICY,
    ),
    Rule(
        NotAllowed,
        "these credentials lack the permission for {call} ({code})",
        code=_DENIED,
        next=_POLICY,
    ),
    Rule(
        Gone, code=r"Invalid\w+\.(NotFound|Unavailable)|ResourceNotFound\w*|NoSuch\w+"
    ),
    Rule(
        Unclear,
        "AWS failed, and the call may have taken effect: {text}",
        status=_SERVER_ERROR,
        changes=True,
    ),
    Rule(
        Unanswered, "AWS failed: {text}", status=_SERVER_ERROR, next="try again later"
    ),
    Rule(ProviderError, "AWS refused {text}"),
)

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
_BAD_CONFIGURATION = (
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
# Operations whose names begin with one of these prefixes change nothing.
_READS = ("describe_", "get_", "head_", "list_")

# AWS refuses a signature whose time is wrong by five minutes. AWS's error then blames
# the credentials, although the cause is the clock of this machine.
_SKEW_SECONDS = 240


def denied(error: BaseException) -> bool:
    """Return whether the credentials are valid but lack the permission for a call."""
    return bool(re.fullmatch(_DENIED, code(error)))


def code(error: BaseException) -> str:
    """Return AWS's own code for an error, "" if it has none."""
    response = getattr(error.__cause__, "response", None)
    return _code(response) if isinstance(response, dict) else ""


@contextlib.contextmanager
def explained(
    operation: str, region: str = "", cloud: Cloud | None = None
) -> Iterator[None]:
    """Raise the SDK's exceptions in the `with` block as errors of `onebox.errors`."""
    # The import is here because it takes half a second, which a command without calls
    # to AWS should not spend. The caller has imported the SDK already.
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    try:
        yield
    except exceptions.ClientError as error:
        call = f"{error.operation_name} in {region}" if region else error.operation_name
        raise _refused(error.response, call, operation) from error
    except (exceptions.BotoCoreError, ResponseParserError) as error:
        raise _without_response(error, operation, region, cloud) from error


def _refused(response: Mapping[str, Any], call: str, operation: str) -> OneboxError:
    """Return the error of onebox for an error response of AWS."""
    name = _code(response)
    skew = _skew(response)
    if abs(skew) > _SKEW_SECONDS and re.fullmatch(_CREDENTIALS, name):
        direction = "ahead of" if skew > 0 else "behind"
        return NotAllowed(
            f"the clock of this machine is {abs(skew) / 60:.0f} minutes {direction} "
            f"AWS's, which therefore refuses its signatures ({name})",
            next="set the clock",
        )
    refusal = Refusal(
        call,
        _plain(str(response.get("Error", {}).get("Message", ""))),
        name,
        int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)),
        changes=not operation.startswith(_READS),
    )
    return explain(_RULES, refusal)


def _without_response(
    error: Exception, operation: str, region: str, cloud: Cloud | None
) -> OneboxError:
    """Return the error for an exception without a usable response from AWS."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    detail = _plain(str(error))
    if isinstance(error, _classes(exceptions, _NO_CREDENTIALS)):
        return NoCredentials(
            f"there are no usable AWS credentials: {detail}",
            next="aws configure, aws sso login, or AWS_PROFILE; then inv doctor",
        )
    if isinstance(error, _classes(exceptions, _BAD_CONFIGURATION)):
        return UsageError(
            f"the AWS configuration cannot be used: {detail}",
            next="see ~/.aws/config, AWS_PROFILE and AWS_REGION",
        )
    if isinstance(error, _classes(exceptions, _NOT_REACHED)):
        # The host name of the API contains the region. With a wrong region, that host
        # does not exist and cannot be reached.
        if cloud is not None and region not in cloud.known_regions():
            return _no_region(region, cloud.known_regions())
        return Unanswered(
            f"AWS cannot be reached: {detail}",
            next="check the network, the proxy (HTTPS_PROXY) and AWS_CA_BUNDLE",
        )
    if isinstance(error, (exceptions.HTTPClientError, ResponseParserError)):
        text = f"no usable response from AWS to {operation} in {region}: {detail}"
        return (Unanswered if operation.startswith(_READS) else Unclear)(text)
    return ProviderError(f"the AWS SDK failed at {operation} in {region}: {detail}")


def _no_region(region: str, known: list[str]) -> UsageError:
    near = difflib.get_close_matches(region, known, 2)
    advice = f"did you mean {' or '.join(near)}?" if near else "see [aws] region"
    return UsageError(f"there is no AWS region {region}", next=advice)


def _classes(module: ModuleType, names: tuple[str, ...]) -> tuple[type[Exception], ...]:
    # Some versions of the SDK do not have all of these exception classes.
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


def _code(response: Mapping[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", ""))


def _skew(response: Mapping[str, Any]) -> float:
    """Return by how many seconds this machine's clock is ahead of the server's."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    there = server_time(headers.get("date"))
    return 0.0 if there is None else time.time() - there


def _plain(text: str) -> str:
    """Return a message on one line, without the encoded blob that AWS appends."""
    text = re.sub(r"\s*Encoded authorization failure message: \S+", "", text)
    return " ".join(text.split()).rstrip(".")[:400]
