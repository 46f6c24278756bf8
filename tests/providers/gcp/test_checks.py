from __future__ import annotations

import json
from pathlib import Path

import pytest

from onebox.providers.base import Check
from onebox.providers.gcp.policy import PERMISSIONS
from onebox.providers.gcp.provider import GCP

from .account import EMAIL
from .conftest import MakeProvider
from .faults import ENABLE
from .server import Google


def lines(provider: GCP) -> dict[str, Check]:
    """Return doctor's lines by name; each that is wrong says what to do."""
    found = {line.name: line for line in provider.checks()}
    assert all(line.next for line in found.values() if line.ok is False)
    return found


class TestDoctor:
    def test_well(self, google: Google, provider: GCP) -> None:
        """Where all is well every line says so, and what it has seen."""
        google.project.permitted = set(PERMISSIONS)
        found = lines(provider)
        assert all(line.ok for line in found.values())
        assert EMAIL in found["credentials"].detail
        assert "test-project" in found["project"].detail
        assert "CPUS 4 of 24" in found["quota us-central1"].detail

    def test_a_region_without_a_zone_a(
        self, google: Google, make_provider: MakeProvider
    ) -> None:
        """Permissions are asked for in a zone that the region has."""
        google.project.permitted = set(PERMISSIONS)
        line = lines(make_provider(region="us-east1"))["permissions"]
        assert line.ok is True, line
        [call] = google.calls("instances.testIamPermissions")
        assert call.path["zone"] == "us-east1-b"

    def test_no_credentials(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without credentials nothing else is asked."""
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
        [line] = make_provider().checks()
        assert (line.name, line.ok) == ("credentials", False)

    def test_disabled(self, google: Google, provider: GCP) -> None:
        """An API that is off is told with the link that switches it on."""
        google.fail("projects.get", "disabled")
        line = lines(provider)["compute engine"]
        assert line.ok is False
        assert ENABLE in line.next

    def test_question_without_an_answer_is_no_fault(
        self, google: Google, provider: GCP
    ) -> None:
        """What Google does not answer is not known, which keeps nobody from a run."""
        google.project.permitted = set(PERMISSIONS)
        google.fail("regions.get", "503", times=99)
        found = lines(provider)
        assert found["quota us-central1"].ok is None
        assert "not known" in found["quota us-central1"].detail
        assert False not in {line.ok for line in found.values()}

    def test_permissions(self, google: Google, provider: GCP) -> None:
        """What is not permitted is named."""
        google.project.permitted = set(PERMISSIONS) - {"compute.instances.create"}
        line = lines(provider)["permissions"]
        assert line.ok is False
        assert "compute.instances.create" in line.detail

    def test_permissions_unknown(self, google: Google, provider: GCP) -> None:
        """Where Google does not tell, that is said, and is no fault."""
        google.project.permitted = None
        assert lines(provider)["permissions"].ok is None

    def test_quota(self, google: Google, provider: GCP) -> None:
        """A quota that is used up is wrong, and where to have more is said."""
        google.project.quota["CPUS"] = (24.0, 24.0)
        line = lines(provider)["quota us-central1"]
        assert line.ok is False
        assert "quotas" in line.next

    def test_prices(self, google: Google, provider: GCP) -> None:
        """Prices that cannot be had are worth knowing, and not wrong."""
        google.catalogue = False
        assert lines(provider)["prices"].ok is None

    @pytest.mark.parametrize("method", ["regions.get", "instances.testIamPermissions"])
    def test_never_raises(self, google: Google, provider: GCP, method: str) -> None:
        """What fails at being looked at is a line, and the others still come."""
        google.project.permitted = set(PERMISSIONS)
        google.fail(method, "forbidden", times=99)
        found = lines(provider)
        wrong = {name for name, line in found.items() if line.ok is False}
        # Whether it is permitted is asked in a zone that the region names.
        assert wrong and wrong <= {"permissions", "quota us-central1"}
        assert {"prices", "ssh"} <= {n for n, line in found.items() if line.ok}
        assert "ssh" in found

    def test_renews(self, provider: GCP) -> None:
        """A key does not expire."""
        assert provider.credentials_expire() is None

    def test_wrong_region(self, make_provider: MakeProvider) -> None:
        """A region that is not there is told by name."""
        line = lines(make_provider(region="us-middle9"))["quota us-middle9"]
        assert "us-middle9" in line.detail

    def test_login(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """A login that cannot be renewed is told as what it is."""
        path = tmp_path / "login.json"
        login = {"type": "authorized_user", "client_id": "1", "client_secret": "x"}
        path.write_text(json.dumps({**login, "refresh_token": "y"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        found = lines(make_provider(project="test-project"))
        assert "your own login" in found["credentials"].detail
        assert found["compute engine"].ok is False


class TestPolicy:
    def test_covers_the_calls(self, google: Google, provider: GCP) -> None:
        """The role has a permission for each method of instances that is called."""
        text = provider.policy()
        assert "title: onebox" in text
        for name in ("create", "delete", "start", "stop", "setLabels", "setMetadata"):
            assert f"- compute.instances.{name}\n" in text
