"""The firewall of a box: only this machine reaches its ssh port."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from onebox.errors import ProviderError, Unclear, UsageError
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.digitalocean.settings import DigitalOceanSettings
from onebox.settings.fields import Conflict
from tests.fakes.digitalocean.account import Json
from tests.fakes.digitalocean.server import Server

from ..boxes import MakeRequest, when_up
from ..tables import table
from .conftest import SETTINGS, TIMEOUTS, MakeProvider

CALLER = "198.51.100.7"
STRANGER = "198.51.100.66"


def test_the_firewall_exists_before_the_droplet(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """Only this machine can reach ssh from the first moment."""
    provider.create(make_request())
    [droplet] = server.account.all_droplets
    assert droplet.protected
    assert server.account.reachable(droplet, CALLER)
    posts = [one.path for one in server.requests if one.method == "POST"]
    assert posts.index("firewalls") < posts.index("droplets")


def test_the_firewall_of_a_box_is_deleted_with_it(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """Those of other boxes stay."""
    one, other = make_request(), make_request()
    first = when_up(provider, provider.create(one))
    provider.create(other)
    provider.delete(first)
    [wall] = server.account.firewalls.values()
    assert wall["name"].endswith(other.box)
    assert wall["tags"] == [metadata.tag("box", other.box)]


def test_a_new_address_replaces_the_former_one(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """Only the present address of this machine has access."""
    address = [CALLER]
    provider = make_provider(ssh_cidr=None, my_ip=lambda: address[0])
    box = when_up(provider, provider.create(make_request()))
    [droplet] = server.account.all_droplets
    assert not provider.allow_my_ip(box)
    address[0] = "192.0.2.9"
    assert provider.allow_my_ip(box)
    assert server.account.reachable(droplet, "192.0.2.9")
    assert not server.account.reachable(droplet, CALLER)
    assert not provider.allow_my_ip(box)
    server.account.firewalls.clear()
    assert provider.allow_my_ip(box)
    assert not server.account.reachable(droplet, STRANGER)


def test_an_unknown_address_is_refused(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """No box is created without its firewall."""

    def nobody_knows() -> str:
        raise UsageError("this machine's public address is not certain")

    with pytest.raises(UsageError):
        make_provider(ssh_cidr=None, my_ip=nobody_knows).create(make_request())
    assert not server.account.all_droplets


def test_an_open_ssh_port_is_in_the_notes_of_each_box(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest
) -> None:
    """The user has allowed it."""
    provider = make_provider(ssh_cidr="0.0.0.0/0", allow_world_ssh=True)
    box = provider.create(make_request())
    assert any("whole world" in note for note in box.notes)
    assert server.account.reachable(server.account.all_droplets[0], STRANGER)


def test_a_jump_host_without_a_known_address_is_refused() -> None:
    """Its address has to be in ssh_cidr: it cannot be looked up."""
    settings = table(
        DigitalOceanSettings, {**SETTINGS, "jump": "me@bastion", "ssh_cidr": None}
    )
    with pytest.raises(Conflict, match="ssh_cidr"):
        settings.check({})


@pytest.mark.parametrize("jump", ["", "me@bastion"])
def test_a_private_box_is_open_to_private_networks(
    server: Server, make_provider: MakeProvider, make_request: MakeRequest, jump: str
) -> None:
    """Its clients, and the jump host, have private addresses themselves."""
    provider = make_provider(ssh_cidr=None, private=True, jump=jump)
    provider.create(make_request())
    [droplet] = server.account.all_droplets
    assert server.account.reachable(droplet, "10.10.0.7")
    assert not server.account.reachable(droplet, STRANGER)
    assert not server.account.reachable(droplet, CALLER)


@pytest.mark.parametrize("kind", ["500 before", "500 after", "cut after", "half"])
def test_a_lost_response_makes_one_firewall(
    server: Server, provider: DigitalOcean, make_request: MakeRequest, kind: str
) -> None:
    """The API refuses a second one of its name."""
    server.fail("POST", "firewalls", kind)
    provider.create(make_request())
    assert len(server.account.firewalls) == 1
    assert server.account.all_droplets[0].protected


def test_without_its_firewall_no_droplet_is_created(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """Everyone could reach its ssh port."""
    server.fail("POST", "firewalls", "500 before", times=100)
    with pytest.raises(ProviderError, match="no firewall") as caught:
        provider.create(make_request())
    assert not isinstance(caught.value, Unclear)
    assert not server.account.all_droplets


def _wall(server: Server, owner: str, box: str, age: float, **more: object) -> Json:
    word = metadata.tag("box", box)
    server.account.tag(word)
    body: Json = {
        "name": f"onebox.{owner}.{box}",
        "inbound_rules": [],
        "outbound_rules": [],
        "tags": [word],
        **more,
    }
    wall: Json = server.account.put_firewall(body)["firewall"]
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age))
    wall["created_at"] = made
    return wall


def test_an_old_firewall_without_a_box_is_deleted(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """Those of other owners stay."""
    request = make_request()
    owner = request.tags.owner
    box = when_up(provider, provider.create(request))
    for wall in server.account.firewalls.values():
        wall["created_at"] = "2020-01-01T00:00:00Z"
    old = _wall(server, owner, "ob-crashed", 7200)
    young = _wall(server, owner, "ob-begun", 60)
    others = _wall(server, "somebodyelse", "ob-theirs", 7200)
    changed = _wall(server, owner, "ob-changed", 7200, droplet_ids=[7])
    provider.create(make_request())
    names = {wall["name"] for wall in server.account.firewalls.values()}
    assert old["name"] not in names
    assert {young["name"], others["name"], changed["name"]} <= names
    assert f"onebox.{owner}.{box.id}" in names


def test_a_firewall_that_the_user_has_reused_is_not_deleted(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> None:
    """It has the name, but other droplets use it."""
    box = when_up(provider, provider.create(make_request()))
    [wall] = server.account.firewalls.values()
    wall["droplet_ids"] = [4711]
    provider.delete(box)
    assert list(server.account.firewalls.values()) == [wall]


def test_an_ipv6_address_is_one_machine(
    make_request: MakeRequest, server: Server
) -> None:
    """The firewall opens ssh to it alone."""
    provider = DigitalOcean(
        DigitalOceanSettings(accept_no_watchdog=True),
        Path("/"),
        timeouts=TIMEOUTS,
        my_ip=lambda: "2001:db8::7",
    )
    provider.create(make_request())
    [wall] = server.account.firewalls.values()
    sources = wall["inbound_rules"][0]["sources"]
    assert sources == {"addresses": ["2001:db8::7/128"]}
