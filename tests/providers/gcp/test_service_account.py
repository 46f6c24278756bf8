"""The service account of a box: insert, refusals, doctor and policy."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebox.errors import ConfigError, NotAllowed, OneboxError, UsageError
from onebox.providers.gcp.policy import PERMISSIONS, document
from onebox.providers.values import Check
from onebox.settings import load
from tests.fakes.gcp import faults
from tests.fakes.gcp.faults import no_access, refusal
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest
from .conftest import MakeProvider

EMAIL = "train@test-project.iam.gserviceaccount.com"
AUTH = "https://www.googleapis.com/auth/"
GRANT = f"gcloud iam service-accounts add-iam-policy-binding {EMAIL}"


@pytest.fixture(autouse=True)
def account(server: Server) -> None:
    """The service account of the project, which the caller may attach."""
    server.account.service_accounts[EMAIL] = True


def identity_line(make_provider: MakeProvider, **settings: object) -> Check:
    """Return doctor's line about the identity."""
    lines = make_provider(service_account=EMAIL, **settings).checks()
    [line] = [one for one in lines if one.name == "identity"]
    return line


class TestInsert:
    @pytest.mark.parametrize(
        ("scopes", "urls", "identity"),
        [
            ((), ["cloud-platform"], EMAIL),
            (
                ("storage-rw", f"{AUTH}logging.write"),
                ["devstorage.read_write", "logging.write"],
                f"{EMAIL} (logging-write, storage-rw)",
            ),
            (("storage-ro", "cloud-platform"), None, EMAIL),
            ((f"{AUTH}drive",), ["drive"], f"{EMAIL} ({AUTH}drive)"),
        ],
    )
    def test_the_insert_has_account_and_scopes(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        scopes: tuple[str, ...],
        urls: list[str] | None,
        identity: str,
    ) -> None:
        """Short names and URLs; scopes that limit nothing are not named."""
        provider = make_provider(service_account=EMAIL, scopes=scopes)
        box = provider.create(make_request())
        [call] = server.calls("instances.insert")
        [account] = call.body["serviceAccounts"]
        assert account["email"] == EMAIL
        if urls is not None:
            assert account["scopes"] == [f"{AUTH}{url}" for url in urls]
        assert (provider.identity, box.identity) == (identity, identity)


NOT_FOUND = "The resource 'projects/p/serviceAccounts/{}' of type 'serviceAccount' was "
REFUSALS = {
    "403": (
        refusal(403, no_access(EMAIL), "forbidden"),
        NotAllowed,
        "may not attach this service account",
        GRANT,
    ),
    "400 access": (
        refusal(400, no_access(EMAIL), "serviceAccountAccessDenied"),
        NotAllowed,
        "may not attach this service account",
        GRANT,
    ),
    "permission": (
        refusal(
            403,
            "Required 'iam.serviceAccounts.actAs' permission for "
            f"'projects/test-project/serviceAccounts/{EMAIL}'",
            "forbidden",
        ),
        NotAllowed,
        "may not attach this service account",
        GRANT,
    ),
    "400 missing": (
        refusal(
            400,
            f"Invalid value for field 'resource.serviceAccounts[0].email': '{EMAIL}'. "
            "The specified service account does not exist.",
            "invalid",
        ),
        UsageError,
        "knows no such service account",
        "service-accounts list",
    ),
    "404": (
        refusal(404, NOT_FOUND.format(EMAIL) + "not found.", "notFound"),
        UsageError,
        "knows no such service account",
        "service-accounts list",
    ),
}


def assert_one_line(error: OneboxError, text: str, next: str) -> None:
    """Assert that an error names the setting and the next command in one line."""
    assert error.message.startswith(f"[gcp] service_account = {EMAIL}: ")
    assert text in error.message
    assert next in error.next
    assert "\n" not in error.message


class TestRefusals:
    @pytest.mark.parametrize("kind", REFUSALS)
    def test_a_refused_insert_is_one_clear_line(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
    ) -> None:
        """Google refuses in several forms; no box is left in any."""
        answer, error, text, next = REFUSALS[kind]
        monkeypatch.setitem(faults.ANSWERS, "identity", answer)
        server.fail("instances.insert", "identity")
        provider = make_provider(service_account=EMAIL)
        request = make_request()
        with pytest.raises(error) as caught:
            provider.create(request)
        assert_one_line(caught.value, text, next)
        assert provider.get(request.box) is None
        assert not server.account.instances.disks
        assert not server.account.firewalls

    @pytest.mark.parametrize(
        ("state", "error", "text", "next"),
        [
            (False, NotAllowed, "may not attach this service account", GRANT),
            (None, UsageError, "knows no such service account", "service-accounts"),
        ],
    )
    def test_an_operation_that_fails_is_one_clear_line(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
        state: bool | None,
        error: type[OneboxError],
        text: str,
        next: str,
    ) -> None:
        """Google may accept the insert first."""
        del server.account.service_accounts[EMAIL]
        if state is not None:
            server.account.service_accounts[EMAIL] = state
        provider = make_provider(service_account=EMAIL)
        request = make_request()
        with pytest.raises(error) as caught:
            provider.create(request)
        assert_one_line(caught.value, text, next)
        assert provider.get(request.box) is None
        assert not server.account.instances.disks
        assert not server.account.firewalls

    def test_a_message_without_the_account_still_names_the_setting(
        self,
        server: Server,
        make_provider: MakeProvider,
        make_request: MakeRequest,
    ) -> None:
        """The code of the operation is enough."""
        server.fail(
            "instances.insert",
            "op:SERVICE_ACCOUNT_ACCESS_DENIED",
            message="Access denied.",
        )
        with pytest.raises(NotAllowed) as caught:
            make_provider(service_account=EMAIL).create(make_request())
        assert caught.value.message.startswith("[gcp] service_account: ")
        assert "roles/iam.serviceAccountUser" in caught.value.next


