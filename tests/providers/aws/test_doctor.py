"""The checks of `inv doctor` for an AWS account."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onebox.providers.values import Check
from tests.fakes.aws.account import Account

from .conftest import MakeProvider


def lines(make_provider: MakeProvider, **settings: object) -> dict[str, Check]:
    """Return the checks by their names."""
    return {one.name: one for one in make_provider(**settings).checks()}


class TestChecks:
    def test_checks_of_a_good_account_pass(
        self, make_provider: MakeProvider, account: Account
    ) -> None:
        """The lines name the identity, the region and the permissions."""
        account.faults.denied.add("ec2:TerminateInstances")
        found = lines(make_provider)
        assert {one.ok for one in found.values()} == {True}
        assert "user/tester" in found["credentials"].detail
        assert "us-east-1a" in found["region"].detail
        assert "1000 vCPU" in found["quota on demand"].detail
        assert not account.alive("ob-doctor")

    def test_permission_to_terminate_any_instance_is_a_remark(
        self, make_provider: MakeProvider
    ) -> None:
        """The credentials work, but AWS would protect no other instance."""
        line = lines(make_provider)["may remove"]
        assert line.ok is None
        assert "policy" in line.next

    @pytest.mark.parametrize(
        ("operation", "name"),
        [("DescribeSubnets", "network"), ("GetServiceQuota", "quota on demand")],
    )
    def test_a_check_without_a_response_is_a_remark(
        self, make_provider: MakeProvider, account: Account, operation: str, name: str
    ) -> None:
        """It proves nothing about a box, so it is no failure."""
        account.faults.add(operation, "broken", 100)
        found = lines(make_provider)
        assert found[name].ok is None
        assert "not known" in found[name].detail
        assert False not in {one.ok for one in found.values()}

    @pytest.mark.parametrize(
        ("denied", "name", "ok"),
        [
            ("ec2:RunInstances", "may create", False),
            ("ec2:DescribeSubnets", "network", False),
            ("pricing:GetProducts", "prices", None),
            ("cloudwatch:DescribeAlarms", "alarms", None),
            ("servicequotas:GetServiceQuota", "quota spot", None),
            ("ec2:DescribeAvailabilityZones", "region", False),
        ],
    )
    def test_each_missing_permission_is_named(
        self,
        make_provider: MakeProvider,
        account: Account,
        denied: str,
        name: str,
        ok: bool | None,
    ) -> None:
        """Each has a line of its own, with the name of the action."""
        account.faults.denied.add(denied)
        line = lines(make_provider)[name]
        assert line.ok is ok
        assert denied in line.detail

    @pytest.mark.parametrize(
        ("cpus", "ok"), [(0, False), (1, None), (32, None), (64, True)]
    )
    def test_a_small_vcpu_quota_is_reported(
        self, make_provider: MakeProvider, account: Account, cpus: int, ok: bool | None
    ) -> None:
        """The line gives the limit before a launch meets it."""
        account.faults.cpus = cpus
        line = lines(make_provider)["quota on demand"]
        assert line.ok is ok
        assert line.ok or "servicequotas" in line.next

    def test_expired_credentials_are_one_line(
        self, make_provider: MakeProvider, account: Account
    ) -> None:
        """No exception is raised."""
        account.expired = True
        line = lines(make_provider)["credentials"]
        assert line.ok is False
        assert "expired" in line.detail
        assert line.next

    def test_missing_credentials_and_a_missing_region_are_reported(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each is one line, and no exception is raised."""
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_REGION")
        found = lines(make_provider)
        assert found["credentials"].ok is False
        assert found["region"].ok is False
        assert "no AWS region" in found["region"].detail

    def test_temporary_credentials_show_their_expiry(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """The line gives the time of the expiry."""
        credentials = {
            "Version": 1,
            "AccessKeyId": "AKIATESTTESTTEST",
            "SecretAccessKey": "x",
            "SessionToken": "x",
            "Expiration": "2099-01-01T00:00:00+00:00",
        }
        (tmp_path / "credentials.json").write_text(json.dumps(credentials))
        (tmp_path / "config").write_text(
            f"[default]\ncredential_process = cat {tmp_path}/credentials.json\n"
        )
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        line = lines(make_provider)["credentials last"]
        assert line.ok is None
        assert "2099-01-01" in line.detail or "2098-12-31" in line.detail
        assert make_provider().credentials_expire() == 4070908800

    def test_long_term_keys_have_no_expiry(self, make_provider: MakeProvider) -> None:
        """The line gives no time."""
        assert make_provider().credentials_expire() is None
