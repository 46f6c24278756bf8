"""Create exactly one server, even if the response to the create call is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from onebox.errors import ProviderError, Unclear
from onebox.providers.kernel.errors import Failed
from onebox.providers.kernel.servers import deletion
from onebox.providers.kernel.servers.api import Server, ServerAPI
from onebox.providers.kernel.servers.instances import check_servers
from onebox.providers.values import Request


def create(api: ServerAPI, request: Request, call: Callable[[], Server]) -> Server:
    """
    Create the server of this request, at most once, and return it.

    These clouds have no idempotency tokens. If a call gets no response, onebox searches
    the lists for the tag of the box, for as long as the lists may lag behind. If no
    server shows, the call is repeated only if the API itself reported a failure. If the
    response was lost, it is not repeated, because the call may still take effect later.

    Raises:
        Unclear: The lists do not show the server, but it may appear later.
    """
    unclear: Unclear | None = None
    for _ in range(api.timeouts.create_attempts):
        try:
            server = call()
            if unclear is None:
                return server
            # The earlier call may have created a server too. The older server stays,
            # and the other one is deleted.
            return only_one(api, request, api.servers("box", request.box))
        except Unclear as error:
            unclear = error
        except ProviderError:
            found = api.servers("box", request.box) if unclear is not None else []
            if not found:
                raise
            return only_one(api, request, found)
        shown = _look_for(api, request)
        if shown:
            return only_one(api, request, shown)
        if not isinstance(unclear, Failed):
            break
    raise Unclear(
        f"{api.title} did not report whether it created {request.box}, which does not "
        f"show after {api.timeouts.consistency_lag:.0f} s",
        next="inv status, in a minute; inv cleanup finds it if it appears later",
    ) from unclear


def only_one(api: ServerAPI, request: Request, found: Sequence[Server]) -> Server:
    """Return the oldest of a box's servers, *found*, and delete the others."""
    check_servers(found, request.tags, request.box)
    for duplicate in found[1:]:
        deletion.destroy(api, duplicate)
    return found[0]


def _look_for(api: ServerAPI, request: Request) -> list[Server] | None:
    """
    Return the servers of a box as soon as the lists show one.

    Return None if the lists show none within the time that they may lag behind.
    """

    def look() -> list[Server] | None:
        with suppress(ProviderError):
            return api.servers("box", request.box)
        return None

    return api.poller.until(look, api.timeouts.consistency_lag)
