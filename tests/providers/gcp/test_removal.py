"""Nothing is deleted that is not ours, and nothing called gone that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onebox.errors import NotAllowed, ProviderError, UsageError
from onebox.providers.base import Box
from onebox.providers.gcp.provider import GCP

from ..contract import remove_free_objects
from .account import key_file
from .conftest import Make, MakeProvider
from .server import Google
from .test_faults import nothing_left


class TestDelete:
    @pytest.fixture
    def box(self, provider: GCP, make_request: Make) -> Box:
        """A box to be deleted."""
        return provider.create(make_request())

    def test_forbidden(self, google: Google, provider: GCP, box: Box) -> None:
        """A deletion that is not permitted is said, and nothing is called gone."""
        google.fail("instances.delete", "forbidden", times=99)
        with pytest.raises(NotAllowed):
            provider.delete(box)
        assert provider.leftovers(box.id)

    def test_expired(self, google: Google, provider: GCP, box: Box) -> None:
        """With credentials that have expired nothing is called gone."""
        google.fail("instances.get", "401", times=99)
        with pytest.raises(NotAllowed):
            provider.delete(box)
        with pytest.raises(NotAllowed):
            provider.leftovers(box.id, box.place)

    def test_fails_later(self, google: Google, provider: GCP, box: Box) -> None:
        """A deletion that is accepted and then fails has not happened."""
        google.fail("instances.delete", "op:INTERNAL_ERROR")
        with pytest.raises(ProviderError):
            provider.delete(box)
        assert provider.leftovers(box.id)
        provider.delete(box)
        nothing_left(google, provider, box.id)

    def test_protected(self, google: Google, provider: GCP, box: Box) -> None:
        """A box that somebody has protected is left to them."""
        google.project.instance(box.id)["deletionProtection"] = True
        with pytest.raises(NotAllowed) as caught:
            provider.delete(box)
        assert "protection" in caught.value.next

    def test_kept_disk(self, google: Google, provider: GCP, box: Box) -> None:
        """A disk that does not go with its box goes after it."""
        google.project.instance(box.id)["disks"][0]["autoDelete"] = False
        provider.delete(box)
        nothing_left(google, provider, box.id)

    def test_relabelled(self, google: Google, provider: GCP, box: Box) -> None:
        """A box whose labels were changed meanwhile is not touched."""
        google.project.instance(box.id)["labels"]["onebox-project"] = "theirs"
        with pytest.raises(NotAllowed):
            provider.delete(box)
        with pytest.raises(NotAllowed):
            provider.stop(box)
        assert google.project.instance(box.id)["status"] == "RUNNING"

    def test_decoys(self, google: Google, provider: GCP, box: Box) -> None:
        """Instances, disks and rules of others survive everything that we do."""
        world = google.project
        theirs = {"name": "web-1", "labels": {"onebox": "1"}, "status": "RUNNING"}
        world.instances.all["us-central1-b", "web-1"] = {
            **world.instance(box.id),
            **theirs,
        }
        disk = {**world.instances.disks["us-central1-a", box.id]}
        world.instances.disks["us-central1-b", "web-1"] = {
            **disk,
            "name": "web-1",
            "labels": {},
        }
        world.firewalls["default-allow-ssh"] = {"name": "default-allow-ssh"}
        provider.delete(box)
        remove_free_objects(provider, box.tags.owner)
        assert ("us-central1-b", "web-1") in world.instances.all
        assert ("us-central1-b", "web-1") in world.instances.disks
        assert list(world.firewalls) == ["default-allow-ssh"]


class TestCredentials:
    def test_none(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without credentials the command that gets some is named."""
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        monkeypatch.setenv("HOME", "/nonexistent")
        with pytest.raises(NotAllowed) as caught:
            make_provider().find("owner")
        assert "gcloud auth application-default login" in caught.value.next

    @pytest.mark.parametrize(
        "content", ["", "{}", "[1]", '{"type": "service_account"}']
    )
    def test_rubbish(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        content: str,
    ) -> None:
        """A key file that is none is said as such."""
        path = tmp_path / "key.json"
        path.write_text(content)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        with pytest.raises(NotAllowed, match="no usable credentials"):
            make_provider().find("owner")

    def test_refresh_refused(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """A login that nobody renews any more has expired, not broken down."""
        path = tmp_path / "login.json"
        login = {"type": "authorized_user", "client_id": "1", "client_secret": "x"}
        path.write_text(json.dumps({**login, "refresh_token": "y"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        provider = make_provider(project="test-project")
        with pytest.raises(ProviderError):
            provider.find("owner")

    def test_no_project(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """Credentials without a project want one in onebox.toml."""
        path = key_file(tmp_path / "key.json", project_id=None)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(UsageError) as caught:
            make_provider().find("owner")
        assert "project" in caught.value.next
        assert list(make_provider(project="test-project").find("owner")) == []

    def test_signs_for_itself(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """A key signs its own tokens, and no private key is ever shown."""
        provider.find(make_request().tags.owner)
        assert google.tokens
        assert all(token.count(".") == 2 for token in google.tokens)
