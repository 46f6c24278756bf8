from __future__ import annotations

import dataclasses
import json
import time
import uuid

import pytest

from onebox.errors import ProviderError, UsageError
from onebox.providers.base import Offer
from onebox.providers.gcp.provider import GCP

from ..contract import an_image
from .conftest import SIZE, ZONE, Make, MakeProvider, Up
from .server import Google


def metadata(body: dict[str, object]) -> dict[str, str]:
    """Return the metadata items of an instance as a mapping."""
    found = body["metadata"]
    assert isinstance(found, dict)
    return {item["key"]: item["value"] for item in found["items"]}


class TestInsert:
    def test_one_call(self, google: Google, provider: GCP, make_request: Make) -> None:
        """Name, labels, deadline and arming are all in the one call that creates."""
        request = make_request()
        provider.create(request)
        [call] = google.calls("instances.insert")
        body = call.body
        assert body["name"] == request.box
        assert uuid.UUID(call.query["requestId"]).int
        assert body["labels"]["onebox-managed"] == "1"
        assert body["labels"]["onebox-owner"] == request.tags.owner
        assert body["labels"]["onebox-box"] == request.box
        disk = body["disks"][0]
        assert disk["autoDelete"] is True
        assert disk["initializeParams"]["labels"] == body["labels"]
        assert disk["initializeParams"]["sourceImage"].endswith("ubuntu-2404-lts-amd64")
        assert disk["initializeParams"]["diskSizeGb"] == "100"
        assert "serviceAccounts" not in body

    def test_request_id(
        self, google: Google, make_provider: MakeProvider, make_request: Make
    ) -> None:
        """The same box id is the same request id, in another process too."""
        request = make_request()
        for _ in range(2):
            make_provider().create(request)
        other = make_request()
        make_provider().create(other)
        ids = [call.query["requestId"] for call in google.calls("instances.insert")]
        assert ids[0] == ids[1] != ids[2]
        assert google.project.instances.mutations == {request.box: 1, other.box: 1}

    @pytest.mark.parametrize("spot", [True, False])
    def test_scheduling(
        self, google: Google, provider: GCP, make_request: Make, spot: bool
    ) -> None:
        """Google itself stops the box a quarter of an hour after its deadline."""
        request = make_request(offer=dataclasses.replace(SIZE, spot=spot))
        provider.create(request)
        [call] = google.calls("instances.insert")
        found = call.body["scheduling"]
        assert found["provisioningModel"] == ("SPOT" if spot else "STANDARD")
        assert found["automaticRestart"] is False
        assert found["instanceTerminationAction"] == "STOP"
        left = request.boot_config.deadline - time.time()
        seconds = int(found["maxRunDuration"]["seconds"])
        assert left + 890 < seconds < left + 960

    @pytest.mark.parametrize(
        ("type_", "policy"),
        [
            ("n2d-standard-4", "MIGRATE"),
            ("e2-standard-4", "MIGRATE"),
            ("g2-standard-4", "TERMINATE"),
            ("a2-highgpu-1g", "TERMINATE"),
            ("c3-standard-192-metal", "TERMINATE"),
        ],
    )
    def test_what_cannot_be_moved_is_not_asked_to(
        self,
        google: Google,
        provider: GCP,
        make_request: Make,
        up: Up,
        type_: str,
        policy: str,
    ) -> None:
        """A type with GPUs, or bare metal, is made, and started again, on demand."""
        size = dataclasses.replace(SIZE, type=type_, spot=False)
        box = up(provider, provider.create(make_request(offer=size)))
        scheduling = google.project.instance(box.id)["scheduling"]
        assert scheduling["onHostMaintenance"] == policy
        provider.stop(box)
        provider.start(box, time.time() + 600)
        scheduling = google.project.instance(box.id)["scheduling"]
        assert scheduling["onHostMaintenance"] == policy

    def test_metadata(self, google: Google, provider: GCP, make_request: Make) -> None:
        """OS Login is off for this box, its host keys are told, and it is armed."""
        request = make_request()
        provider.create(request)
        told = metadata(google.calls("instances.insert")[0].body)
        assert told["enable-oslogin"] == "FALSE"
        assert told["block-project-ssh-keys"] == "TRUE"
        assert told["enable-guest-attributes"] == "TRUE"
        assert told["serial-port-enable"] == "FALSE"
        assert told["ssh-keys"].startswith("onebox:ssh-ed25519 ")
        assert told["user-data"].startswith("#cloud-config")
        assert "startup-script" not in told

    def test_debian(self, google: Google, provider: GCP, make_request: Make) -> None:
        """Debian's images have no cloud-init: they are armed by a startup script."""
        provider.create(make_request(base="debian-12"))
        [call] = google.calls("instances.insert")
        told = metadata(call.body)
        assert told["startup-script"].startswith("#!/bin/sh")
        assert "user-data" not in told
        source = call.body["disks"][0]["initializeParams"]["sourceImage"]
        assert source == "projects/debian-cloud/global/images/family/debian-12"

    def test_no_private_key(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """No private key travels: the box makes its own host key."""
        request = make_request()
        provider.create(request)
        assert request.host_key.private
        for line in request.host_key.private.splitlines()[1:3]:
            assert not any(line in json.dumps(one.body) for one in google.seen)

    def test_disk(
        self, google: Google, make_provider: MakeProvider, make_request: Make
    ) -> None:
        """A disk is as large as asked for, of a kind that the family takes."""
        provider = make_provider(disk_type="pd-ssd", disk=50 << 30)
        n4 = dataclasses.replace(SIZE, type="n4-standard-4")
        provider.create(make_request(disk=200 << 30))
        box = provider.create(make_request(offer=n4))
        assert box.notes == (
            "the disk is hyperdisk-balanced: n4-standard-4 does not support pd-ssd",
        )
        wanted = [
            call.body["disks"][0]["initializeParams"]
            for call in google.calls("instances.insert")
        ]
        assert [one["diskSizeGb"] for one in wanted] == ["200", "50"]
        assert [one["diskType"].rpartition("/")[2] for one in wanted] == [
            "pd-ssd",
            "hyperdisk-balanced",
        ]

    def test_private(
        self, google: Google, make_provider: MakeProvider, make_request: Make, up: Up
    ) -> None:
        """A private box has no public address, and is reached through the jump host."""
        provider = make_provider(private=True, jump="me@bastion", subnet="lab")
        box = up(provider, provider.create(make_request()))
        [interface] = google.calls("instances.insert")[0].body["networkInterfaces"]
        assert "accessConfigs" not in interface
        wanted = "projects/test-project/regions/us-central1/subnetworks/lab"
        assert interface["subnetwork"] == wanted
        assert box.host.startswith("10.")
        assert box.jump == "me@bastion"

    @pytest.mark.parametrize("box", ["", "Ob-1", "ob_1", "1ob", "ob/../x", "o" * 64])
    def test_names(self, provider: GCP, make_request: Make, box: str) -> None:
        """What cannot be a name in Google Cloud is refused before any call."""
        with pytest.raises(ProviderError):
            provider.create(make_request(box=box))


class TestWrongNames:
    def test_machine_type(self, provider: GCP, make_request: Make) -> None:
        """A type that is not there is the user's mistake, and is named."""
        size = dataclasses.replace(SIZE, type="n2d-standard-5")
        with pytest.raises(UsageError, match="n2d-standard-5"):
            provider.create(make_request(offer=size))

    def test_network(self, make_provider: MakeProvider, make_request: Make) -> None:
        """A network that is not there is the user's mistake; nothing is left."""
        provider = make_provider(network="nowhere")
        request = make_request()
        with pytest.raises(UsageError, match="nowhere") as caught:
            provider.create(request)
        assert "[gcp] network" in caught.value.next
        assert not provider.leftovers(request.box)

    def test_zone(self, make_provider: MakeProvider, make_request: Make) -> None:
        """A zone that is not there is the user's mistake."""
        size = dataclasses.replace(SIZE, place="us-central1-z")
        with pytest.raises(UsageError, match="us-central1-z"):
            make_provider().create(make_request(offer=size))

    def test_wrong_place(
        self, google: Google, provider: GCP, make_request: Make
    ) -> None:
        """A box in a zone or project that is not there is not called gone."""
        with pytest.raises(UsageError, match="us-central1-z"):
            provider.get(make_request().box, "us-central1-z")
        google.fail("instances.get", "notFound")
        with pytest.raises(UsageError):
            provider.get(make_request().box, ZONE)

    def test_base(self, provider: GCP, make_request: Make) -> None:
        """An environment that Google does not have is refused by name."""
        with pytest.raises(UsageError, match="fedora"):
            provider.create(make_request(base="fedora-41"))

    def test_image(self, provider: GCP, make_request: Make) -> None:
        """An image that is not there is refused before anything is made."""
        image = dataclasses.replace(an_image(make_request()), id="im-none")
        request = make_request(image=image)
        with pytest.raises(UsageError, match="im-none"):
            provider.create(request)
        assert not provider.leftovers(request.box)


class TestBox:
    def test_whole(
        self, make_provider: MakeProvider, make_request: Make, up: Up
    ) -> None:
        """Somebody who knows nothing but the owner finds the whole box again."""
        size = Offer(
            "large", "n2-standard-64", 64, 256 << 30, 1.474, 3.1078, True, ZONE
        )
        request = make_request(offer=size)
        tags = dataclasses.replace(
            request.tags, project="Zensus 2026 / ä", name="x" * 70, kind="builder"
        )
        first = make_provider()
        box = up(first, first.create(dataclasses.replace(request, tags=tags)))
        assert box.tags == tags
        assert list(make_provider().find(tags.owner)) == [box]
        assert make_provider().get(box.id) == box
        assert (box.offer, box.place, box.user) == (size, ZONE, "onebox")
        assert box.created > time.time() - 60

    def test_starting(
        self, google: Google, provider: GCP, make_request: Make, up: Up
    ) -> None:
        """A box runs when its host key is known: before, nobody could tell it."""
        google.project.instances.boot = 3600.0
        box = provider.create(make_request())
        assert (box.state, box.host_key, box.bootstrap_key) == ("starting", "", False)
        assert box.host
        google.project.later.hurry()
        box = up(provider, box)
        assert box.state == "running"
        assert box.host_key.startswith("ssh-ed25519 AAAA")

    def test_first_host_key_counts(
        self, google: Google, make_provider: MakeProvider, make_request: Make, up: Up
    ) -> None:
        """A job that publishes another host key later does not get it believed."""
        provider = make_provider()
        box = up(provider, provider.create(make_request()))
        google.project.instances.guest[box.id]["hostkeys/ssh-ed25519"] = "AAAAother"
        again = make_provider().get(box.id)
        assert again is not None
        assert again.host_key == box.host_key

    @pytest.mark.parametrize(
        "published", ["", "rubbish!", "AAAAC3NzaC1yc2E=", "ssh-ed25519"]
    )
    def test_no_host_key(
        self, google: Google, provider: GCP, make_request: Make, published: str
    ) -> None:
        """What is published and is no ed25519 key is none."""
        google.project.instances.boot = 60.0
        box = provider.create(make_request())
        google.project.instances.guest[box.id] = {"hostkeys/ssh-ed25519": published}
        again = provider.get(box.id, box.place)
        assert again is not None
        assert (again.state, again.host_key) == ("starting", "")

    def test_not_told(self, google: Google, provider: GCP, make_request: Make) -> None:
        """Where host keys may not be read, boxes are still found, and say why."""
        google.fail("instances.getGuestAttributes", "forbidden", times=99)
        box = provider.create(make_request())
        [found] = provider.find(box.tags.owner)
        assert found.state == "starting"
        assert "host key cannot be read" in found.notes[-1]
        provider.delete(found)

    def test_only_looking(
        self, google: Google, provider: GCP, make_request: Make, up: Up
    ) -> None:
        """Who may not write labels still learns the host key."""
        google.fail("instances.setLabels", "forbidden", times=99)
        box = up(provider, provider.create(make_request()))
        assert box.state == "running"

    def test_metadata_lost(
        self, google: Google, provider: GCP, make_request: Make, up: Up
    ) -> None:
        """A box whose own record was removed is still found, priced unknown."""
        box = up(provider, provider.create(make_request()))
        google.project.instance(box.id)["metadata"]["items"] = []
        [found] = provider.find(box.tags.owner)
        assert found.offer.price is None
        assert found.offer.type == box.offer.type
        wanted = dataclasses.replace(box.tags, expires=float(int(box.tags.expires)))
        assert found.tags == wanted
        provider.delete(found)

    def test_strangers(self, google: Google, provider: GCP, make_request: Make) -> None:
        """An instance that is not onebox's is none of ours, whatever its name."""
        box = provider.create(make_request())
        google.project.instance(box.id)["labels"] = {"team": "other"}
        assert provider.get(box.id) is None
        assert list(provider.find(box.tags.owner)) == []