class TestDoctor:
    def test_without_a_service_account_there_is_no_line(
        self, server: Server, make_provider: MakeProvider
    ) -> None:
        """A box has no identity, so there is nothing to check."""
        lines = make_provider().checks()
        assert "identity" not in [line.name for line in lines]

    def test_an_account_that_can_be_attached_is_good(
        self, server: Server, make_provider: MakeProvider
    ) -> None:
        """The IAM API is asked for the permission on this account."""
        line = identity_line(make_provider, scopes=("storage-ro",))
        assert (line.ok, line.detail) == (
            True,
            f"{EMAIL} (storage-ro) can be attached",
        )

    @pytest.mark.parametrize(
        ("state", "text", "next"),
        [
            (False, "may not attach", f"{GRANT} --role=roles/iam.serviceAccountUser"),
            (None, "there is no service account", "correct [gcp] service_account"),
        ],
    )
    def test_an_account_that_cannot_be_attached_fails(
        self,
        server: Server,
        make_provider: MakeProvider,
        state: bool | None,
        text: str,
        next: str,
    ) -> None:
        """The line has the next step."""
        del server.account.service_accounts[EMAIL]
        if state is not None:
            server.account.service_accounts[EMAIL] = state
        line = identity_line(make_provider)
        assert line.ok is False
        assert text in line.detail
        assert next in line.next

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (refusal(403, "IAM API has not been used\nin project 1", "x"), "not been"),
            (refusal(503, "unavailable", "backendError"), "503 unavailable"),
            (faults.Answer(500, {}), "500"),
        ],
    )
    def test_an_iam_api_that_does_not_tell_is_a_remark(
        self,
        server: Server,
        make_provider: MakeProvider,
        answer: faults.Answer,
        text: str,
    ) -> None:
        """It proves nothing about a box, so it is no failure."""
        server.iam = answer
        line = identity_line(make_provider)
        assert line.ok is None
        assert "not known" in line.detail
        assert text in line.detail
        assert "\n" not in line.detail

    @pytest.mark.parametrize("endpoint", [None, "http://127.0.0.1:9"])
    def test_an_iam_api_that_is_not_reached_is_a_remark(
        self, server: Server, make_provider: MakeProvider, endpoint: str | None
    ) -> None:
        """With [gcp] endpoint, no credentials are sent to the public address."""
        line = identity_line(make_provider, iam_endpoint=endpoint)
        assert line.ok is None
        assert ("iam_endpoint" in line.next) is (endpoint is None)


class TestPolicy:
    def test_the_permission_is_granted_on_the_account_only(
        self, make_provider: MakeProvider
    ) -> None:
        """In a role of the project it would cover every service account."""
        text = make_provider(service_account=EMAIL).policy()
        assert "# iam.serviceAccounts.actAs, for this service account only:" in text
        assert f"# {GRANT} --role=roles/iam.serviceAccountUser" in text
        assert f"boxes act as {EMAIL}" in text
        assert "- iam." not in text
        assert text.count("\n- ") == len(PERMISSIONS)

    def test_without_a_service_account_the_role_is_as_before(
        self, make_provider: MakeProvider
    ) -> None:
        """It names no permission of IAM."""
        assert make_provider().policy() == document()
        assert "serviceAccount" not in document()


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ('service_account = "train"', "is not the email of a service account"),
        ('service_account = "me@example.com"', "is not the email of a service account"),
        ('service_account = "default"', "is not the email of a service account"),
        (
            f'service_account = "{EMAIL}"\nscopes = ["storag-ro"]',
            "is not a scope such as cloud-platform, storage-ro or "
            f"{AUTH}devstorage.read_only, did you mean storage-ro?",
        ),
        (f'service_account = "{EMAIL}"\nscopes = ["a", "a"]', "is not a scope"),
        ('scopes = ["storage-ro"]', "limits a service account; set service_account"),
    ],
)
def test_what_is_no_identity_is_refused_with_file_and_key(
    tmp_path: Path, lines: str, text: str
) -> None:
    """No call is made."""
    (tmp_path / "onebox.toml").write_text(f"[gcp]\n{lines}\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {}, {})
    key = lines.rpartition("\n")[2].partition(" ")[0]
    line = lines.count("\n") + 2
    assert caught.value.message.startswith(f"onebox.toml:{line}: [gcp] {key}: ")
    assert text in caught.value.message
