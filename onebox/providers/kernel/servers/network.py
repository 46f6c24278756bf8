"""
Keep the firewall of each box, and find an owner's objects that cost nothing.

Each box has its own firewall, so boxes with different settings never share a rule. The
firewall is created before the box and deleted after it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from onebox import formatting
from onebox.errors import NotAllowed, ProviderError
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.metadata import check_same_owner
from onebox.providers.kernel.servers.api import (
    FIREWALL,
    SSH_KEY,
    Resource,
    ServerAPI,
)
from onebox.providers.kernel.servers.deletion import destroy
from onebox.providers.kernel.servers.instances import check_resource
from onebox.providers.values import FreeObject, Tags

# The creation of a box takes less than an hour. So a firewall that is older and has no
# box is left over from a crash.
STALE_SECONDS = 3600.0


def ensure(api: ServerAPI, tags: Tags, box: str, networks: Sequence[str]) -> bool:
    """
    Open the box's ssh port to these networks only, with a new firewall if needed.

    Return whether a rule changed.
    """
    found = api.resources(FIREWALL, "box", box)
    if not found:
        try:
            api.create_firewall(tags, box, networks)
            return True
        except Exists:
            # An earlier call, whose response was lost, has created it.
            lag = api.timeouts.consistency_lag
            found = (
                api.poller.until(lambda: api.resources(FIREWALL, "box", box), lag) or []
            )
    if not found:
        raise NotAllowed(f"another firewall has the name of box {box}")
    for firewall in found:
        check_resource(firewall, tags.owner, box)
    for double in found[1:]:
        destroy(api, double)
    if sorted(api.networks(found[0])) == sorted(networks):
        return False
    api.set_networks(found[0], networks)
    return True


def remove(api: ServerAPI, tags: Tags, box: str) -> None:
    """Delete the firewall of a box whose creation failed."""
    for firewall in api.resources(FIREWALL, "box", box):
        check_resource(firewall, tags.owner, box)
        destroy(api, firewall)


def remove_stale(
    api: ServerAPI, owner: str, boxes: Callable[[], Collection[str]]
) -> None:
    """
    Delete the owner's old firewalls that a crash has left without a box.

    Args:
        boxes: Returns the ids of the owner's boxes, whose firewalls stay.
    """
    old = [one for one in api.resources(FIREWALL, "owner", owner) if _is_old(api, one)]
    # The boxes are listed only if there is an old firewall. Usually there is none,
    # which saves an API call.
    live = boxes() if old else ()
    for firewall in old:
        if firewall.pairs.get("box") not in live:
            destroy(api, firewall)


def free_objects(
    api: ServerAPI, owner: str, live: Collection[str], gone: Collection[str]
) -> list[FreeObject]:
    """
    Return the owner's firewalls and ssh keys.

    Each object carries the reason why it must stay, if there is one.

    Args:
        live: The ids of the owner's boxes.

        gone: The ids of boxes that are certainly not being created now.
    """
    found = []
    for firewall in api.resources(FIREWALL, "owner", owner):
        box, why = firewall.pairs.get("box", ""), ""
        if box in live:
            why = f"{box} uses it"
        elif box not in gone and not _is_old(api, firewall):
            why = f"{box} may still be created; after an hour, it is not"
        found.append(FreeObject(FIREWALL, firewall.id, why=why))
    why = f"{formatting.first_names(sorted(live))} may need it again" if live else ""
    return found + [
        FreeObject(SSH_KEY, k.id, why=why)
        for k in api.resources(SSH_KEY, "owner", owner)
    ]


def remove_free(
    api: ServerAPI, owner: str, kind: str, id: str, live: Collection[str]
) -> None:
    """
    Delete a firewall or an ssh key; an object that is gone is no error.

    Raises:
        NotAllowed: The object belongs to another owner.

        ProviderError: A box needs the object.
    """
    found = api.resource(kind, id)
    if found is None:
        return
    check_same_owner(f"{kind} {id}", found.pairs.get("owner", ""), owner)
    if kind == FIREWALL and found.pairs.get("box") in live:
        raise ProviderError(f"{found.pairs['box']} uses it")
    if kind == SSH_KEY and live:
        raise ProviderError(f"{formatting.first_names(sorted(live))} may need it")
    destroy(api, found)


def _is_old(api: ServerAPI, firewall: Resource) -> bool:
    # A firewall whose time of creation is unknown counts as new, so that it is kept.
    return 0.0 < firewall.created < api.clock() - STALE_SECONDS
