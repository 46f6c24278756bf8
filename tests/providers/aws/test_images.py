"""Base images by name, and saved images."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from onebox.errors import Gone, NoCapacity, ProviderError, Unclear, UsageError
from onebox.providers.aws import images
from onebox.providers.aws.provider import AWS
from onebox.providers.values import Box, Image
from tests.fakes.aws import catalog
from tests.fakes.aws.account import Account

from ..boxes import MakeRequest, image_of, when_up
from .conftest import MakeProvider


def ami(account: Account, text: str, region: str = "us-east-1") -> Any:
    """Return the AMI of a provider's base."""
    word = next(word for word in text.split() if word.startswith("ami-"))
    return account.backend(region).amis[word]


class TestBase:
    @pytest.mark.parametrize(
        ("name", "arch", "owner", "expected"),
        [
            ("", "", catalog.CANONICAL, "ubuntu-24.04 amd64"),
            ("ubuntu-24.04", "x86_64", catalog.CANONICAL, "ubuntu-24.04 amd64"),
            ("ubuntu-24.04", "aarch64", catalog.CANONICAL, "ubuntu-24.04 arm64"),
            ("ubuntu-22.04", "x86_64", catalog.CANONICAL, "ubuntu-22.04 amd64"),
            ("debian-12", "aarch64", catalog.DEBIAN, "debian-12 arm64"),
        ],
    )
    def test_a_base_name_is_the_newest_image_of_its_publisher(
        self,
        provider: AWS,
        account: Account,
        name: str,
        arch: str,
        owner: str,
        expected: str,
    ) -> None:
        """There is one for each architecture."""
        for denied in (set(), {"ssm:GetParameters"}):
            account.faults.denied = denied
            text = provider.base(name, arch)
            assert text.startswith(f"{expected} ami-")
            image = ami(account, text)
            assert image.owner_id == owner
            assert image.architecture == {"aarch64": "arm64"}.get(arch, "x86_64")

    def test_the_parameter_and_the_image_list_agree(
        self, make_provider: MakeProvider, account: Account
    ) -> None:
        """Neither returns an image of another publisher."""
        by_parameter = make_provider().base("ubuntu-24.04")
        account.faults.denied.add("ssm:GetParameters")
        assert make_provider().base("ubuntu-24.04") == by_parameter
        assert "20261101" in ami(account, by_parameter).name

    def test_a_base_is_looked_up_once(self, provider: AWS, account: Account) -> None:
        """Each of its names is cached."""
        for text in ("", "ubuntu-24.04", provider.base()):
            provider.base(text, "x86_64")
        assert account.counted() == {"GetParameters": 1, "DescribeImages": 2}

    def test_an_ami_id_is_that_image(self, provider: AWS, account: Account) -> None:
        """It is used as it is."""
        known = provider.base("debian-12").split()[-1]
        assert provider.base(known) == f"{known} amd64"

    @pytest.mark.parametrize(
        "name", ["ubuntu-3.10", "windows-95", "ami-0123456789abcdef0", "im-1", "debian"]
    )
    def test_an_unknown_base_is_a_usage_error(self, provider: AWS, name: str) -> None:
        """The message names it."""
        with pytest.raises(UsageError, match=name):
            provider.base(name)

    def test_an_ami_of_another_architecture_is_refused(self, provider: AWS) -> None:
        """The error names both architectures."""
        known = provider.base("debian-12", "aarch64").split()[-1]
        with pytest.raises(UsageError, match="aarch64"):
            provider.base(known, "x86_64")

    def test_a_base_name_is_another_ami_in_each_region(
        self, make_provider: MakeProvider, make_request: MakeRequest, account: Account
    ) -> None:
        """An AMI's id exists in one region only."""
        provider = make_provider(regions=["us-west-2"])
        text = provider.base("ubuntu-24.04")
        box = provider.create(make_request(zone="us-west-2a", base=text))
        (machine,) = account.alive(box.id)
        assert machine.image_id != text.split()[-1]
        assert machine.image_id in account.backend("us-west-2").amis
        provider.delete(box)
        with pytest.raises(NoCapacity, match="us-west-2"):
            provider.create(make_request(zone="us-west-2a", base=text.split()[-1]))


