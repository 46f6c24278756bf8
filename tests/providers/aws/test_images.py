"""Base images by name, and saved ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from onebox.errors import Gone, NoCapacity, ProviderError, Unclear, UsageError
from onebox.providers.aws import images
from onebox.providers.aws.provider import AWS
from onebox.providers.base import Box, Image

from ..contract import an_image
from . import shelf
from .account import Account
from .conftest import MakeAws, MakeRequest, up


def ami(account: Account, text: str, region: str = "us-east-1") -> Any:
    """Return the image that a base's text names."""
    word = next(word for word in text.split() if word.startswith("ami-"))
    return account.backend(region).amis[word]


class TestBase:
    @pytest.mark.parametrize(
        ("name", "arch", "owner", "said"),
        [
            ("", "", shelf.CANONICAL, "ubuntu-24.04 amd64"),
            ("ubuntu-24.04", "x86_64", shelf.CANONICAL, "ubuntu-24.04 amd64"),
            ("ubuntu-24.04", "aarch64", shelf.CANONICAL, "ubuntu-24.04 arm64"),
            ("ubuntu-22.04", "x86_64", shelf.CANONICAL, "ubuntu-22.04 amd64"),
            ("debian-12", "aarch64", shelf.DEBIAN, "debian-12 arm64"),
        ],
    )
    def test_names(
        self,
        provider: AWS,
        account: Account,
        name: str,
        arch: str,
        owner: str,
        said: str,
    ) -> None:
        """A name is the distribution's own newest image, for the architecture."""
        for denied in (set(), {"ssm:GetParameters"}):
            account.faults.denied = denied
            text = provider.base(name, arch)
            assert text.startswith(f"{said} ami-")
            image = ami(account, text)
            assert image.owner_id == owner
            assert image.architecture == {"aarch64": "arm64"}.get(arch, "x86_64")

    def test_both_ways_agree(self, make_aws: MakeAws, account: Account) -> None:
        """The parameter and the list of images name the same one, no stranger's."""
        by_parameter = make_aws().base("ubuntu-24.04")
        account.faults.denied.add("ssm:GetParameters")
        assert make_aws().base("ubuntu-24.04") == by_parameter
        assert "20261101" in ami(account, by_parameter).name

    def test_asked_once(self, provider: AWS, account: Account) -> None:
        """The same base is asked for once, under each of its names."""
        for text in ("", "ubuntu-24.04", provider.base()):
            provider.base(text, "x86_64")
        assert account.counted() == {"GetParameters": 1, "DescribeImages": 2}

    def test_id(self, provider: AWS, account: Account) -> None:
        """An image's id means that image."""
        known = provider.base("debian-12").split()[-1]
        assert provider.base(known) == f"{known} amd64"

    @pytest.mark.parametrize(
        "name", ["ubuntu-3.10", "windows-95", "ami-0123456789abcdef0", "im-1", "debian"]
    )
    def test_unknown(self, provider: AWS, name: str) -> None:
        """What there is not is a mistake of the user's, named."""
        with pytest.raises(UsageError, match=name):
            provider.base(name)

    def test_wrong_architecture(self, provider: AWS) -> None:
        """An id of an image for another architecture is refused."""
        known = provider.base("debian-12", "aarch64").split()[-1]
        with pytest.raises(UsageError, match="aarch64"):
            provider.base(known, "x86_64")

    def test_another_region(
        self, make_aws: MakeAws, make_request: MakeRequest, account: Account
    ) -> None:
        """In another region a name is another image; an id is none at all."""
        provider = make_aws(regions=["us-west-2"])
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
        """A box that is stopped, to be saved."""
        box = up(provider, provider.create(make_request(disk=20 << 30)))
        provider.stop(box)
        return box

    def test_tags(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        stopped: Box,
    ) -> None:
        """Image and snapshot are tagged in the call; nothing of either is left."""
        wanted = an_image(make_request(), "deps: 1")
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

    def test_lost_answer(
        self, provider: AWS, make_request: MakeRequest, account: Account, stopped: Box
    ) -> None:
        """An answer that was lost makes no second image."""
        account.faults.add("CreateImage", "cut after")
        image = provider.save(stopped, an_image(make_request()))
        names = [one.name for one in account.backend("us-east-1").amis.values()]
        assert names.count(image.id) == 1
        provider.delete_image(image)
        provider.delete(stopped)

    def test_one_that_stands_still(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        stopped: Box,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A save that does not get on is unclear; asked for again it is waited for."""
        wanted = an_image(make_request())
        monkeypatch.setattr(account.delays, "saving", 3.0)
        with monkeypatch.context() as hasty:
            hasty.setattr(images, "_STILL_SECONDS", 2.0)
            with pytest.raises(Unclear, match="stands still"):
                provider.save(stopped, wanted)
        assert provider.save(stopped, wanted).id == wanted.id
        names = [one.name for one in account.backend("us-east-1").amis.values()]
        assert names.count(wanted.id) == 1
        provider.delete_image(wanted)
        provider.delete(stopped)

    def test_snapshot_left(
        self, provider: AWS, make_request: MakeRequest, account: Account, stopped: Box
    ) -> None:
        """A snapshot whose image is gone already is removed with it."""
        image = provider.save(stopped, an_image(make_request()))
        backend = account.backend("us-east-1")
        (saved,) = [one for one in backend.amis.values() if one.name == image.id]
        backend.deregister_image(saved.id)
        assert saved.ebs_snapshot.id in backend.snapshots
        provider.delete_image(image)
        assert saved.ebs_snapshot.id not in backend.snapshots
        provider.delete(stopped)

    def test_failed(
        self, provider: AWS, make_request: MakeRequest, account: Account, stopped: Box
    ) -> None:
        """An image that could not be saved is cleared away, and that is said."""
        shelf.ShelfImage.gone_bad = "the disk is broken"
        try:
            with pytest.raises(ProviderError, match="failed"):
                provider.save(stopped, an_image(make_request()))
        finally:
            shelf.ShelfImage.gone_bad = ""
        image = provider.save(stopped, an_image(make_request()))
        provider.delete_image(image)
        provider.delete(stopped)

    def test_running(self, provider: AWS, make_request: MakeRequest) -> None:
        """A box that runs is not saved: it would be rebooted."""
        box = up(provider, provider.create(make_request()))
        with pytest.raises(ProviderError, match="stopped"):
            provider.save(box, an_image(make_request()))
        provider.delete(box)

    def test_spot(self, provider: AWS, make_request: MakeRequest) -> None:
        """Of a spot box only a disk is left, which cannot be saved."""
        box = up(provider, provider.create(make_request(spot=True)))
        provider.stop(box)
        with pytest.raises(UsageError, match="spot") as raised:
            provider.save(box, an_image(make_request()))
        assert "--no-spot" in raised.value.next
        provider.delete(box)

    def test_not_there(self, provider: AWS, make_request: MakeRequest) -> None:
        """A box cannot be made from an image that is not there."""
        request = make_request()
        image: Image = dataclasses.replace(an_image(request), places=("us-east-1",))
        with pytest.raises(Gone, match=image.id):
            provider.create(dataclasses.replace(request, image=image))

    def test_an_image_is_listed_at_what_is_stored_not_at_its_disks_size(
        self, provider: AWS, make_request: MakeRequest, stopped: Box
    ) -> None:
        """A snapshot is billed by the blocks written, which EC2 tells."""
        image = provider.save(stopped, an_image(make_request()))
        (listed,) = provider.images(image.tags.owner)
        for one in (image, listed):
            assert (one.stored, one.at_most) == (shelf.BLOCKS, False)
            assert one.disk == 20 << 30
        provider.delete_image(image)
        provider.delete(stopped)

    @pytest.mark.parametrize("why", ["not told", "not allowed"])
    def test_an_image_of_unknown_size_is_listed_as_at_most_its_disk(
        self,
        provider: AWS,
        make_request: MakeRequest,
        account: Account,
        stopped: Box,
        why: str,
    ) -> None:
        """Where EC2 does not tell what is stored, the disk is an upper bound."""
        image = provider.save(stopped, an_image(make_request()))
        backend = account.backend("us-east-1")
        (saved,) = [one for one in backend.amis.values() if one.name == image.id]
        if why == "not told":
            shelf.WRITTEN[saved.ebs_snapshot.id] = None
        else:
            account.faults.denied.add("ec2:DescribeSnapshots")
        (listed,) = provider.images(image.tags.owner)
        assert (listed.stored, listed.at_most) == (20 << 30, True)
        account.faults.denied.clear()
        provider.delete_image(image)
        provider.delete(stopped)
