from __future__ import annotations

import dataclasses

import pytest

from onebox.errors import Gone, NotAllowed, ProviderError, UsageError
from onebox.providers.base import Box, Image
from onebox.providers.gcp import base_images
from onebox.providers.gcp.provider import GCP

from .conftest import Make, Up
from .server import Google
from .test_launch import metadata


@pytest.fixture
def box(provider: GCP, make_request: Make) -> Box:
    """A box that has stopped."""
    made = provider.create(make_request())
    provider.stop(made)
    return made


@pytest.fixture
def wanted(box: Box) -> Image:
    """What the box is to be saved as."""
    tags = dataclasses.replace(box.tags, kind="image")
    return Image("im-abc", "Main image", "f" * 64, 0.0, 0, "", tags)


class TestSave:
    def test_whole(
        self, google: Google, provider: GCP, box: Box, wanted: Image
    ) -> None:
        """An image says all about itself, and is kept where the box was."""
        saved = provider.save(box, wanted)
        assert list(provider.images(box.tags.owner)) == [saved]
        assert (saved.id, saved.name, saved.recipe) == (
            "im-abc",
            "Main image",
            "f" * 64,
        )
        assert saved.arch == "x86_64"
        assert saved.stored > 0
        [call] = google.calls("images.insert")
        assert call.body["storageLocations"] == ["us-central1"]
        assert call.body["family"].startswith("onebox-")
        assert "forceCreate" not in call.query

    @pytest.mark.parametrize("kind", ["cut", "503-after", "truncated-after"])
    def test_once(
        self, google: Google, provider: GCP, box: Box, wanted: Image, kind: str
    ) -> None:
        """An answer that is lost makes no second image."""
        google.fail("images.insert", kind)
        provider.save(box, wanted)
        assert len(google.project.images) == 1

    def test_running(self, provider: GCP, make_request: Make, wanted: Image) -> None:
        """A box that runs is not saved: its disk is in motion."""
        running = provider.create(make_request())
        with pytest.raises(ProviderError, match="stopped"):
            provider.save(running, wanted)

    def test_fails(
        self, google: Google, provider: GCP, box: Box, wanted: Image
    ) -> None:
        """Of saving that fails no half image is left, which would be billed."""
        google.fail("images.insert", "op:INTERNAL_ERROR")
        with pytest.raises(ProviderError, match="INTERNAL_ERROR"):
            provider.save(box, wanted)
        assert not google.project.images

    def test_gone(self, provider: GCP, box: Box, wanted: Image) -> None:
        """Of a box that is not there nothing can be saved."""
        provider.delete(box)
        with pytest.raises(Gone):
            provider.save(box, wanted)

    def test_taken(
        self, google: Google, provider: GCP, box: Box, wanted: Image
    ) -> None:
        """An image of that name that is somebody else's is left alone."""
        saved = provider.save(box, wanted)
        google.project.images["im-abc"]["labels"] = {}
        with pytest.raises(NotAllowed):
            provider.save(box, wanted)
        with pytest.raises(NotAllowed):
            provider.delete_image(saved)
        assert "im-abc" in google.project.images

    def test_strangers(
        self, google: Google, provider: GCP, box: Box, wanted: Image
    ) -> None:
        """Other images of the project are none of ours."""
        provider.save(box, wanted)
        google.project.images["other"] = {"name": "other", "labels": {}}
        assert [image.id for image in provider.images(box.tags.owner)] == ["im-abc"]


class TestOwnImage:
    def test_debian_stays_debian(
        self, google: Google, provider: GCP, make_request: Make, up: Up
    ) -> None:
        """A box from an image saved of a Debian box is armed as that one was."""
        request = make_request(base="debian-12", disk=40 << 30)
        box = up(provider, provider.create(request))
        image = self.saved(provider, box)
        provider.create(make_request(image=image, base="", disk=10 << 30))
        [_, call] = google.calls("instances.insert")
        assert "startup-script" in metadata(call.body)
        wanted = call.body["disks"][0]["initializeParams"]
        assert wanted["diskSizeGb"] == "40"

    def test_of_somebody(
        self, google: Google, provider: GCP, make_request: Make, up: Up
    ) -> None:
        """An image by its full address is used as it is."""
        box = up(provider, provider.create(make_request()))
        image = self.saved(provider, box)
        whole = f"projects/test-project/global/images/{image.id}"
        other = provider.create(
            make_request(image=dataclasses.replace(image, id=whole))
        )
        assert other.image == whole

    def saved(self, provider: GCP, box: Box) -> Image:
        """Return the image of a box that is stopped for it."""
        provider.stop(box)
        tags = dataclasses.replace(box.tags, kind="image")
        image = Image(f"im-{box.id}", "main", "0123", 0.0, 0, "", tags)
        return provider.save(box, image)


