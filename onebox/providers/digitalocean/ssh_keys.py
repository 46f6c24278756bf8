"""
Register the ssh key that a create call names, so that no password is mailed.

If a create call names no ssh key, DigitalOcean mails a root password to the user. The
registered key only prevents this mail, because the box gets its key from its user data.
onebox registers one key for each owner, with the owner in the key's name, and removes
it when the owner has no box left. If the user has registered the same key under another
name, that registration is used and stays.
"""

from __future__ import annotations

from contextlib import suppress

from onebox.errors import Gone
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.metadata import check_same_owner, without_comment
from onebox.providers.kernel.ssh_access import md5_fingerprint


def ensure(cloud: Cloud, owner: str, public: str) -> str:
    """Register the key in the account unless it is there; return its fingerprint."""
    known = md5_fingerprint(public)
    try:
        cloud.get(f"account/keys/{known}")
    except Gone:
        # If the API reports that the key exists, another command has registered it just
        # now, or an earlier call whose response was lost.
        with suppress(Exists):
            body = {"name": _name(owner), "public_key": without_comment(public)}
            cloud.post("account/keys", body, again=True)
    return known


def of_owner(cloud: Cloud, owner: str) -> list[Answer]:
    """Return the keys that were registered for this owner."""
    listed = cloud.all("account/keys", "ssh_keys")
    return [one for one in listed if one.get("name") == _name(owner)]


def remove(cloud: Cloud, owner: str, id: str) -> None:
    """
    Remove one of the owner's keys; a key that is gone is no error.

    Raises:
        NotAllowed: The key was registered for another owner.
    """
    with suppress(Gone):
        found = cloud.get(f"account/keys/{id}")["ssh_key"]
        check_same_owner(f"ssh key {id}", str(found.get("name")), _name(owner))
        cloud.delete(f"account/keys/{id}")


def _name(owner: str) -> str:
    return f"onebox-{owner}"
