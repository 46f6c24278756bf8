"""
The Compute Engine API client: each call returns a response or raises a OneboxError.

Each call has a timeout, and is repeated as `kernel.retry` describes. A call that
changes something carries the same `requestId` in all its attempts (a few methods accept
none). So it takes effect at most once, even if a response is lost and the call is
repeated.

`google.api_core.retry.Retry` is not used, for three reasons. It ignores Retry-After. It
has one common budget for throttled calls and for lost responses. If the response to the
first attempt is lost and the second attempt is refused, it raises the refusal, although
the first attempt may have taken effect. The other clouds need the same policy without
Google's library.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from onebox.errors import Gone, Unclear
from onebox.providers.gcp import credentials, errors, sdk
from onebox.providers.gcp.settings import GCPSettings
from onebox.providers.kernel.clock import ServerClock
from onebox.providers.kernel.errors import RetryAfter
from onebox.providers.kernel.retry import Retry
from onebox.providers.kernel.wait import Poller

_OPERATION_SECONDS = 600.0
# For this long, Google may answer that a new operation does not exist, because another
# of its servers does not know the operation yet.
_NEW_SECONDS = 20.0


class Cloud:
    """
    Compute Engine with one account's credentials, in one project.

    Attributes:
        clock: Returns the time (epoch seconds) by Google's clock.

        retry: The rule by which calls are repeated.

        poller: The loop that waits for a change of state.

    Args:
        clock: Returns the time of this machine (epoch seconds).

        sleep: Pauses for a number of seconds.

        timeout: How long a call may go without receiving data, in seconds.
    """

    def __init__(
        self,
        settings: GCPSettings,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        timeout: float = 30.0,
    ) -> None:
        self.settings = settings
        self.clock = ServerClock(clock)
        self.retry = Retry(
            sleep,
            first_pause=0.5,
            longest_pause=16.0,
            throttled_seconds=120.0,
            longest_demanded=16.0,
        )
        self.poller = Poller(sleep, first=0.4, longest=2.0)
        self._timeout = timeout
        self._clients: dict[str, Any] = {}

    @cached_property
    def account(self) -> credentials.Account:
        """Return the user's credentials. Raises NotAllowed if there are none."""
        return credentials.find()

    @cached_property
    def project(self) -> str:
        """Return the id of Google's project. Raises UsageError if none is set."""
        return credentials.project(self.account, self.settings.project)

    def ask(self, service: str, method: str, doing: str, **fields: Any) -> Any:
        """
        Make a call that changes nothing.

        Args:
            doing: What the call is for, as in "looking for ob-1".

        Raises:
            Gone: The resource does not exist.
        """
        return self._call(service, method, doing, fields, changes=False)

    def ask_named(self, service: str, method: str, doing: str, **fields: Any) -> Any:
        """
        Make a call that reads a resource which the settings name.

        Raises UsageError if the name is wrong.
        """
        return self._call(service, method, doing, fields, changes=False, named=True)

    def list(
        self, service: str, doing: str, method: str = "list", **fields: Any
    ) -> Iterator[Any]:
        """Yield the items on all pages of the response to a list call."""
        for page in self._pages(service, method, doing, fields):
            yield from page.items

    def everywhere(self, service: str, doing: str, **fields: Any) -> Iterator[Any]:
        """
        Yield the resources of a service (such as "disks") in all zones or regions.

        Raises:
            Unclear: A zone or region does not answer, so its resources are unknown.
        """
        for page in self._pages(service, "aggregated_list", doing, fields):
            for place, scope in page.items.items():
                if scope.warning.code == "UNREACHABLE":
                    raise Unclear(
                        f"{place} does not answer Google's own API ({doing}), so its "
                        f"{service} are unknown",
                        next="try again later",
                    )
                yield from getattr(scope, service)

    def change(
        self,
        service: str,
        method: str,
        doing: str,
        *,
        token: str | None = "",
        named: bool = False,
        **fields: Any,
    ) -> Any:
        """
        Make a call that changes something; return the operation that it began.

        Args:
            token: The idempotency token of the call. With "" a random token is used.
                With None no token is sent, for methods that accept none.

            named: Whether the call names resources that the user has chosen. A wrong
                name is a UsageError then.

        Raises:
            Unclear: The call may have taken effect, because a response was lost or
                Google's API failed.
        """
        if token is not None:
            fields["request_id"] = request_id(token)
        return self._call(
            service, f"{method}_unary", doing, fields, changes=True, named=named
        )

    def wait(
        self,
        operation: Any,
        doing: str,
        seconds: float = _OPERATION_SECONDS,
        seen: Callable[[Any], None] = lambda latest: None,
    ) -> None:
        """
        Wait until an operation is done.

        Args:
            seen: Is called with each state of the operation that Google returns.

        Raises:
            ProviderError: The operation has failed.

            Unclear: The operation is not done after *seconds*, or Google does not know
                it.
        """
        began = time.monotonic()
        # The first look examines *operation* itself, which saves a request if the
        # operation is done already.
        responses = [operation]

        def look() -> Any:
            try:
                latest = responses.pop() if responses else self._look(operation, doing)
            except Gone as error:
                if time.monotonic() - began > _NEW_SECONDS:
                    raise Unclear(error.message, next="inv status") from error
                return None
            seen(latest)
            return latest if _status(latest) == "DONE" else None

        done = self.poller.until(look, seconds)
        if done is None:
            raise Unclear(
                f"{doing}: Google has not finished after {seconds:.0f} s "
                f"(operation {operation.name})",
                next="inv status shows whether it has finished since",
            )
        if done.error.errors or done.http_error_status_code:
            raise errors.of_operation(done.error.errors, doing)

    def do(self, service: str, method: str, doing: str, **fields: Any) -> None:
        """Make a call that changes something, and wait until its operation is done."""
        self.wait(self.change(service, method, doing, **fields), doing)

    def _look(self, operation: Any, doing: str) -> Any:
        place: dict[str, str] = {}
        kind = "global"
        # The operation may be in another project than ours: firewall rules of a shared
        # network are created in the project that owns the network.
        project = re.search(r"/projects/([^/]+)/", operation.self_link)
        if project:
            place["project"] = project[1]
        for name in ("zone", "region"):
            url = getattr(operation, name)
            if url:
                kind = name
                place[name] = last(url)
                break
        return self.ask(
            f"{kind}_operations", "get", doing, operation=operation.name, **place
        )

    def _pages(
        self, service: str, method: str, doing: str, fields: dict[str, Any]
    ) -> Iterator[Any]:
        token = ""
        while True:
            more = {"page_token": token} if token else {}
            query = {**fields, **more}
            page = self._call(service, method, doing, query, changes=False, named=True)
            yield page
            token = page.next_page_token
            if not token:
                return

    def _call(
        self,
        service: str,
        method: str,
        doing: str,
        fields: dict[str, Any],
        *,
        changes: bool,
        named: bool = False,
    ) -> Any:
        request = {"project": self.project, **fields}

        def attempt() -> Any:
            try:
                call = getattr(self._client(service), method)
                return call(request=request, timeout=self._timeout, retry=None)
            except sdk.failures() as cause:
                error = errors.of_call(cause, doing, changes=changes, named=named)
                error.__cause__ = cause
                pause = errors.retry_after(cause)
                raise (error if pause is None else RetryAfter(error, pause)) from cause

        return self.retry.call(attempt)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            endpoint = self.settings.endpoint.rstrip("/")
            client = sdk.client(service)(
                credentials=self.account.credentials,
                client_options={"api_endpoint": endpoint} if endpoint else None,
            )
            sdk.listen(client, self.clock.correct)
            self._clients[service] = client
        return self._clients[service]


def request_id(token: str) -> str:
    """Return the UUID to send for a token. If the token is "", the UUID is random."""
    return str(uuid.uuid5(_SPACE, token) if token else uuid.uuid4())


def last(url: str) -> str:
    """Return the name at the end of a resource's URL."""
    return url.rpartition("/")[2]


def _status(operation: Any) -> str:
    return str(getattr(operation.status, "name", operation.status))


# This namespace is constant, so that a token gives the same UUID on every machine.
_SPACE = uuid.UUID("6f6e6562-6f78-5000-8000-676370000000")