class TestAdopt:
    def test_twice(
        self, google: Google, provider: GCP, box: Box, wanted: Image
    ) -> None:
        """An image that Packer has built becomes ours, once and for all."""
        provider.save(box, dataclasses.replace(wanted, id="packer-1"))
        google.project.images["packer-1"].update(labels={"team": "a"}, description="")
        for _ in range(2):
            ours = provider.adopt_image("packer-1", wanted)
            assert (ours.id, ours.name, ours.tags) == (
                "packer-1",
                wanted.name,
                wanted.tags,
            )
            assert ours.recipe == wanted.recipe
        assert list(provider.images(box.tags.owner)) == [ours]
        assert google.project.images["packer-1"]["labels"]["team"] == "a"
        assert len(google.calls("images.setLabels")) == 1
        provider.delete_image(ours)
        assert not google.project.images

    def test_theirs(
        self, google: Google, provider: GCP, box: Box, wanted: Image
    ) -> None:
        """An image that is somebody else's box's stays theirs."""
        provider.save(box, wanted)
        tags = dataclasses.replace(wanted.tags, owner="somebody-else")
        with pytest.raises(NotAllowed):
            provider.adopt_image(wanted.id, dataclasses.replace(wanted, tags=tags))

    def test_nothing(self, provider: GCP, wanted: Image) -> None:
        """What is not there cannot be taken over."""
        with pytest.raises(UsageError, match="im-none"):
            provider.adopt_image("im-none", wanted)


class TestBases:
    @pytest.mark.parametrize(
        ("name", "arch", "family"),
        [
            ("", "", "ubuntu-2404-lts-amd64"),
            ("ubuntu-24.04", "x86_64", "ubuntu-2404-lts-amd64"),
            ("ubuntu-24.04", "aarch64", "ubuntu-2404-lts-arm64"),
            ("ubuntu-22.04", "", "ubuntu-2204-lts"),
            ("ubuntu-22.04", "aarch64", "ubuntu-2204-lts-arm64"),
            ("debian-12", "", "debian-12"),
            ("debian-12", "arm64", "debian-12-arm64"),
        ],
    )
    def test_family(self, name: str, arch: str, family: str) -> None:
        """Families are called as Google calls them, with its exceptions."""
        found = base_images.family(name, arch)
        assert found is not None
        assert found.name == family

    def test_exactly(self, provider: GCP) -> None:
        """A base is named to the day, so that a new one is another recipe."""
        wanted = "ubuntu-os-cloud/ubuntu-2404-noble-amd64-v20261101"
        assert provider.base() == wanted
        assert provider.base("debian-12") == "debian-cloud/debian-12-bookworm-v20261014"

    def test_own_image(
        self, google: Google, provider: GCP, box: Box, wanted: Image, make_request: Make
    ) -> None:
        """A base may be an image, by its name or by its whole address."""
        provider.save(box, wanted)
        whole = "projects/test-project/global/images/im-abc"
        for name in ("im-abc", whole, f"https://www.googleapis.com/compute/v1/{whole}"):
            assert provider.base(name) == "test-project/im-abc"
            provider.create(make_request(base=name))
        sources = {
            call.body["disks"][0]["initializeParams"]["sourceImage"]
            for call in google.calls("instances.insert")[1:]
        }
        assert sources == {whole}

    def test_family_of_somebody(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """A base may be a family, by its address; Debian's is armed as Debian is."""
        base = "projects/debian-cloud/global/images/family/debian-12"
        assert provider.base(base) == "debian-cloud/debian-12-bookworm-v20261014"
        provider.create(make_request(base=base))
        [call] = google.calls("instances.insert")
        keys = {item["key"] for item in call.body["metadata"]["items"]}
        assert "startup-script" in keys

    def test_unknown(self, provider: GCP) -> None:
        """An environment that Google has not is refused, with those it has."""
        with pytest.raises(UsageError) as caught:
            provider.base("windows-95")
        assert "debian-12" in caught.value.next
        for name in ("debian-99", "Not an image"):
            with pytest.raises(UsageError, match=name):
                provider.base(name)
