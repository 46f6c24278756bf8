"""List the minimal scopes that the token needs on DigitalOcean."""

from __future__ import annotations

SCOPES = (
    "account:read",
    "droplet:create",
    "droplet:read",
    "droplet:update",
    "droplet:delete",
    "firewall:create",
    "firewall:read",
    "firewall:update",
    "firewall:delete",
    "image:create",
    "image:read",
    "image:update",
    "image:delete",
    "regions:read",
    "sizes:read",
    "snapshot:read",
    "snapshot:delete",
    "ssh_key:create",
    "ssh_key:read",
    "ssh_key:delete",
    "tag:create",
    "tag:read",
    "tag:delete",
)


def document() -> str:
    """
    Return the scopes, one per line, spelled as in DigitalOcean's form for a token.
    """
    return "\n".join(SCOPES)
