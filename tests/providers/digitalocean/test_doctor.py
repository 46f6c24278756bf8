"""The checks of `inv doctor` for a DigitalOcean account."""

from __future__ import annotations

import re

import pytest

from onebox.errors import UsageError
from onebox.providers.values import Check
from tests.fakes.digitalocean.server import ENDING, READ_ONLY, TOKEN, Server

from .conftest import MakeProvider


def lines(provider_of: MakeProvider, **settings: object) -> dict[str, Check]:
    """Return the checks by their names."""
    found = provider_of(**settings).checks()
    assert all(one.next for one in found if one.ok is False)
    assert not any(TOKEN in f"{one.detail}{one.next}" for one in found)
    return {one.name: one for one in found}


def test_checks_of_a_good_account_pass(
    server: Server, make_provider: MakeProvider
) -> None:
    """Only the line about the deadline is a remark."""
    found = lines(make_provider)
    assert {name for name, one in found.items() if one.ok is None} == {"deadline"}
    assert not any(one.ok is False for one in found.values())
    assert found["droplets"].detail == "0 of 25 in use"
    assert "g-40vcpu-160gb" in found["sizes"].detail
    assert not server.account.all_droplets
    assert not server.account.firewalls
    assert not server.account.tags


def test_a_check_without_a_response_is_a_remark(
    server: Server, make_provider: MakeProvider
) -> None:
    """It proves nothing about a box, so it is no failure."""
    server.fail("GET", "sizes", "500 before", times=99)
    found = lines(make_provider)
    assert found["sizes"].ok is None
    assert "not known" in found["sizes"].detail
    assert not any(one.ok is False for one in found.values())


def test_an_api_without_any_response_fails(
    server: Server, make_provider: MakeProvider
) -> None:
    """No run would work either."""
    server.fail("GET", ".*", "500 before", times=999)
    [line] = lines(make_provider).values()
    assert (line.name, line.ok) == ("token", False)


def test_missing_scopes_are_named(server: Server, make_provider: MakeProvider) -> None:
    """Those for reads, and those for changes."""
    server.scopes[TOKEN] = re.compile(r"(?!firewall|droplet:delete|tag:create).*")
    found = lines(make_provider)
    assert found["scopes"].ok is False
    for scope in ("firewall:read", "firewall:create", "droplet:delete", "tag:create"):
        assert scope in found["scopes"].detail
    assert "droplet:create" not in found["scopes"].detail
    assert "droplet:create" in found["scopes"].next


def test_a_read_only_token_is_recognized(
    server: Server, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lacks the scopes for changes only."""
    monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", READ_ONLY)
    found = lines(make_provider)
    assert found["token"].ok
    assert found["scopes"].ok is False
    assert "droplet:create" in found["scopes"].detail


def test_a_wrong_token_is_one_line(
    server: Server, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else can be checked with it."""
    monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", "dop_v1_wrong")
    found = lines(make_provider)
    assert list(found) == ["token"]
    assert found["token"].ok is False


def test_a_missing_token_is_one_line(
    server: Server, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the variable."""
    monkeypatch.delenv("DIGITALOCEAN_ACCESS_TOKEN")
    assert "DIGITALOCEAN_ACCESS_TOKEN" in lines(make_provider)["token"].next


def test_a_token_without_the_account_scope_is_a_remark(
    server: Server, make_provider: MakeProvider
) -> None:
    """The other checks follow."""
    server.scopes[TOKEN] = re.compile(r"(?!account).*")
    found = lines(make_provider)
    assert found["token"].ok is None
    assert found["droplets"].ok is None


def test_a_full_account_fails_before_a_create(
    server: Server, make_provider: MakeProvider
) -> None:
    """The line gives the limit of droplets."""
    server.account.behavior.droplet_limit = 0
    found = lines(make_provider)
    assert found["droplets"].ok is False
    assert found["droplets"].detail == "0 of 0 in use"


def test_a_locked_account_fails(server: Server, make_provider: MakeProvider) -> None:
    """It creates no droplets."""
    server.account.behavior.status = "locked"
    assert lines(make_provider)["token"].ok is False


@pytest.mark.parametrize("region", ["ams2", "nowhere1"])
def test_a_region_without_droplets_fails(
    server: Server, make_provider: MakeProvider, region: str
) -> None:
    """The line names the regions that have them."""
    found = lines(make_provider, region=region, regions=())
    assert found["region"].ok is False
    assert region in found["region"].detail
    assert "fra1" in found["region"].next
    assert found["sizes"].ok is False


def test_a_check_shows_what_ends_the_billing(
    server: Server, make_provider: MakeProvider
) -> None:
    """It differs with the settings."""
    assert lines(make_provider)["deadline"].ok is None
    no = lines(make_provider, accept_no_watchdog=False)["deadline"]
    assert no.ok is False
    assert "destroy_token" in no.next
    ends = lines(make_provider, destroy_token="DO_END", environ={"DO_END": ENDING})
    assert ends["deadline"].ok
    assert lines(make_provider, destroy_token="DO_END")["deadline"].ok is False


def test_a_check_shows_which_addresses_reach_ssh(
    server: Server, make_provider: MakeProvider
) -> None:
    """An uncertain address of this machine fails."""

    def unknown() -> str:
        raise UsageError("the address is not certain", next="set ssh_cidr")

    assert lines(make_provider)["ssh"].detail == "from 198.51.100.7/32"
    assert lines(make_provider, ssh_cidr=None, my_ip=unknown)["ssh"].ok is False
    world = lines(make_provider, ssh_cidr="0.0.0.0/0", allow_world_ssh=True)
    assert world["ssh"].ok is None


def test_an_unreachable_api_makes_lines(
    server: Server, make_provider: MakeProvider
) -> None:
    """No exception is raised."""
    server.fail("GET", ".*", "500 before", times=10_000)
    assert lines(make_provider)["token"].ok is False


def test_the_printed_scopes_are_enough(
    make_provider: MakeProvider, server: Server
) -> None:
    """A token with them can do everything that a box needs."""
    allowed = make_provider().policy().split()
    used = {"droplet:create", "droplet:delete", "firewall:create", "tag:delete"}
    assert used <= set(allowed)
    assert len(set(allowed)) == len(allowed)
