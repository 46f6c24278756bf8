"""The whole life of a box, in a process of its own that can be killed."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from pathlib import Path

from onebox.providers.base import BootConfig, Box, HostKey, Image, Offer, Request, Tags
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.digitalocean.settings import Settings

from ..boxes import when_up
from ..tables import table
from . import conftest
from .conftest import SETTINGS

TIMEOUTS = replace(conftest.TIMEOUTS, consistency_lag=0.3)
OWNER = "lifeowner"
BOX = "ob-life"


def public_key(fill: int) -> str:
    """Return an ed25519 public key, all of whose bytes are the same."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([fill]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode('ascii')}"


def request() -> Request:
    """Return the request for the box."""
    end = time.time() + 3600
    size = Offer("small", "g-4vcpu-16gb", 4, 16 << 30, 0.1875, 0.1875, place="nyc3")
    return Request(
        box=BOX,
        tags=Tags(OWNER, "project-1", "main", end, "0.1.0"),
        offer=replace(size, arch="x86_64"),
        image=None,
        user_key="ssh-ed25519 AAAA",
        host_key=HostKey("private", public_key(15)),
        boot_config=BootConfig(end, 600, 600, b"agent", b"seed"),
    )


def image(box: Box) -> Image:
    """Return what the box is saved as."""
    kind = replace(box.tags, kind="image")
    return Image("oi-life", "life", "0123", 0.0, 0, "x86_64", kind)


def live(provider: DigitalOcean) -> None:
    """Make a box, give it its key, save it, start it again, remove everything."""
    box = when_up(provider, provider.create(request()))
    box = provider.set_host_key(box, public_key(14))
    provider.stop(box)
    saved = provider.save(box, image(box))
    box = provider.start(box, box.deadline + 60)
    provider.delete(box)
    provider.delete_image(saved)


if __name__ == "__main__":
    live(DigitalOcean(table(Settings, SETTINGS), Path("/"), timeouts=TIMEOUTS))
    print("lived")
