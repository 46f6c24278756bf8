"""The one way to the API: time limits, repetitions, pages, limits, refusals."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from pathlib import Path

import pytest

from onebox.errors import (
    ConfigError,
    Gone,
    NotAllowed,
    OneboxError,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unclear,
)
from onebox.providers.digitalocean.client import Cloud
from onebox.providers.digitalocean.errors import Pending
from onebox.providers.kernel.errors import Exists

from .conftest import TIMEOUTS
from .server import READ_ONLY, TOKEN, Server

BODY = {"name": "ob-1", "size": "c-4", "image": "debian-12-x64", "region": "nyc3"}
BREAKS = ["500", "html", "cut"]


@pytest.fixture
def cloud(server: Server) -> Cloud:
    """The calls, with little patience."""
    return Cloud(TIMEOUTS)


class TestBreaks:
    @pytest.mark.parametrize("kind", [*(f"{kind} before" for kind in BREAKS), "half"])
    def test_read(self, server: Server, cloud: Cloud, kind: str) -> None:
        """A read that breaks is asked again, and answered."""
        server.fail("GET", "account", kind, times=2)
        assert cloud.get("account")["account"]["droplet_limit"] == 25
        assert server.faults[0].times == 0

    @pytest.mark.parametrize("kind", BREAKS)
    def test_read_gives_up(self, server: Server, cloud: Cloud, kind: str) -> None:
        """A read that always breaks ends in an error, after a few attempts."""
        server.fail("GET", "account", f"{kind} before", times=100)
        with pytest.raises(ProviderError, match="GET account"):
            cloud.get("account")
        assert server.faults[0].times == 100 - TIMEOUTS.attempts

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("kind", BREAKS)
    def test_change(self, server: Server, cloud: Cloud, kind: str, when: str) -> None:
        """A change whose answer is lost is unclear, and not sent a second time."""
        server.fail("POST", "droplets", f"{kind} {when}", times=100)
        with pytest.raises(Unclear):
            cloud.post("droplets", BODY)
        assert server.faults[0].times == 99
        assert len(server.world.made) == (1 if when == "after" else 0)

    def test_half_an_answer(self, server: Server, cloud: Cloud) -> None:
        """Half of an answer to a change is none."""
        server.fail("POST", "droplets", "half")
        with pytest.raises(Unclear):
            cloud.post("droplets", BODY)
        assert len(server.world.made) == 1

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("kind", BREAKS)
    def test_delete(self, server: Server, cloud: Cloud, kind: str, when: str) -> None:
        """A deletion whose answer is lost is done again; gone is what it was for."""
        cloud.post("tags", {"name": "x"})
        server.fail("DELETE", "tags/x", f"{kind} {when}")
        try:
            cloud.delete("tags/x")
        except Gone:
            assert when == "after"
        assert server.world.tags == {}

    def test_harmless_change(self, server: Server, cloud: Cloud) -> None:
        """A change that may be repeated is."""
        server.fail("POST", "tags/x/resources", "cut after")
        cloud.post("tags", {"name": "x"})
        cloud.post("tags/x/resources", {"resources": []}, again=True)
        assert server.faults[0].times == 0

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_silence(self, server: Server, when: str) -> None:
        """A server that says nothing is left after a time, whatever was asked."""
        cloud = Cloud(dataclasses.replace(TIMEOUTS, read=0.2, attempts=2))
        server.fail("GET", "account", f"hang {when}", times=100)
        server.fail("POST", "droplets", f"hang {when}", times=100)
        with pytest.raises(ProviderError, match="silence"):
            cloud.get("account")
        with pytest.raises(Unclear, match="silence"):
            cloud.post("droplets", BODY)

    def test_nobody_there(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What certainly reached nobody is no unclear call, but a failed one."""
        monkeypatch.setenv("DIGITALOCEAN_END_POINT", "http://127.0.0.1:1/v2/")
        cloud = Cloud(TIMEOUTS)
        for call in (
            partial(cloud.get, "account"),
            partial(cloud.post, "droplets", {}),
        ):
            with pytest.raises(ProviderError, match="cannot be reached") as caught:
                call()
            assert not isinstance(caught.value, Unclear)


class TestLimits:
    def test_retry_after(self, server: Server) -> None:
        """The API's own number of seconds is waited, and then the call is done."""
        waited: list[float] = []
        cloud = Cloud(TIMEOUTS, sleep=waited.append)
        server.fail("POST", "droplets", "429", Retry_After="2")
        cloud.post("droplets", BODY)
        assert waited == [pytest.approx(2.1)]
        assert len(server.world.made) == 1

    def test_reset(self, server: Server) -> None:
        """The moment of the reset is the server's; this machine's clock is not used."""
        waited: list[float] = []
        cloud = Cloud(TIMEOUTS, sleep=waited.append, clock=lambda: 0.0)
        reset = str(int(time.time()) + 2)
        server.fail("GET", "account", "429", ratelimit_reset=reset)
        cloud.get("account")
        [seconds] = waited
        assert 0 < seconds < 3

    def test_not_told(self, server: Server, cloud: Cloud) -> None:
        """Without a word on how long, it is tried again a little later."""
        server.fail("GET", "account", "429", times=2)
        cloud.get("account")
        assert server.faults[0].times == 0

    def test_too_long(self, server: Server) -> None:
        """A wait that would be very long is refused at once."""
        waited: list[float] = []
        cloud = Cloud(TIMEOUTS, sleep=waited.append)
        server.fail("GET", "account", "429", times=100, Retry_After="2400")
        with pytest.raises(Throttled, match="40:00"):
            cloud.get("account")
        assert waited == []
        assert server.faults[0].times == 99

    def test_again_and_again(self, server: Server) -> None:
        """A limit that never ends is waited for only so long in all."""
        waited: list[float] = []
        cloud = Cloud(TIMEOUTS, sleep=waited.append)
        server.fail("GET", "account", "429", times=100, Retry_After="1")
        with pytest.raises(Throttled):
            cloud.get("account")
        assert sum(waited) <= TIMEOUTS.throttled


