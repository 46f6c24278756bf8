"""A box makes itself a new host key, and can be asked for it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.remote.channel import AgentError
from onebox.remote.keys import new_host_key

from .conftest import AgentBox


@pytest.fixture
def key(agent_box: AgentBox, tmp_path: Path) -> Path:
    """The file of a box's first host key. (With sshd: see tests/machines.)"""
    path = tmp_path / "host_key"
    path.write_text(new_host_key(tmp_path).private)
    path.chmod(0o600)
    agent_box.describe(host_key=str(path))
    return path


def test_asked_again_it_is_the_same(agent_box: AgentBox, key: Path) -> None:
    """A client that was killed after the first answer gets the same key again."""
    first = key.read_text()
    with agent_box.link() as link:
        public = link.ask("hostkey_new")["public"]
    with agent_box.link() as link:
        assert link.ask("hostkey_new")["public"] == public
    assert public.startswith("ssh-ed25519 ")
    assert key.read_text() == first
    names = {path.name for path in key.parent.glob("host_key*")}
    assert names == {"host_key", "host_key.new"}
    assert key.with_name("host_key.new").stat().st_mode & 0o077 == 0


def test_what_a_killed_agent_has_left(agent_box: AgentBox, key: Path) -> None:
    """Half a key is none: another one is made."""
    for name in ("host_key.new", "host_key.draft", "host_key.draft.pub"):
        key.with_name(name).write_text("half")
    with agent_box.link() as link:
        assert link.ask("hostkey_new")["public"].startswith("ssh-ed25519 ")


def test_only_its_own_keys(agent_box: AgentBox, key: Path) -> None:
    """A key that the box has not made is refused, and nothing changes."""
    first = key.read_text()
    with agent_box.link() as link:
        link.ask("hostkey_new")
        with pytest.raises(AgentError, match="no host key 'ssh-ed25519 AAAA'"):
            link.ask("hostkey_use", public="ssh-ed25519 AAAA")
    assert key.read_text() == first


def test_a_box_that_has_made_its_own(agent_box: AgentBox) -> None:
    """Where no key of ours went through user data there is nothing to replace."""
    with agent_box.link() as link:
        with pytest.raises(AgentError, match="generated its host keys itself"):
            link.ask("hostkey_new")
