"""
Name the owner's ssh key in the create call: without one a password is mailed.

The box itself has the key from its user data; DigitalOcean only wants to know one.
There is one of ours for each owner, made when it is needed and removed with the
owner's last box. The name says whose it is; a key of the same bytes that the user
has registered under another name is used as it is, and stays.
"""

from __future__ import annotations

import base64
import hashlib
from contextlib import suppress

from onebox.errors import Gone, NotAllowed, ProviderError
from onebox.providers.digitalocean.client import Answer, Calls
from onebox.providers.digitalocean.errors import Conflict


def ensure(calls: Calls, owner: str, public: str) -> str:
    """Have the key in the account; return the fingerprint that it is known by."""
    known = fingerprint(public)
    try:
        calls.get(f"account/keys/{known}")
    except Gone:
        words = " ".join(public.split()[:2])
        # Another command of ours, or a lost answer's own, may have been faster.
        with suppress(Conflict):
            body = {"name": _name(owner), "public_key": words}
            calls.post("account/keys", body, again=True)
    return known


def of_owner(calls: Calls, owner: str) -> list[Answer]:
    """Return the keys that were registered for this owner."""
    listed = calls.all("account/keys", "ssh_keys")
    return [one for one in listed if one.get("name") == _name(owner)]


def remove(calls: Calls, owner: str, id: str) -> None:
    """
    Remove one key of the owner's; already gone is fine.

    Raises:
        NotAllowed: It was not registered for this owner.
    """
    with suppress(Gone):
        found = calls.get(f"account/keys/{id}")["ssh_key"]
        if found.get("name") != _name(owner):
            raise NotAllowed(f"ssh key {id} is not this owner's; it was not touched")
        calls.delete(f"account/keys/{id}")


def fingerprint(public: str) -> str:
    """
    Return what DigitalOcean knows a public key by.

    >>> fingerprint("ssh-ed25519 AAAA")
    '69:3e:9a:f8:4d:3d:fc:c7:1e:64:0e:00:5b:dc:5e:2e'
    """
    try:
        blob = base64.b64decode(public.split()[1], validate=True)
    except (IndexError, ValueError):
        raise ProviderError(f"{public[:40]!r} is no ssh public key") from None
    digits = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def _name(owner: str) -> str:
    return f"onebox-{owner}"
