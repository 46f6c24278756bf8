"""Find the servers of a box, and turn a server into a `Box`."""

from __future__ import annotations

from collections.abc import Iterable

from onebox.errors import Gone
from onebox.providers.kernel.metadata import check_owner, identity
from onebox.providers.kernel.servers.api import Resource, Server, ServerAPI
from onebox.providers.values import Box, Tags


def owned(api: ServerAPI, box: Box) -> Server:
    """
    Return the server of a box.

    Raises:
        Gone: The server does not exist any more.

        NotAllowed: A server with this box id carries the tags of another box.
    """
    found = api.servers("box", box.id)
    if not found:
        raise Gone(f"box {box.id} does not exist any more", next="inv status")
    check_servers(found, box.tags, box.id)
    return found[0]


def check_servers(servers: Iterable[Server], tags: Tags, box: str) -> None:
    """Raise NotAllowed unless every server carries the tags of this box."""
    for server in servers:
        stored = server.stored
        found = None if stored is None else identity(stored.tags, stored.box)
        check_owner(f"{server.kind} {server.id}", found, identity(tags, box))


def check_resource(resource: Resource, owner: str, box: str) -> None:
    """
    Raise NotAllowed if a resource belongs to another box or another owner.

    A resource without an owner belongs to its box, because the id of a box is random.
    """
    found = {"owner": owner, **resource.pairs}
    what = f"{resource.kind} {resource.id}"
    check_owner(what, found, {"owner": owner, "box": box})


def read_box(
    server: Server, notes: tuple[str, ...], stopped_note: str, jump: str, now: float
) -> Box | None:
    """
    Return a server as a `Box`, None if the server does not belong to onebox.

    Args:
        stopped_note: A further note for a box that is powered off.
    """
    stored, why = server.stored, ""
    if stored is None:
        return None
    if server.state == "stopped":
        notes = (stopped_note, *notes)
        why = "deadline" if now >= stored.deadline else "poweroff"
    return stored.to_box(
        state=(
            "starting"
            if server.state == "running" and not server.host
            else server.state
        ),
        offer=stored.offer,
        created=server.created,
        host=server.host,
        why=why,
        notes=notes,
        jump=jump,
    )
