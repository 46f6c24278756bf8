"""
Register the ssh key that a create call names, so that no password is mailed.

If a create call names no ssh key, DigitalOcean mails a root password to the user. The
registered key only prevents this mail, because the box gets its key from its user data.
onebox registers one key for each owner, with the owner in the key's name, and removes
it when the owner has no box left. If the user has registered the same key under another
name, that registration is used and stays.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress

from onebox.errors import Gone, ProviderError
from onebox.providers.digitalocean.client import Answer, Cloud
from onebox.providers.kernel.errors import Exists
from onebox.providers.kernel.metadata import check_same_owner, without_comment


def ensure(cloud: Cloud, owner: str, public: str) -> str:
    """Register the key in the account unless it is there; return its fingerprint."""
    known = fingerprint(public)
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


def fingerprint(public: str) -> str:
    """
    Return the MD5 fingerprint by which the API identifies a public key.

    >>> fingerprint("ssh-ed25519 AAAA")
    '69:3e:9a:f8:4d:3d:fc:c7:1e:64:0e:00:5b:dc:5e:2e'
    """
    try:
        blob = base64.b64decode(public.split()[1], validate=True)
    except (IndexError, ValueError):
        raise ProviderError(f"{public[:40]!r} is not an ssh public key") from None
    digits = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def _name(owner: str) -> str:
    return f"onebox-{owner}"
