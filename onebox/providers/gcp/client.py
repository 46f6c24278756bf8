"""
Ask Compute Engine, so that every call ends: in an answer, or in an error of ours.

Each call has a timeout. What may succeed later is tried again, after pauses that
grow; a call that changes something carries one `requestId` through all its tries,
so that it takes effect at most once, whichever of the answers was lost.
"""

from __future__ import annotations

import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from onebox.errors import Gone, NotAllowed, OneboxError, Throttled, Unclear
from onebox.providers.gcp import credentials, errors, sdk
from onebox.providers.gcp.settings import Settings
from onebox.providers.kernel.clock import ServerClock

# How often a call is made that gets no answer, and one that is told to wait.
_TRIES_LOST = 4
_TRIES_LATER = 8
_LONGEST_PAUSE = 16.0
# How soon, and then how often, an operation is looked at.
_LOOK_FIRST = 0.4
_LOOK_LATER = 2.0
_OPERATION_SECONDS = 600.0
# An operation that has just begun may not be known everywhere yet.
_NEW_SECONDS = 20.0


class Cloud:
    """
    Compute Engine as one account and one project see it.

    Attributes:
        clock: Returns the time (epoch seconds) by Google's clock.

    Args:
        clock: Returns the time here.

        sleep: Waits; tests wait less.

        timeout: For how many seconds one call may be silent.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        timeout: float = 30.0,
    ) -> None:
        self.settings = settings
        self.clock = ServerClock(clock)
        self.sleep = sleep
        self._timeout = timeout
        self._clients: dict[str, Any] = {}

    @cached_property
    def account(self) -> credentials.Account:
        """Return the credentials in use. Raises NotAllowed."""
        return credentials.find()

    @cached_property
    def project(self) -> str:
        """Return the project in use. Raises UsageError if none is known."""
        return credentials.project(self.account, self.settings.project)

    def ask(self, service: str, method: str, doing: str, **fields: Any) -> Any:
        """
        Make a call that changes nothing.

        Args:
            doing: What for, as in "looking for ob-1".

        Raises:
            Gone: What was asked for is not there.
        """
        return self._call(service, method, doing, fields, changes=False)

    def ask_named(self, service: str, method: str, doing: str, **fields: Any) -> Any:
        """Make a call about a name of the user's. Raises UsageError if it is wrong."""
        return self._call(service, method, doing, fields, changes=False, named=True)

    def list(
        self, service: str, doing: str, method: str = "list", **fields: Any
    ) -> Iterator[Any]:
        """Yield everything that a list holds, page after page."""
        for page in self._pages(service, method, doing, fields):
            yield from page.items

    def everywhere(self, service: str, doing: str, **fields: Any) -> Iterator[Any]:
        """
        Yield what there is in all zones or regions, page after page.

        Raises:
            Unclear: One of them cannot say what it holds.
        """
        for page in self._pages(service, "aggregated_list", doing, fields):
            for place, scope in page.items.items():
                if scope.warning.code == "UNREACHABLE":
                    raise Unclear(
                        f"{place} does not answer Google's own API ({doing}): what "
                        "is there is not known",
                        next="later, once more",
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
        Begin to change something, and return the operation.

        Args:
            token: What makes this call and its repetitions one; random if "".
                None where the method takes no request id.

            named: Names of the user's are in it; a wrong one is a UsageError.

        Raises:
            Unclear: No answer came, in all tries.
        """
        if token is not None:
            fields["request_id"] = request_id(token)
        return self._call(
            service, f"{method}_unary", doing, fields, changes=True, named=named
        )

    def wait(
        self, operation: Any, doing: str, seconds: float = _OPERATION_SECONDS
    ) -> None:
        """
        Wait until an operation is done.

        Raises:
            ProviderError: It has failed.

            Unclear: It is not done after so many seconds, or it is not known.
        """
        began, pause = time.monotonic(), _LOOK_FIRST
        while _status(operation) != "DONE":
            waited = time.monotonic() - began
            if waited > seconds:
                raise Unclear(
                    f"{doing}: Google has not finished after {seconds:.0f} s "
                    f"(operation {operation.name})",
                    next="inv status tells whether it has later",
                )
            self.sleep(pause)
            pause = min(pause * 1.3, _LOOK_LATER)
            try:
                operation = self._look(operation, doing)
            except Gone as error:
                if waited > _NEW_SECONDS:
                    raise Unclear(error.message, next="inv status") from error
        if operation.error.errors or operation.http_error_status_code:
            raise errors.of_operation(operation.error.errors, doing)

    def do(self, service: str, method: str, doing: str, **fields: Any) -> None:
        """Change something, and wait until that is done."""
        self.wait(self.change(service, method, doing, **fields), doing)

    def _look(self, operation: Any, doing: str) -> Any:
        place: dict[str, str] = {}
        kind = "global"
        # A shared network's rules are made in its own project.
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
            asked = {**fields, **more}
            page = self._call(service, method, doing, asked, changes=False, named=True)
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
        lost = tries = 0
        while True:
            try:
                call = getattr(self._client(service), method)
                return call(request=request, timeout=self._timeout, retry=None)
            except sdk.failures() as error:
                failure = errors.of_call(error, doing, changes=changes)
                tries += 1
                lost += failure.lost
                spent = tries >= _TRIES_LATER or lost >= _TRIES_LOST
                if not failure.again or spent:
                    raise _error(failure, named, lost, changes) from error
                self.sleep(_pause(tries, failure.wait))

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            endpoint = self.settings.endpoint.rstrip("/")
            client = sdk.client(service)(
                credentials=self.account.credentials,
                client_options={"api_endpoint": endpoint} if endpoint else None,
            )
            sdk.listen(client, self.clock.heard)
            self._clients[service] = client
        return self._clients[service]


def request_id(token: str) -> str:
    """Return the UUID that makes one call of a token, or a new one."""
    return str(uuid.uuid5(_SPACE, token) if token else uuid.uuid4())


def last(url: str) -> str:
    """Return the name at the end of a resource's address."""
    return url.rpartition("/")[2]


class Exists(OneboxError):
    """What was to be made is there already, or something of its name."""


def _error(
    failure: errors.Failure, named: bool, lost: int, changes: bool
) -> OneboxError:
    if failure.status == 409:
        return Exists(failure.error.message)
    if changes and lost and isinstance(failure.error, (NotAllowed, Throttled)):
        # An earlier try got no answer: it may have done what it was to do.
        return Unclear(failure.error.message, next=failure.error.next)
    return errors.wrong_name(failure) if named else failure.error


def _status(operation: Any) -> str:
    return str(getattr(operation.status, "name", operation.status))


def _pause(tries: int, wait: float | None) -> float:
    """Return how long to wait: what the server says, else up to twice as long."""
    if wait is not None:
        return min(wait, _LONGEST_PAUSE)
    return random.uniform(0, min(0.5 * 2**tries, _LONGEST_PAUSE))  # noqa: S311 - no secret


# Any constant: so that a box id is the same UUID everywhere.
_SPACE = uuid.UUID("6f6e6562-6f78-5000-8000-676370000000")
