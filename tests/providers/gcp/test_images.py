"""Base images by name, saved images, and images of Packer."""

from __future__ import annotations

import dataclasses

import pytest

from onebox.errors import Gone, NotAllowed, ProviderError, UsageError
from onebox.providers.gcp import base_images
from onebox.providers.gcp.provider import GCP
from onebox.providers.values import Box, Image
from tests.fakes.gcp.server import Server

from ..boxes import MakeRequest, when_up
from .test_creation import metadata


@pytest.fixture
def box(provider: GCP, make_request: MakeRequest) -> Box:
    """A stopped box."""
    made = provider.create(make_request())
    provider.stop(made)
    return made


@pytest.fixture
def requested(box: Box) -> Image:
    """Return the image to save a box as."""
    tags = dataclasses.replace(box.tags, kind="image")
    return Image("im-abc", "Main image", "f" * 64, 0.0, 0, "", tags)


class TestSave:
    def test_an_image_is_read_back_completely(
        self, server: Server, provider: GCP, box: Box, requested: Image
    ) -> None:
        """It is stored in the region of its box."""
        saved = provider.save(box, requested)
        assert list(provider.images(box.tags.owner)) == [saved]
        assert (saved.id, saved.name, saved.recipe) == (
            "im-abc",
            "Main image",
            "f" * 64,
        )
        assert saved.arch == "x86_64"
        assert saved.stored > 0
        [call] = server.calls("images.insert")
        assert call.body["storageLocations"] == ["us-central1"]
        assert call.body["family"].startswith("onebox-")
        assert "forceCreate" not in call.query

    @pytest.mark.parametrize("kind", ["cut", "503-after", "truncated-after"])
    def test_a_lost_response_makes_one_image(
        self, server: Server, provider: GCP, box: Box, requested: Image, kind: str
    ) -> None:
        """The second attempt has the same request id."""
        server.fail("images.insert", kind)
        provider.save(box, requested)
        assert len(server.account.images) == 1

    def test_a_running_box_is_not_saved(
        self, provider: GCP, make_request: MakeRequest, requested: Image
    ) -> None:
        """Its disk may change meanwhile."""
        running = provider.create(make_request())
        with pytest.raises(ProviderError, match="stopped"):
            provider.save(running, requested)

    def test_a_failed_image_is_deleted(
        self, server: Server, provider: GCP, box: Box, requested: Image
    ) -> None:
        """Google would bill it."""
        server.fail("images.insert", "op:INTERNAL_ERROR")
        with pytest.raises(ProviderError, match="INTERNAL_ERROR"):
            provider.save(box, requested)
        assert not server.account.images

    def test_a_missing_box_cannot_be_saved(
        self, provider: GCP, box: Box, requested: Image
    ) -> None:
        """The error is Gone."""
        provider.delete(box)
        with pytest.raises(Gone):
            provider.save(box, requested)

    def test_an_image_of_another_owner_with_that_name_is_not_touched(
        self, server: Server, provider: GCP, box: Box, requested: Image
    ) -> None:
        """Names are unique in a project."""
        saved = provider.save(box, requested)
        server.account.images["im-abc"]["labels"] = {}
        with pytest.raises(NotAllowed):
            provider.save(box, requested)
        with pytest.raises(NotAllowed):
            provider.delete_image(saved)
        assert "im-abc" in server.account.images

    def test_the_progress_of_the_operation_is_reported(
        self, server: Server, provider: GCP, box: Box, requested: Image
    ) -> None:
        """It ends at 1 when the operation is done."""
        server.account.operations.seconds = 1.0
        reported: list[float] = []
        provider.save(box, requested, lambda done, total: reported.append(done))
        assert sorted(set(reported)) == [0, 0.5, 1]

    def test_other_images_of_the_project_are_not_listed(
        self, server: Server, provider: GCP, box: Box, requested: Image
    ) -> None:
        """They lack the labels."""
        provider.save(box, requested)
        server.account.images["other"] = {"name": "other", "labels": {}}
        assert [image.id for image in provider.images(box.tags.owner)] == ["im-abc"]


