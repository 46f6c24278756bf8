"""A secret is sent only to a port on which a process of this user listens."""

from __future__ import annotations

import os
import socket

import pytest

from onebox.remote import forwarding


def listener(user: int) -> socket.socket:
    """Listen on a free port of 127.0.0.1 as a user."""
    before = os.geteuid()
    os.seteuid(user)
    try:
        return socket.create_server((forwarding.HERE, 0))
    finally:
        os.seteuid(before)


@pytest.mark.fast
def test_listener_of_this_user_is_ours() -> None:
    """A port without a listener is not."""
    with listener(os.geteuid()) as server:
        port = server.getsockname()[1]
        assert forwarding.is_ours(port)
    assert not forwarding._LISTENERS.exists() or not forwarding.is_ours(port)


@pytest.mark.fast
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(not forwarding._LISTENERS.exists(), reason="needs /proc")
def test_listener_of_another_user_is_not_ours() -> None:
    """Another user could take the port of Jupyter, and would get its token."""
    with listener(65534) as server:
        assert not forwarding.is_ours(server.getsockname()[1])
