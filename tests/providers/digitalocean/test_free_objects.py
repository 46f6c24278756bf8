"""The free objects of an owner: ssh key, firewalls and tag."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from onebox.errors import NotAllowed, ProviderError
from onebox.providers.digitalocean import metadata
from onebox.providers.digitalocean.provider import DigitalOcean
from onebox.providers.kernel.ssh_access import md5_fingerprint
from onebox.providers.values import Box, FreeObject
from tests.fakes.digitalocean.server import Server

from ..boxes import MakeRequest, when_up


def kinds(resources: Sequence[FreeObject]) -> dict[str, bool]:
    """Return, for each kind of free object, whether it may be deleted."""
    return {resource.kind: not resource.why for resource in resources}


def remove_all(provider: DigitalOcean, owner: str, *gone: str) -> None:
    """Delete every free object that has no reason to stay."""
    for resource in provider.free_objects(owner, gone):
        if not resource.why:
            provider.remove_free(owner, resource)


def ended_by_itself(
    server: Server, provider: DigitalOcean, make_request: MakeRequest
) -> Box:
    """Return a box whose droplet has deleted itself at its deadline."""
    box = when_up(provider, provider.create(make_request()))
    [number] = server.account.droplets
    server.account.destroy(number)
    assert provider.get(box.id) is None
    return box


class TestKey:
    def test_no_password_is_mailed(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The create call names the owner's key, which is in the account by then."""
        request = make_request()
        provider.create(request)
        [key] = server.account.keys.values()
        assert server.account.all_droplets[0].body["ssh_keys"] == [key["fingerprint"]]
        assert key["public_key"] == " ".join(request.user_key.split()[:2])
        assert key["fingerprint"] == md5_fingerprint(request.user_key)
        assert not server.account.mailed

    def test_an_ssh_key_is_registered_once_for_all_boxes(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """The next box uses the same."""
        provider.create(make_request())
        provider.create(make_request())
        assert len(server.account.keys) == 1
        assert server.count("POST", "account/keys") == 1

    def test_a_key_that_the_user_has_registered_is_used_and_stays(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """It is never deleted."""
        request = make_request()
        words = " ".join(request.user_key.split()[:2])
        server.account.add_key({"name": "my laptop", "public_key": words})
        provider.delete(when_up(provider, provider.create(request)))
        remove_all(provider, request.tags.owner)
        assert [key["name"] for key in server.account.keys.values()] == ["my laptop"]

    @pytest.mark.parametrize("kind", ["500 after", "cut after", "half"])
    def test_a_lost_response_registers_one_key(
        self,
        server: Server,
        provider: DigitalOcean,
        make_request: MakeRequest,
        kind: str,
    ) -> None:
        """The create call uses it."""
        server.fail("POST", "account/keys", kind)
        provider.create(make_request())
        assert len(server.account.keys) == 1
        assert not server.account.mailed

    def test_a_key_that_is_deleted_before_the_create_call_is_registered_again(
        self,
        server: Server,
        provider: DigitalOcean,
        make_request: MakeRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Another command deleted it."""
        put_firewall = server.account.put_firewall

        def delete_keys_first(body: dict[str, object], id: str | None = None) -> object:
            server.account.keys.clear()
            return put_firewall(body, id)

        monkeypatch.setattr(server.account, "put_firewall", delete_keys_first)
        provider.create(make_request())
        assert len(server.account.all_droplets) == 1
        assert len(server.account.keys) == 1


class TestFreeObjects:
    def test_free_objects_are_deleted_with_the_last_box(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """Before, each names the box that uses it."""
        request = make_request()
        owner = request.tags.owner
        box = when_up(provider, provider.create(request))
        resources = provider.free_objects(owner)
        assert kinds(resources) == {"firewall": False, "ssh key": False}
        assert all(box.id in resource.why for resource in resources)
        for resource in resources:
            with pytest.raises(ProviderError, match=box.id):
                provider.remove_free(owner, resource)
        provider.delete(box)
        remove_all(provider, owner)
        assert not server.account.keys
        assert not server.account.firewalls
        assert not provider.free_objects(owner)
        [tag] = provider.free_objects(owner, everywhere=True)
        assert (tag.id, bool(tag.why)) == (metadata.tag("owner", owner), True)

    def test_of_a_box_that_has_removed_itself(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """Its objects are deleted at once if the box is certainly gone."""
        box = ended_by_itself(server, provider, make_request)
        owner = box.tags.owner
        resources = provider.free_objects(owner)
        assert kinds(resources) == {"firewall": False, "ssh key": True}
        assert "may still be created" in resources[0].why
        resources = provider.free_objects(owner, [box.id])
        assert kinds(resources) == {"firewall": True, "ssh key": True}
        remove_all(provider, owner, box.id)
        assert not server.account.firewalls
        assert metadata.tag("box", box.id) not in server.account.tags

    def test_a_firewall_without_a_box_is_free_after_an_hour(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """A younger one may belong to a box that is being created."""
        box = ended_by_itself(server, provider, make_request)
        [wall] = server.account.firewalls.values()
        made = time.gmtime(time.time() - 3700)
        wall["created_at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", made)
        assert kinds(provider.free_objects(box.tags.owner))["firewall"]

    def test_the_objects_of_another_owner_are_not_listed_or_deleted(
        self, server: Server, provider: DigitalOcean, make_request: MakeRequest
    ) -> None:
        """Their owner is not ours."""
        box = ended_by_itself(server, provider, make_request)
        assert not provider.free_objects("somebodyelse", [box.id])
        for resource in provider.free_objects(box.tags.owner, [box.id]):
            with pytest.raises(NotAllowed):
                provider.remove_free("somebodyelse", resource)
        assert server.account.firewalls
        assert server.account.keys
