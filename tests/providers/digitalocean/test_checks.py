"""Doctor's lines: each thing that would keep a box from coming up, never an error."""

from __future__ import annotations

import re

import pytest

from onebox.errors import UsageError
from onebox.providers.base import Check

from .conftest import Open
from .server import ENDING, READ_ONLY, TOKEN, Server


def lines(provider_of: Open, **settings: object) -> dict[str, Check]:
    """Return doctor's lines by their names."""
    found = provider_of(**settings).checks()
    assert all(one.next for one in found if one.ok is False)
    assert not any(TOKEN in f"{one.detail}{one.next}" for one in found)
    return {one.name: one for one in found}


def test_all_is_well(server: Server, open_provider: Open) -> None:
    """In a good account every line is good; only the deadline is worth knowing."""
    found = lines(open_provider)
    assert {name for name, one in found.items() if one.ok is None} == {"deadline"}
    assert not any(one.ok is False for one in found.values())
    assert found["droplets"].detail == "0 of 25 in use"
    assert "g-40vcpu-160gb" in found["sizes"].detail
    assert not server.world.made
    assert not server.world.firewalls
    assert not server.world.tags


def test_question_without_an_answer_is_no_fault(
    server: Server, open_provider: Open
) -> None:
    """What the API does not answer is not known, which keeps nobody from a run."""
    server.fail("GET", "sizes", "500 before", times=99)
    found = lines(open_provider)
    assert found["sizes"].ok is None
    assert "not known" in found["sizes"].detail
    assert not any(one.ok is False for one in found.values())


def test_no_answer_at_all(server: Server, open_provider: Open) -> None:
    """Where not even the token is answered for, no run would work either."""
    server.fail("GET", ".*", "500 before", times=999)
    [line] = lines(open_provider).values()
    assert (line.name, line.ok) == ("token", False)


def test_scopes(server: Server, open_provider: Open) -> None:
    """Scopes that are missing are named, those to read and those to change."""
    server.scopes[TOKEN] = re.compile(r"(?!firewall|droplet:delete|tag:create).*")
    found = lines(open_provider)
    assert found["scopes"].ok is False
    for scope in ("firewall:read", "firewall:create", "droplet:delete", "tag:create"):
        assert scope in found["scopes"].detail
    assert "droplet:create" not in found["scopes"].detail
    assert "droplet:create" in found["scopes"].next


def test_read_only(
    server: Server, open_provider: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that may only read is told from one that may do all."""
    monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", READ_ONLY)
    found = lines(open_provider)
    assert found["token"].ok
    assert found["scopes"].ok is False
    assert "droplet:create" in found["scopes"].detail


def test_wrong_token(
    server: Server, open_provider: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is not accepted is one line: nothing else can be known."""
    monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", "dop_v1_wrong")
    found = lines(open_provider)
    assert list(found) == ["token"]
    assert found["token"].ok is False


def test_no_token(
    server: Server, open_provider: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing token is said, with the variable's name."""
    monkeypatch.delenv("DIGITALOCEAN_ACCESS_TOKEN")
    assert "DIGITALOCEAN_ACCESS_TOKEN" in lines(open_provider)["token"].next


def test_account_not_readable(server: Server, open_provider: Open) -> None:
    """A token without the scope for the account is fine, as far as it goes."""
    server.scopes[TOKEN] = re.compile(r"(?!account).*")
    found = lines(open_provider)
    assert found["token"].ok is None
    assert found["droplets"].ok is None


def test_limit(server: Server, open_provider: Open) -> None:
    """A full account is said to be full before a box is asked for."""
    server.world.laws.droplet_limit = 0
    found = lines(open_provider)
    assert found["droplets"].ok is False
    assert found["droplets"].detail == "0 of 0 in use"


def test_locked(server: Server, open_provider: Open) -> None:
    """An account that is locked makes no boxes."""
    server.world.laws.status = "locked"
    assert lines(open_provider)["token"].ok is False


@pytest.mark.parametrize("region", ["ams2", "nowhere1"])
def test_region(server: Server, open_provider: Open, region: str) -> None:
    """A region that takes no droplets is named, and those that do."""
    found = lines(open_provider, region=region, regions=())
    assert found["region"].ok is False
    assert region in found["region"].detail
    assert "fra1" in found["region"].next
    assert found["sizes"].ok is False


def test_deadline(server: Server, open_provider: Open) -> None:
    """Whether anything ends a box is a line of its own."""
    assert lines(open_provider)["deadline"].ok is None
    no = lines(open_provider, accept_no_watchdog=False)["deadline"]
    assert no.ok is False
    assert "destroy_token" in no.next
    ends = lines(open_provider, destroy_token="DO_END", environ={"DO_END": ENDING})
    assert ends["deadline"].ok
    assert lines(open_provider, destroy_token="DO_END")["deadline"].ok is False


def test_reach(server: Server, open_provider: Open) -> None:
    """From where ssh will be open is said; not to know is wrong."""

    def unknown() -> str:
        raise UsageError("the address is not certain", next="set ssh_cidr")

    assert lines(open_provider)["ssh"].detail == "from 203.0.113.7/32"
    assert lines(open_provider, ssh_cidr=None, address=unknown)["ssh"].ok is False
    world = lines(open_provider, ssh_cidr="0.0.0.0/0", allow_world_ssh=True)
    assert world["ssh"].ok is None


def test_down(server: Server, open_provider: Open) -> None:
    """An API that is down makes lines, not errors."""
    server.fail("GET", ".*", "500 before", times=10_000)
    assert lines(open_provider)["token"].ok is False


def test_policy(open_provider: Open, server: Server) -> None:
    """The scopes that are printed are enough for a box's whole life."""
    allowed = open_provider().policy().split()
    used = {"droplet:create", "droplet:delete", "firewall:create", "tag:delete"}
    assert used <= set(allowed)
    assert len(set(allowed)) == len(allowed)
