"""Start of a stopped instance: its deadline and its user data."""

from __future__ import annotations

import time

import pytest

from onebox.errors import NoCapacity
from onebox.providers.aws.provider import AWS
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, when_up
from .conftest import MakeProvider
from .test_rescue import user_data


class TestStart:
    def test_a_start_writes_the_new_deadline_everywhere(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """User data, tags and alarm agree."""
        box = when_up(provider, provider.create(make_request()))
        (machine,) = account.alive(box.id)
        provider.stop(box)
        deadline = time.time() + 1234
        account.calls.clear()
        started = when_up(provider, provider.start(box, deadline))
        assert started.deadline == deadline
        assert started.tags.deadline == deadline
        assert str(deadline) in user_data(machine)
        assert "BEGIN OPENSSH" not in user_data(machine)
        names = [call.action for call in account.calls]
        assert names.index("PutMetricAlarm") < names.index("StartInstances")
        provider.delete(started)

    def test_a_start_without_capacity_keeps_the_box_stopped(
        self, provider: AWS, make_request: MakeRequest, account: Account
    ) -> None:
        """Its disk stays."""
        box = when_up(provider, provider.create(make_request()))
        provider.stop(box)
        account.faults.full.add(("*", "*", None))
        with pytest.raises(NoCapacity):
            provider.start(box, time.time() + 900)
        found = provider.get(box.id)
        assert found is not None
        assert found.state == "stopped"
        provider.delete(box)

    def test_starting_a_running_box_changes_nothing(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """It stays running."""
        provider = make_provider()
        box = when_up(provider, provider.create(make_request()))
        assert provider.start(box, time.time() + 900) == box
        assert "StartInstances" not in account.counted()
        provider.delete(box)
