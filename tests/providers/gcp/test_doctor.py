"""The checks of `inv doctor` for a Google Cloud project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onebox.providers.gcp.policy import PERMISSIONS
from onebox.providers.gcp.provider import GCP
from onebox.providers.values import Check
from tests.fakes.gcp.credentials import EMAIL
from tests.fakes.gcp.faults import ENABLE
from tests.fakes.gcp.server import Server

from .conftest import MakeProvider


def lines(provider: GCP) -> dict[str, Check]:
    """Return doctor's lines by name; each failed one has a next step."""
    found = {line.name: line for line in provider.checks()}
    assert all(line.next for line in found.values() if line.ok is False)
    return found


class TestDoctor:
    def test_checks_of_a_good_account_pass(self, server: Server, provider: GCP) -> None:
        """Each line has the facts behind it."""
        server.account.permitted = set(PERMISSIONS)
        found = lines(provider)
        assert all(line.ok for line in found.values())
        assert EMAIL in found["credentials"].detail
        assert "test-project" in found["project"].detail
        assert "CPUS 4 of 24" in found["quota us-central1"].detail

    def test_a_region_without_a_zone_a(
        self, server: Server, make_provider: MakeProvider
    ) -> None:
        """Permissions are asked for in a zone that the region has."""
        server.account.permitted = set(PERMISSIONS)
        line = lines(make_provider(region="us-east1"))["permissions"]
        assert line.ok is True, line
        [call] = server.calls("instances.testIamPermissions")
        assert call.path["zone"] == "us-east1-b"

    def test_without_credentials_nothing_else_is_checked(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One line reports them."""
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
        [line] = make_provider().checks()
        assert (line.name, line.ok) == ("credentials", False)

    def test_a_disabled_api_has_the_link_that_enables_it(
        self, server: Server, provider: GCP
    ) -> None:
        """Google's response contains it."""
        server.fail("projects.get", "disabled")
        line = lines(provider)["compute engine"]
        assert line.ok is False
        assert ENABLE in line.next

    def test_a_check_without_a_response_is_a_remark(
        self, server: Server, provider: GCP
    ) -> None:
        """It proves nothing about a box, so it is no failure."""
        server.account.permitted = set(PERMISSIONS)
        server.fail("regions.get", "503", times=99)
        found = lines(provider)
        assert found["quota us-central1"].ok is None
        assert "not known" in found["quota us-central1"].detail
        assert False not in {line.ok for line in found.values()}

    def test_a_missing_permission_is_named(self, server: Server, provider: GCP) -> None:
        """It is that of an instance's method."""
        server.account.permitted = set(PERMISSIONS) - {"compute.instances.create"}
        line = lines(provider)["permissions"]
        assert line.ok is False
        assert "compute.instances.create" in line.detail

    def test_unknown_permissions_are_a_remark(
        self, server: Server, provider: GCP
    ) -> None:
        """Google lists them for an existing instance only."""
        server.account.permitted = None
        assert lines(provider)["permissions"].ok is None

    def test_an_exhausted_quota_fails(self, server: Server, provider: GCP) -> None:
        """The line has the page where to request more."""
        server.account.quota["CPUS"] = (24.0, 24.0)
        line = lines(provider)["quota us-central1"]
        assert line.ok is False
        assert "quotas" in line.next

    def test_unknown_prices_are_a_remark(self, server: Server, provider: GCP) -> None:
        """They do not keep a box from working."""
        server.catalogue = False
        assert lines(provider)["prices"].ok is None

    @pytest.mark.parametrize("method", ["regions.get", "instances.testIamPermissions"])
    def test_a_check_that_fails_is_a_line(
        self, server: Server, provider: GCP, method: str
    ) -> None:
        """The other checks still run."""
        server.account.permitted = set(PERMISSIONS)
        server.fail(method, "forbidden", times=99)
        found = lines(provider)
        wrong = {name for name, line in found.items() if line.ok is False}
        # The permission check names a zone of the region.
        assert wrong and wrong <= {"permissions", "quota us-central1"}
        assert {"prices", "ssh"} <= {n for n, line in found.items() if line.ok}
        assert "ssh" in found

    def test_a_service_account_key_does_not_expire(self, provider: GCP) -> None:
        """The line gives no time."""
        assert provider.credentials_expire() is None

    def test_a_wrong_region_is_named(self, make_provider: MakeProvider) -> None:
        """It is a failed check."""
        line = lines(make_provider(region="us-middle9"))["quota us-middle9"]
        assert "us-middle9" in line.detail

    def test_a_login_that_cannot_be_renewed_shows_its_expiry(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """The line names the login."""
        path = tmp_path / "login.json"
        login = {"type": "authorized_user", "client_id": "1", "client_secret": "x"}
        path.write_text(json.dumps({**login, "refresh_token": "y"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        found = lines(make_provider(project="test-project"))
        assert "your own login" in found["credentials"].detail
        assert found["compute engine"].ok is False


class TestPolicy:
    def test_the_role_covers_every_call(self, server: Server, provider: GCP) -> None:
        """Each method of instances that is called has its permission."""
        text = provider.policy()
        assert "title: onebox" in text
        for name in ("create", "delete", "start", "stop", "setLabels", "setMetadata"):
            assert f"- compute.instances.{name}\n" in text
