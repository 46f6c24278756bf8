"""Where Google's credentials come from, and the errors without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onebox.errors import NotAllowed, ProviderError, SetupError
from onebox.providers.gcp.provider import GCP
from tests.fakes.gcp.credentials import key_file
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest
from .conftest import MakeProvider


class TestCredentials:
    def test_missing_credentials_have_advice(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names the command that creates some."""
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
        monkeypatch.setenv("HOME", "/nonexistent")
        with pytest.raises(NotAllowed) as caught:
            make_provider().find("owner")
        assert "gcloud auth application-default login" in caught.value.next

    @pytest.mark.parametrize(
        "content", ["", "{}", "[1]", '{"type": "service_account"}']
    )
    def test_an_unreadable_key_file_is_reported(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
        content: str,
    ) -> None:
        """The error names the credentials."""
        path = tmp_path / "key.json"
        path.write_text(content)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        with pytest.raises(NotAllowed, match="no usable credentials"):
            make_provider().find("owner")

    def test_a_login_that_is_not_renewed_has_expired(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """The error names the command to log in."""
        path = tmp_path / "login.json"
        login = {"type": "authorized_user", "client_id": "1", "client_secret": "x"}
        path.write_text(json.dumps({**login, "refresh_token": "y"}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        provider = make_provider(project="test-project")
        with pytest.raises(ProviderError):
            provider.find("owner")

    def test_a_missing_project_is_an_error_of_the_set_up(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """Credentials may lack one."""
        path = key_file(tmp_path / "key.json", project_id=None)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        monkeypatch.setenv("PATH", "/nonexistent")
        with pytest.raises(SetupError) as caught:
            make_provider().find("owner")
        assert "project" in caught.value.next
        assert list(make_provider(project="test-project").find("owner")) == []

    def test_a_key_signs_its_own_tokens(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """No private key is sent."""
        provider.find(make_request().tags.owner)
        assert server.tokens
        assert all(token.count(".") == 2 for token in server.tokens)