class TestSaved:
    @pytest.fixture
    def stopped(self, provider: AWS, make_request: MakeRequest) -> Box:
        """A stopped box."""
        box = when_up(provider, provider.create(make_request(disk=20 << 30)))
        provider.stop(box)
        return box

    def test_the_saving_call_sets_the_tags(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        stopped: Box,
    ) -> None:
        """Image and snapshot have them; a delete leaves neither."""
        wanted = image_of(make_request(), "deps: 1")
        image = provider.save(stopped, wanted)
        assert (image.name, image.places) == ("deps: 1", ("us-east-1",))
        assert (image.arch, image.disk) == ("x86_64", 20 << 30)
        backend = account.backend("us-east-1")
        (saved,) = [one for one in backend.amis.values() if one.name == image.id]
        for resource in (saved, saved.ebs_snapshot):
            tags = {tag["key"]: tag["value"] for tag in resource.get_tags()}
            assert tags["onebox:owner"] == image.tags.owner
            assert tags["onebox:image"] == image.id
        provider.delete_image(image)
        assert saved.id not in backend.amis
        assert saved.ebs_snapshot.id not in backend.snapshots
        provider.delete(stopped)

    def test_a_lost_response_makes_no_second_image(
        self, provider: AWS, make_request: MakeRequest, account: Account, stopped: Box
    ) -> None:
        """The repeated call finds the first image."""
        account.faults.add("CreateImage", "cut after")
        image = provider.save(stopped, image_of(make_request()))
        names = [one.name for one in account.backend("us-east-1").amis.values()]
        assert names.count(image.id) == 1
        provider.delete_image(image)
        provider.delete(stopped)

    def test_a_save_that_makes_no_progress_is_unclear(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        stopped: Box,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A repeated save waits for the same image."""
        wanted = image_of(make_request())
        monkeypatch.setattr(account.delays, "saving", 3.0)
        monkeypatch.setattr(account.delays, "stands_still", True)
        with monkeypatch.context() as hasty:
            hasty.setattr(images, "_STILL_SECONDS", 2.0)
            with pytest.raises(Unclear, match="stands still"):
                provider.save(stopped, wanted)
        assert provider.save(stopped, wanted).id == wanted.id
        names = [one.name for one in account.backend("us-east-1").amis.values()]
        assert names.count(wanted.id) == 1
        provider.delete_image(wanted)
        provider.delete(stopped)

    def test_the_progress_of_the_snapshot_is_reported(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        stopped: Box,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Each poll asks once for images and at most once for snapshots."""
        monkeypatch.setattr(account.delays, "saving", 2.0)
        account.calls.clear()
        reported: list[float] = []
        image = provider.save(
            stopped, image_of(make_request()), lambda done, total: reported.append(done)
        )
        assert reported
        assert reported == sorted(reported)
        assert all(0 <= done <= 1 for done in reported)
        counted = account.counted()
        # Before the polls are one look for the image and one at the progress.
        assert len(reported) + 1 <= counted["DescribeSnapshots"] <= len(reported) + 2
        provider.delete_image(image)
        provider.delete(stopped)

    def test_a_save_needs_no_permission_to_list_snapshots(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        stopped: Box,
    ) -> None:
        """Without it only the progress is unknown."""
        reported: list[float] = []
        account.faults.denied.add("ec2:DescribeSnapshots")
        image = provider.save(
            stopped, image_of(make_request()), lambda done, total: reported.append(done)
        )
        assert not reported
        account.faults.denied.clear()
        provider.delete_image(image)
        provider.delete(stopped)

    @pytest.mark.parametrize("unknown", [[], [""], ["None"], ["50%", ""], ["-1%"]])
    def test_an_unknown_progress_is_not_reported(self, unknown: list[str]) -> None:
        """EC2 leaves the field empty for some time."""
        reported: list[float] = []
        images._report(unknown, lambda done, total: reported.append(done))
        assert reported == []
        images._report(["20%", "40%"], lambda done, total: reported.append(done))
        assert reported == [0.3]

    def test_a_snapshot_without_its_image_is_deleted_too(
        self, provider: AWS, make_request: MakeRequest, account: Account, stopped: Box
    ) -> None:
        """A crash can delete the image alone."""
        image = provider.save(stopped, image_of(make_request()))
        backend = account.backend("us-east-1")
        (saved,) = [one for one in backend.amis.values() if one.name == image.id]
        backend.deregister_image(saved.id)
        assert saved.ebs_snapshot.id in backend.snapshots
        provider.delete_image(image)
        assert saved.ebs_snapshot.id not in backend.snapshots
        provider.delete(stopped)

    def test_a_failed_image_is_removed(
        self, provider: AWS, make_request: MakeRequest, account: Account, stopped: Box
    ) -> None:
        """The error gives EC2's reason."""
        catalog.CatalogImage.fails = "the disk is broken"
        try:
            with pytest.raises(ProviderError, match="failed"):
                provider.save(stopped, image_of(make_request()))
        finally:
            catalog.CatalogImage.fails = ""
        image = provider.save(stopped, image_of(make_request()))
        provider.delete_image(image)
        provider.delete(stopped)

    def test_a_running_box_is_not_saved(
        self, provider: AWS, make_request: MakeRequest
    ) -> None:
        """EC2 would reboot it."""
        box = when_up(provider, provider.create(make_request()))
        with pytest.raises(ProviderError, match="stopped"):
            provider.save(box, image_of(make_request()))
        provider.delete(box)

    def test_a_spot_box_cannot_be_saved(
        self, provider: AWS, make_request: MakeRequest
    ) -> None:
        """Only its disk is left when it stops."""
        box = when_up(provider, provider.create(make_request(spot=True)))
        provider.stop(box)
        with pytest.raises(UsageError, match="spot") as raised:
            provider.save(box, image_of(make_request()))
        assert "--no-spot" in raised.value.next
        provider.delete(box)

    def test_a_box_from_a_missing_image_is_refused(
        self, provider: AWS, make_request: MakeRequest
    ) -> None:
        """The error names the image."""
        request = make_request()
        image: Image = dataclasses.replace(image_of(request), places=("us-east-1",))
        with pytest.raises(Gone, match=image.id):
            provider.create(dataclasses.replace(request, image=image))

    def test_an_image_is_listed_at_what_is_stored_not_at_its_disks_size(
        self, provider: AWS, make_request: MakeRequest, stopped: Box
    ) -> None:
        """A snapshot is billed for the blocks that it stores."""
        image = provider.save(stopped, image_of(make_request()))
        (listed,) = provider.images(image.tags.owner)
        for one in (image, listed):
            assert (one.stored, one.at_most) == (catalog.BLOCKS, False)
            assert one.disk == 20 << 30
        provider.delete_image(image)
        provider.delete(stopped)

    @pytest.mark.parametrize("why", ["not reported", "not allowed"])
    def test_an_image_of_unknown_size_is_listed_as_at_most_its_disk(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        stopped: Box,
        why: str,
    ) -> None:
        """Without EC2's figure the size of the disk is the upper bound."""
        image = provider.save(stopped, image_of(make_request()))
        backend = account.backend("us-east-1")
        (saved,) = [one for one in backend.amis.values() if one.name == image.id]
        if why == "not reported":
            catalog.WRITTEN[saved.ebs_snapshot.id] = None
        else:
            account.faults.denied.add("ec2:DescribeSnapshots")
        (listed,) = provider.images(image.tags.owner)
        assert (listed.stored, listed.at_most) == (20 << 30, True)
        account.faults.denied.clear()
        provider.delete_image(image)
        provider.delete(stopped)