class TestOwnImage:
    def test_a_box_from_a_saved_debian_runs_a_startup_script(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Its image has no cloud-init."""
        request = make_request(base="debian-12", disk=40 << 30)
        box = when_up(provider, provider.create(request))
        image = self.saved(provider, box)
        provider.create(make_request(image=image, base="", disk=10 << 30))
        [_, call] = server.calls("instances.insert")
        assert "startup-script" in metadata(call.body)
        requested = call.body["disks"][0]["initializeParams"]
        assert requested["diskSizeGb"] == "40"

    def test_an_image_of_another_project_is_used_by_its_address(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """It needs no label."""
        box = when_up(provider, provider.create(make_request()))
        image = self.saved(provider, box)
        whole = f"projects/test-project/global/images/{image.id}"
        other = provider.create(
            make_request(image=dataclasses.replace(image, id=whole))
        )
        assert other.image == whole

    def saved(self, provider: GCP, box: Box) -> Image:
        """Stop a box and save it; return the image."""
        provider.stop(box)
        tags = dataclasses.replace(box.tags, kind="image")
        image = Image(f"im-{box.id}", "main", "0123", 0.0, 0, "", tags)
        return provider.save(box, image)


class TestAdopt:
    def test_an_image_of_packer_is_adopted_once(
        self, server: Server, provider: GCP, box: Box, requested: Image
    ) -> None:
        """A second adoption changes nothing."""
        provider.save(box, dataclasses.replace(requested, id="packer-1"))
        server.account.images["packer-1"].update(labels={"team": "a"}, description="")
        for _ in range(2):
            ours = provider.adopt_image("packer-1", requested)
            assert (ours.id, ours.name, ours.tags) == (
                "packer-1",
                requested.name,
                requested.tags,
            )
            assert ours.recipe == requested.recipe
        assert list(provider.images(box.tags.owner)) == [ours]
        assert server.account.images["packer-1"]["labels"]["team"] == "a"
        assert len(server.calls("images.setLabels")) == 1
        provider.delete_image(ours)
        assert not server.account.images

    def test_an_image_of_another_box_is_not_adopted(
        self, server: Server, provider: GCP, box: Box, requested: Image
    ) -> None:
        """It keeps its labels."""
        provider.save(box, requested)
        tags = dataclasses.replace(requested.tags, owner="somebody-else")
        with pytest.raises(NotAllowed):
            provider.adopt_image(
                requested.id, dataclasses.replace(requested, tags=tags)
            )

    def test_a_missing_image_cannot_be_adopted(
        self, provider: GCP, requested: Image
    ) -> None:
        """It is a usage error."""
        with pytest.raises(UsageError, match="im-none"):
            provider.adopt_image("im-none", requested)


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
    def test_base_names_are_googles_families(
        self, name: str, arch: str, family: str
    ) -> None:
        """Their names have exceptions."""
        found = base_images.family(name, arch)
        assert found is not None
        assert found.name == family

    def test_a_base_is_an_exact_image(self, provider: GCP) -> None:
        """A new image makes a new recipe."""
        requested = "ubuntu-os-cloud/ubuntu-2404-noble-amd64-v20261101"
        assert provider.base() == requested
        assert provider.base("debian-12") == "debian-cloud/debian-12-bookworm-v20261014"

    def test_a_base_may_be_an_image(
        self,
        server: Server,
        provider: GCP,
        box: Box,
        requested: Image,
        make_request: MakeRequest,
    ) -> None:
        """It has a name or an address."""
        provider.save(box, requested)
        whole = "projects/test-project/global/images/im-abc"
        for name in ("im-abc", whole, f"https://www.googleapis.com/compute/v1/{whole}"):
            assert provider.base(name) == "test-project/im-abc"
            provider.create(make_request(base=name))
        sources = {
            call.body["disks"][0]["initializeParams"]["sourceImage"]
            for call in server.calls("instances.insert")[1:]
        }
        assert sources == {whole}

    def test_a_base_may_be_a_family_of_another_project(
        self, server: Server, provider: GCP, make_request: MakeRequest
    ) -> None:
        """Debian's boxes run a startup script."""
        base = "projects/debian-cloud/global/images/family/debian-12"
        assert provider.base(base) == "debian-cloud/debian-12-bookworm-v20261014"
        provider.create(make_request(base=base))
        [call] = server.calls("instances.insert")
        keys = {item["key"] for item in call.body["metadata"]["items"]}
        assert "startup-script" in keys

    def test_an_unknown_base_is_refused(self, provider: GCP) -> None:
        """The error names the known ones."""
        with pytest.raises(UsageError) as caught:
            provider.base("windows-95")
        assert "debian-12" in caught.value.next
        for name in ("debian-99", "Not an image"):
            with pytest.raises(UsageError, match=name):
                provider.base(name)