class TestPages:
    def test_all(self, server: Server, cloud: Cloud) -> None:
        """A long list is read to its end, from the server that was asked."""
        for number in range(450):
            server.world.tag(f"t{number}")
            server.world.sizes.append({"slug": f"t{number}"})
        found = cloud.all("sizes", "sizes")
        assert {f"t{number}" for number in range(450)} <= {one["slug"] for one in found}
        assert server.count("GET", "sizes") == 3

    def test_shifting(self, server: Server, cloud: Cloud) -> None:
        """What slips from one page to the next is not there twice."""
        server.world.sizes += [{"slug": "same"} for _ in range(300)]
        found = [one["slug"] for one in cloud.all("sizes", "sizes")]
        assert found.count("same") == 1


class TestRefusals:
    def test_unknown_field(self, server: Server, cloud: Cloud) -> None:
        """The server is strict: it refuses what it does not know."""
        with pytest.raises(ProviderError, match="colour is unknown"):
            cloud.post("droplets", {**BODY, "colour": "red"})
        with pytest.raises(ProviderError, match="ipv6 must be a boolean"):
            cloud.post("droplets", {**BODY, "ipv6": None})
        with pytest.raises(ProviderError, match="colour is unknown"):
            cloud.get("droplets", colour="red")

    def test_wrong_token(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """A wrong token is said to be one, and is not said itself."""
        monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", "dop_v1_wrong")
        with pytest.raises(NotAllowed, match="not accepted") as caught:
            Cloud(TIMEOUTS).get("account")
        assert "DIGITALOCEAN_ACCESS_TOKEN" in caught.value.next
        assert "dop_v1_wrong" not in f"{caught.value.message}{caught.value.next}"

    def test_weak_token(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """A token that may only read is refused with the scope it lacks."""
        monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", READ_ONLY)
        cloud = Cloud(TIMEOUTS)
        cloud.get("account")
        for scope, call in (
            ("droplet:create", lambda: cloud.post("droplets", BODY)),
            ("droplet:update", lambda: cloud.post("droplets/1/actions", {})),
            ("firewall:update", lambda: cloud.put("firewalls/1", {})),
            ("tag:delete", lambda: cloud.delete("tags/x")),
        ):
            with pytest.raises(NotAllowed, match=scope):
                call()

    def test_no_token(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a token nothing is asked."""
        monkeypatch.delenv("DIGITALOCEAN_ACCESS_TOKEN")
        with pytest.raises(NotAllowed, match="no token"):
            Cloud(TIMEOUTS).get("account")
        assert not server.asked

    @pytest.mark.parametrize(
        "address", ["nonsense", "http://api.example.com/v2/", "http://10.0.0.1/v2"]
    )
    def test_address(self, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
        """The token goes nowhere in the clear but within this machine."""
        monkeypatch.setenv("DIGITALOCEAN_END_POINT", address)
        monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", TOKEN)
        with pytest.raises(ConfigError, match="DIGITALOCEAN_END_POINT"):
            Cloud(TIMEOUTS).get("account")

    def test_slash(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """The address may be written with or without a slash at its end."""
        monkeypatch.setenv("DIGITALOCEAN_END_POINT", server.address.rstrip("/"))
        Cloud(TIMEOUTS).get("account")

    def test_redirect(self, server: Server, cloud: Cloud) -> None:
        """A redirection is not followed: the token would go with it."""
        other = f"{server.address}account"
        server.fail("GET", "sizes", "redirect", Location=other)
        with pytest.raises(ProviderError):
            cloud.get("sizes")
        assert server.count("GET", "account") == 0

    def test_netrc(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What ~/.netrc says of the same host does not take the token's place."""
        file = tmp_path / "netrc"
        file.write_text("machine 127.0.0.1 login me password mine\n")
        monkeypatch.setenv("NETRC", str(file))
        cloud = Cloud(TIMEOUTS)
        cloud.get("account")
        cloud.post("tags", {"name": "x"})
        assert {one.token for one in server.asked} == {TOKEN}

    def test_classes(self, server: Server, cloud: Cloud) -> None:
        """Each refusal has its class: gone, there already, busy, too many."""
        with pytest.raises(Gone):
            cloud.get("droplets/7")
        wall = {"name": "x1", "inbound_rules": [], "outbound_rules": []}
        cloud.post("firewalls", wall)
        with pytest.raises(Exists):
            cloud.post("firewalls", wall)
        server.world.laws.boot = 60
        number = cloud.post("droplets", BODY)["droplet"]["id"]
        with pytest.raises(Pending):
            cloud.post(f"droplets/{number}/actions", {"type": "shutdown"})
        server.world.laws.droplet_limit = 1
        with pytest.raises(QuotaExceeded, match="limit"):
            cloud.post("droplets", BODY)

    def test_secret(self, server: Server, cloud: Cloud) -> None:
        """A server that repeats the token cannot bring it into a message."""
        with pytest.raises(OneboxError) as caught:
            cloud.post("firewalls", {TOKEN: 1, "name": "x1", **_no_rules()})
        assert TOKEN not in caught.value.message
        assert "[token] is unknown" in caught.value.message


def _no_rules() -> dict[str, object]:
    return {"inbound_rules": [], "outbound_rules": []}
