"""The HTTP client: timeouts, retries, pages, rate limits and errors."""

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
from onebox.providers.kernel.errors import Exists, Pending
from tests.fakes.digitalocean.server import READ_ONLY, TOKEN, Server

from .conftest import TIMEOUTS

BODY = {"name": "ob-1", "size": "c-4", "image": "debian-12-x64", "region": "nyc3"}
BREAKS = ["500", "html", "cut"]


@pytest.fixture
def cloud(server: Server) -> Cloud:
    """The HTTP client, with short time limits."""
    return Cloud(TIMEOUTS)


class TestBrokenResponses:
    @pytest.mark.parametrize("kind", [*(f"{kind} before" for kind in BREAKS), "half"])
    def test_a_broken_read_is_repeated(
        self, server: Server, cloud: Cloud, kind: str
    ) -> None:
        """The second attempt is answered."""
        server.fail("GET", "account", kind, times=2)
        assert cloud.get("account")["account"]["droplet_limit"] == 25
        assert server.faults[0].times == 0

    @pytest.mark.parametrize("kind", BREAKS)
    def test_a_read_that_always_breaks_ends_in_an_error(
        self, server: Server, cloud: Cloud, kind: str
    ) -> None:
        """The number of attempts is limited."""
        server.fail("GET", "account", f"{kind} before", times=100)
        with pytest.raises(ProviderError, match="GET account"):
            cloud.get("account")
        assert server.faults[0].times == 100 - TIMEOUTS.attempts

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("kind", BREAKS)
    def test_a_change_without_a_response_is_not_repeated(
        self, server: Server, cloud: Cloud, kind: str, when: str
    ) -> None:
        """Its outcome is unclear."""
        server.fail("POST", "droplets", f"{kind} {when}", times=100)
        with pytest.raises(Unclear):
            cloud.post("droplets", BODY)
        assert server.faults[0].times == 99
        assert len(server.account.all_droplets) == (1 if when == "after" else 0)

    def test_half_a_response_to_a_change_is_unclear(
        self, server: Server, cloud: Cloud
    ) -> None:
        """It is not read as a response."""
        server.fail("POST", "droplets", "half")
        with pytest.raises(Unclear):
            cloud.post("droplets", BODY)
        assert len(server.account.all_droplets) == 1

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.parametrize("kind", BREAKS)
    def test_a_delete_without_a_response_is_repeated(
        self, server: Server, cloud: Cloud, kind: str, when: str
    ) -> None:
        """An object that is gone already counts as deleted."""
        cloud.post("tags", {"name": "x"})
        server.fail("DELETE", "tags/x", f"{kind} {when}")
        try:
            cloud.delete("tags/x")
        except Gone:
            assert when == "after"
        assert server.account.tags == {}

    def test_a_harmless_change_is_repeated(self, server: Server, cloud: Cloud) -> None:
        """A second call changes nothing."""
        server.fail("POST", "tags/x/resources", "cut after")
        cloud.post("tags", {"name": "x"})
        cloud.post("tags/x/resources", {"resources": []})
        assert server.faults[0].times == 0

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_a_silent_server_is_given_up(self, server: Server, when: str) -> None:
        """The time limit holds for every kind of call."""
        cloud = Cloud(dataclasses.replace(TIMEOUTS, read=0.2, attempts=2))
        server.fail("GET", "account", f"hang {when}", times=100)
        server.fail("POST", "droplets", f"hang {when}", times=100)
        with pytest.raises(ProviderError, match="silence"):
            cloud.get("account")
        with pytest.raises(Unclear, match="silence"):
            cloud.post("droplets", BODY)

    def test_an_unsent_call_is_no_unclear_call(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a connection, it certainly had no effect."""
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
    def test_retry_after_is_waited_for(self, server: Server) -> None:
        """The call is then repeated."""
        waited: list[float] = []
        cloud = Cloud(TIMEOUTS, sleep=waited.append)
        server.fail("POST", "droplets", "429", Retry_After="2")
        cloud.post("droplets", BODY)
        assert waited == [pytest.approx(2.1)]
        assert len(server.account.all_droplets) == 1

    def test_the_limit_resets_by_the_servers_clock(self, server: Server) -> None:
        """This machine's clock may be wrong."""
        waited: list[float] = []
        cloud = Cloud(TIMEOUTS, sleep=waited.append, clock=lambda: 0.0)
        reset = str(int(time.time()) + 2)
        server.fail("GET", "account", "429", ratelimit_reset=reset)
        cloud.get("account")
        [seconds] = waited
        assert 0 < seconds < 3

    def test_throttling_without_a_time_is_retried_soon(
        self, server: Server, cloud: Cloud
    ) -> None:
        """The API gave neither seconds nor a time."""
        server.fail("GET", "account", "429", times=2)
        cloud.get("account")
        assert server.faults[0].times == 0

    def test_a_very_long_wait_is_refused_at_once(self, server: Server) -> None:
        """The call fails before any pause."""
        waited: list[float] = []
        cloud = Cloud(TIMEOUTS, sleep=waited.append)
        server.fail("GET", "account", "429", times=100, Retry_After="2400")
        with pytest.raises(Throttled, match="40 min 0 s"):
            cloud.get("account")
        assert waited == []
        assert server.faults[0].times == 99

    def test_the_wait_for_a_limit_is_limited_in_total(self, server: Server) -> None:
        """The pauses add up to a budget."""
        waited: list[float] = []
        cloud = Cloud(TIMEOUTS, sleep=waited.append)
        server.fail("GET", "account", "429", times=100, Retry_After="1")
        with pytest.raises(Throttled):
            cloud.get("account")
        assert sum(waited) <= TIMEOUTS.throttled


class TestPages:
    def test_a_list_is_read_to_its_last_page(
        self, server: Server, cloud: Cloud
    ) -> None:
        """Every page comes from the server that was called first."""
        for number in range(450):
            server.account.tag(f"t{number}")
            server.account.sizes.append({"slug": f"t{number}"})
        found = cloud.all("sizes", "sizes")
        assert {f"t{number}" for number in range(450)} <= {one["slug"] for one in found}
        assert server.count("GET", "sizes") == 3

    def test_an_item_that_moves_to_the_next_page_is_listed_once(
        self, server: Server, cloud: Cloud
    ) -> None:
        """Lists change between two pages."""
        server.account.sizes += [{"slug": "same"} for _ in range(300)]
        found = [one["slug"] for one in cloud.all("sizes", "sizes")]
        assert found.count("same") == 1


class TestRefusals:
    def test_the_fake_server_refuses_unknown_fields(
        self, server: Server, cloud: Cloud
    ) -> None:
        """It is as strict as the API's description."""
        with pytest.raises(ProviderError, match="colour is unknown"):
            cloud.post("droplets", {**BODY, "colour": "red"})
        with pytest.raises(ProviderError, match="ipv6 must be a boolean"):
            cloud.post("droplets", {**BODY, "ipv6": None})
        with pytest.raises(ProviderError, match="colour is unknown"):
            cloud.get("droplets", colour="red")

    def test_a_wrong_token_is_reported_but_not_shown(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The message names the variable."""
        monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", "dop_v1_wrong")
        with pytest.raises(NotAllowed, match="not accepted") as caught:
            Cloud(TIMEOUTS).get("account")
        assert "DIGITALOCEAN_ACCESS_TOKEN" in caught.value.next
        assert "dop_v1_wrong" not in f"{caught.value.message}{caught.value.next}"

    def test_a_read_only_token_lacks_a_named_scope(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names the scope of each call."""
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

    def test_without_a_token_no_call_is_made(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error is raised before."""
        monkeypatch.delenv("DIGITALOCEAN_ACCESS_TOKEN")
        with pytest.raises(NotAllowed, match="no token"):
            Cloud(TIMEOUTS).get("account")
        assert not server.requests

    @pytest.mark.parametrize(
        "address", ["nonsense", "http://api.example.com/v2/", "http://10.0.0.1/v2"]
    )
    def test_the_token_is_sent_encrypted_or_within_this_machine(
        self, monkeypatch: pytest.MonkeyPatch, address: str
    ) -> None:
        """Any other address is refused."""
        monkeypatch.setenv("DIGITALOCEAN_END_POINT", address)
        monkeypatch.setenv("DIGITALOCEAN_ACCESS_TOKEN", TOKEN)
        with pytest.raises(ConfigError, match="DIGITALOCEAN_END_POINT"):
            Cloud(TIMEOUTS).get("account")

    def test_the_api_address_may_end_without_a_slash(
        self, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Both forms work."""
        monkeypatch.setenv("DIGITALOCEAN_END_POINT", server.address.rstrip("/"))
        Cloud(TIMEOUTS).get("account")

    def test_a_redirect_is_not_followed(self, server: Server, cloud: Cloud) -> None:
        """The token would be sent to the other address."""
        other = f"{server.address}account"
        server.fail("GET", "sizes", "redirect", Location=other)
        with pytest.raises(ProviderError):
            cloud.get("sizes")
        assert server.count("GET", "account") == 0

    def test_netrc_does_not_replace_the_token(
        self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An entry for the same host is ignored."""
        file = tmp_path / "netrc"
        file.write_text("machine 127.0.0.1 login me password mine\n")
        monkeypatch.setenv("NETRC", str(file))
        cloud = Cloud(TIMEOUTS)
        cloud.get("account")
        cloud.post("tags", {"name": "x"})
        assert {one.token for one in server.requests} == {TOKEN}

    def test_each_refusal_has_its_error_class(
        self, server: Server, cloud: Cloud
    ) -> None:
        """Gone, existing, busy and over a limit are four classes."""
        with pytest.raises(Gone):
            cloud.get("droplets/7")
        wall = {"name": "x1", "inbound_rules": [], "outbound_rules": []}
        cloud.post("firewalls", wall)
        with pytest.raises(Exists):
            cloud.post("firewalls", wall)
        server.account.behavior.boot = 60
        number = cloud.post("droplets", BODY)["droplet"]["id"]
        with pytest.raises(Pending):
            cloud.post(f"droplets/{number}/actions", {"type": "shutdown"})
        server.account.behavior.droplet_limit = 1
        with pytest.raises(QuotaExceeded, match="limit"):
            cloud.post("droplets", BODY)

    def test_a_token_in_a_response_is_hidden(
        self, server: Server, cloud: Cloud
    ) -> None:
        """No message shows it."""
        with pytest.raises(OneboxError) as caught:
            cloud.post("firewalls", {TOKEN: 1, "name": "x1", **_no_rules()})
        assert TOKEN not in caught.value.message
        assert "[token] is unknown" in caught.value.message


def _no_rules() -> dict[str, object]:
    return {"inbound_rules": [], "outbound_rules": []}
