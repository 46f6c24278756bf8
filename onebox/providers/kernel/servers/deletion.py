"""Delete a box, and list the objects that are left of it."""

from __future__ import annotations

from contextlib import suppress

from onebox.errors import Gone, Unclear
from onebox.providers.kernel.servers.api import Resource, ServerAPI
from onebox.providers.kernel.servers.instances import check_resource, check_servers
from onebox.providers.values import Box, Leftover


def delete(api: ServerAPI, box: Box) -> None:
    """
    Delete all servers of a box, and everything that belongs to the box.

    Raises:
        NotAllowed: A server with this box id carries the tags of another box; nothing
            was touched.

        Unclear: The servers still exist after the time limit.
    """
    servers = api.servers_to_delete(box)
    check_servers(servers, box.tags, box.id)
    for server in servers:
        api.before_delete(server)
    # A later command finds the box only by its servers. So the kinds in
    # `deleted_first`, which would go on being billed, are deleted before the servers,
    # in case of a crash.
    if api.deleted_first:
        _delete_belongings(api, box, first=True)
    for server in servers:
        destroy(api, server)
    _wait_until_gone(api, box.id)
    _delete_belongings(api, box, first=False)
    api.after_delete(servers)


def leftovers(api: ServerAPI, box: str) -> list[Leftover]:
    """
    Return the servers and resources of a box that still exist, with hourly prices.
    """
    found = [*api.servers("box", box), *api.belongings(box)]
    return [Leftover(one.kind, one.id, one.hourly) for one in found]


def destroy(api: ServerAPI, resource: Resource) -> None:
    """Delete a resource once it is not busy; a resource that is gone is no error."""
    with suppress(Gone):
        api.when_free(lambda: api.delete(resource), api.timeouts.deletion)


def _delete_belongings(api: ServerAPI, box: Box, *, first: bool) -> None:
    for resource in api.belongings(box.id):
        if (resource.kind in api.deleted_first) is first:
            check_resource(resource, box.tags.owner, box.id)
            destroy(api, resource)


def _wait_until_gone(api: ServerAPI, box: str) -> None:
    seconds = api.timeouts.deletion
    if not api.poller.until(lambda: not api.servers("box", box), seconds):
        raise Unclear(
            f"{box} still exists {seconds:.0f} s after its deletion",
            next="inv teardown again, then inv cleanup",
        )
