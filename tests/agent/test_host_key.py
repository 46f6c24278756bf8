"""A box generates a new host key, and the request can be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.remote.channel import AgentError
from onebox.remote.keys import new_host_key
from tests.fakes.agent_box import AgentBox


@pytest.fixture
def key(agent_box: AgentBox, tmp_path: Path) -> Path:
    """The file of a box's first host key. (tests/machines tests this with sshd.)"""
    path = tmp_path / "host_key"
    path.write_text(new_host_key(tmp_path).private)
    path.chmod(0o600)
    agent_box.describe(host_key=str(path))
    return path


def test_hostkey_new_is_repeatable(agent_box: AgentBox, key: Path) -> None:
    """A client that was killed after the first answer gets the same key again."""
    first = key.read_text()
    with agent_box.connect() as link:
        public = link.request("hostkey_new")["public"]
    with agent_box.connect() as link:
        assert link.request("hostkey_new")["public"] == public
    assert public.startswith("ssh-ed25519 ")
    assert key.read_text() == first
    names = {path.name for path in key.parent.glob("host_key*")}
    assert names == {"host_key", "host_key.new"}
    assert key.with_name("host_key.new").stat().st_mode & 0o077 == 0


def test_an_incomplete_key_is_replaced(agent_box: AgentBox, key: Path) -> None:
    """Incomplete key files of a killed agent are replaced with a complete key."""
    for name in ("host_key.new", "host_key.draft", "host_key.draft.pub"):
        key.with_name(name).write_text("half")
    with agent_box.connect() as link:
        assert link.request("hostkey_new")["public"].startswith("ssh-ed25519 ")


def test_a_key_of_another_box_is_refused(agent_box: AgentBox, key: Path) -> None:
    """A key that this box did not generate is refused, and nothing changes."""
    first = key.read_text()
    with agent_box.connect() as link:
        link.request("hostkey_new")
        with pytest.raises(AgentError, match="no host key 'ssh-ed25519 AAAA'"):
            link.request("hostkey_use", public="ssh-ed25519 AAAA")
    assert key.read_text() == first


def test_a_box_that_generated_its_own_host_key_keeps_it(agent_box: AgentBox) -> None:
    """If no host key was in the user data, there is nothing to replace."""
    with agent_box.connect() as link:
        with pytest.raises(AgentError, match="generated its host keys itself"):
            link.request("hostkey_new")
