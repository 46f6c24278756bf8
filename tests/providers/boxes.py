"""Requests, images and waiting, for the tests of every provider."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.providers.base import Provider
from onebox.providers.kernel.metadata import without_comment
from onebox.providers.kernel.timeouts import Timeouts
from onebox.providers.values import (
    BootConfig,
    Box,
    HostKey,
    Image,
    Offer,
    Request,
    Tags,
)
from onebox.remote.channel import AgentChannel
from onebox.remote.connection import SSHConnection
from tests.fakes.machines.boxes import UP as UP

from .sshbox import Keys

# A function that returns a new request; its keywords replace fields of the request.
MakeRequest = Callable[..., Request]

# An agent that does nothing: these tests are not the agent's.
AGENT = b"import time\ntime.sleep(3600)\n"
LOCAL_OFFER = Offer("small", "this machine", 1, 1 << 30, 0.0, 0.0)
# Long enough for a loaded machine; only a test that hangs reaches it.
HANGS = 120.0

# The clouds of simple servers have these. The limits are long enough for a loaded
# machine, the pauses short.
SERVER_TIMEOUTS = Timeouts(
    connect=5,
    read=20,
    attempts=4,
    first_pause=0.01,
    throttled=2.5,
    consistency_lag=0.8,
    poll_interval=0.02,
    shutdown=0.3,
    action=20,
    image=20,
    deletion=20,
)


def request_maker(
    keys: Keys, offer: Offer = LOCAL_OFFER, *, base: str = ""
) -> MakeRequest:
    """
    Return a function that returns requests for new boxes of one new owner.

    Args:
        offer: The offer of every request, unless a keyword replaces it.
    """
    stem = secrets.token_hex(4)
    numbers = itertools.count(1)

    def make_request(**changes: object) -> Request:
        deadline = time.time() + 3600
        public = without_comment(keys.public("host"))
        request = Request(
            box=f"ob-{stem}{next(numbers):02}",
            tags=Tags(f"owner-{stem}", "project-1", "main", deadline, "0"),
            offer=offer,
            image=None,
            user_key=keys.public("user"),
            host_key=HostKey(keys.private("host"), public),
            boot_config=BootConfig(deadline, 600, 600, AGENT, b"seed"),
            base=base,
        )
        return dataclasses.replace(request, **changes)  # type: ignore[arg-type] # any field

    return make_request


def when_up(provider: Provider, box: Box, *, pause: float = 0.02) -> Box:
    """Wait as `provision` does until a box is no longer starting; return the box."""
    end = time.monotonic() + HANGS
    while box.state == "starting":
        assert time.monotonic() < end, f"{box.id} does not come up"
        time.sleep(pause)
        box = provider.get(box.id, box.place) or box
    return box


def until_state(provider: Provider, box: Box, state: str) -> Box:
    """Wait until a box with a real machine is in a state; return it."""
    end = time.monotonic() + UP
    while True:
        now = provider.get(box.id, box.place)
        if now is not None and now.state == state:
            return now
        assert time.monotonic() < end, f"{box.id} is not {state}"
        time.sleep(0.2)


@contextlib.contextmanager
def open_channel(box: Box, ssh_key_file: Path, folder: Path) -> Iterator[AgentChannel]:
    """Connect to the agent of a box with a real machine."""
    ssh = SSHConnection(box, folder / "ssh", ssh_key_file)
    try:
        yield ssh.open_when_up(UP, lambda: None, lambda: None)
    finally:
        ssh.forget()


def image_of(request: Request, name: str = "image") -> Image:
    """Return the image to save a box of this request as."""
    return Image(
        id=f"im-{request.box}",
        name=name,
        recipe="0123456789abcdef",
        created=0.0,
        stored=0,
        arch="",
        tags=dataclasses.replace(request.tags, kind="image"),
    )


def public_key(fill: int) -> str:
    """Return an ed25519 public key whose 32 bytes all have the value *fill*."""
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes([fill]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode('ascii')}"


def remove_free_objects(provider: Provider, owner: str, *gone: str) -> None:
    """Delete the owner's free objects that no box uses, as a teardown does."""
    for resource in provider.free_objects(owner, gone):
        if not resource.why:
            provider.remove_free(owner, resource)


def forget_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the library requests reach a fake on loopback without a proxy."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
