"""The settings and credentials of the AWS client, and the errors without them."""

from __future__ import annotations

import pytest

from onebox.errors import (
    NotAllowed,
    ProviderError,
    SetupError,
    UsageError,
)
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest
from .conftest import MakeProvider


class TestSettings:
    def test_a_missing_subnet_is_a_usage_error(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The setting names it."""
        with pytest.raises(UsageError, match="subnet-0123abcd"):
            make_provider(subnet="subnet-0123abcd").create(make_request())

    def test_a_missing_security_group_is_a_usage_error(
        self, make_provider: MakeProvider, make_request: MakeRequest
    ) -> None:
        """The setting names it."""
        with pytest.raises(UsageError, match="sg-0123abcd"):
            make_provider(security_group="sg-0123abcd").create(make_request())

    def test_a_missing_region_is_one_clear_error(
        self,
        make_provider: MakeProvider,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """No call is made."""
        monkeypatch.delenv("AWS_REGION")
        with pytest.raises(SetupError, match="no AWS region is set"):
            make_provider().find("owner")

    def test_the_region_is_that_of_the_settings_before_the_environment(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """AWS's own variables name it if the settings do not."""
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-west-2")
        monkeypatch.delenv("AWS_REGION")
        assert make_provider()._cloud.region == "us-west-2"
        assert make_provider(region="eu-west-1")._cloud.region == "eu-west-1"

    def test_an_unknown_region_is_named_with_a_similar_one(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is a usage error."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(UsageError, match="us-esat-1") as raised:
            make_provider(region="us-esat-1").find("owner")
        assert "us-east-1" in raised.value.next

    def test_an_unreachable_network_is_named_as_the_cause(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names proxy and network."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(ProviderError, match="cannot be reached"):
            make_provider().find("owner")

    def test_missing_credentials_have_advice(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names the commands that create some."""
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(NotAllowed, match="credentials") as raised:
            make_provider().find("owner")
        assert "aws configure" in raised.value.next

    def test_a_missing_profile_is_a_usage_error(
        self, make_provider: MakeProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The error names AWS's own configuration."""
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        with pytest.raises(UsageError, match="nobody"):
            make_provider().find("owner")

    def test_a_wrong_clock_is_not_reported_as_bad_credentials(
        self, make_provider: MakeProvider, account: Account, make_request: MakeRequest
    ) -> None:
        """AWS reports it as refused credentials."""
        account.skew = 1800
        account.faults.add("DescribeInstances", "bad key")
        with pytest.raises(NotAllowed, match="30 minutes behind"):
            make_provider().find("owner")
