"""Saved images are AMIs in AWS, with snapshots that hold their disks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from onebox.errors import Gone, NotAllowed, ProviderError, Unclear, UsageError
from onebox.providers.aws import base_images, errors, instances, metadata
from onebox.providers.aws.client import EC2, Answer, Cloud
from onebox.providers.kernel.clock import epoch_seconds
from onebox.providers.kernel.images import ImageStore, check_stopped, newest_first
from onebox.providers.values import Box, Image, SaveProgress

# A large disk takes long to copy. onebox waits as long as the copy makes progress, and
# gives up after this many seconds without progress.
_STILL_SECONDS = 1800.0


@dataclass(frozen=True)
class AMIs(ImageStore[Answer]):
    """The saved images in one region."""

    ec2: EC2

    def of_owner(self, owner: str) -> list[Image]:
        """Return an owner's images that a box can start from, newest first."""
        ready = list(filter(self.is_ready, self.search("owner", owner)))
        stored = self._stored_bytes(ready)
        return newest_first(self._image(one, stored) for one in ready)

    def base(self, image: Image) -> base_images.Base:
        """Return the `Base` of a saved image. Raises Gone if the image is not ready."""
        return base_images.of_image(self.usable(image, self.ec2.region), image.id)

    def search(self, key: Literal["owner", "image"], value: str) -> Sequence[Answer]:
        """Return the AMIs of this owner, or with this image id."""
        if key == "owner":
            return self._described(metadata.owner_filters(value))
        by_name = metadata.filters({"name": [value]})
        # The AMI of an adopted image has the name that Packer gave it, so only its tags
        # contain the image id.
        by_tag = metadata.filters({f"tag:{metadata.IMAGE}": [value]})
        return self._described(by_name) or self._described(by_tag)

    def check_owner(self, resource: Answer, image: Image) -> None:
        """Raise NotAllowed unless an AMI has the id and the owner of *image*."""
        metadata.check_owner(f"image {image.id}", resource, image.tags)
        present = metadata.tags_by_name(resource).get(metadata.IMAGE, image.id)
        if present != image.id:
            ami = resource["ImageId"]
            raise NotAllowed(f"{ami} is already {present}: it was not touched")

    def read(self, resource: Answer) -> Image | None:
        """Return an AMI as an `Image`, None if the AMI does not belong to onebox."""
        return self._image(resource, self._stored_bytes([resource]))

    def is_ready(self, resource: Answer) -> bool:
        """Return whether an instance can start from an AMI."""
        return bool(resource.get("State") == "available")

    def create(self, box: Box, image: Image, progress: SaveProgress) -> None:
        """
        Begin to save the disk of a stopped box, unless an earlier call has begun that.
        """
        self._remove_failed(self.own(image))
        instance = instances.find_resources(self.ec2, box.id).instance
        if instance is None:
            raise UsageError(
                f"{box.id} was a spot instance: only its disk is left, which cannot "
                "be saved as an image",
                next="--no-spot for the box that an image is saved from",
            )
        metadata.check_owner(box.id, instance, box.tags)
        check_stopped(box, instances.state(instance) == "stopped")
        tags = metadata.image_tags(image)
        try:
            self.ec2.call(
                "create_image",
                InstanceId=str(instance["InstanceId"]),
                Name=image.id,
                Description=f"onebox: {image.name}"[:255],
                TagSpecifications=[
                    {"ResourceType": kind, "Tags": tags}
                    for kind in ("image", "snapshot")
                ],
            )
        except ProviderError as error:
            # CreateImage takes no token, but an AMI's name can exist only once. So the
            # code InvalidAMIName.Duplicate means that an earlier call has begun to save
            # the image.
            if errors.code(error) != "InvalidAMIName.Duplicate":
                raise

    def wait(self, image: Image, progress: SaveProgress) -> Answer:
        """
        Wait until the AMI is ready, and return it.

        Raises:
            ProviderError: Saving failed, and the failed AMI was removed.

            Unclear: Saving has made no progress for half an hour.
        """

        def look() -> Answer | None:
            found = self.own(image)
            failure = self._remove_failed(found)
            if failure:
                raise ProviderError(f"saving {image.id} failed: {failure}")
            ready = next(filter(self.is_ready, found), None)
            if ready is None:
                _report(self._progress(image), progress)
            return ready

        while True:
            before = self._progress(image)
            ready = self.ec2.poller.until(look, _STILL_SECONDS)
            if ready is not None:
                return ready
            if self._progress(image) == before:
                reached = ", ".join(before) or "not begun"
                raise Unclear(
                    f"saving {image.id} stands still ({reached})",
                    next="inv image waits for it again",
                )

    def remove(self, resource: Answer) -> None:
        """Deregister an AMI, and delete its snapshots."""
        with suppress(Gone):
            self.ec2.call(
                "deregister_image",
                ImageId=resource["ImageId"],
                DeleteAssociatedSnapshots=True,
            )

    def delete(self, image: Image) -> None:
        """Delete an image, and the snapshots that a crash may have left of it."""
        super().delete(image)
        for snapshot in self._snapshots(image):
            id = str(snapshot["SnapshotId"])
            metadata.check_owner(id, snapshot, image.tags)
            with suppress(Gone):
                self.ec2.call("delete_snapshot", SnapshotId=id)

    def artifact(self, name: str) -> Answer:
        """
        Return the account's own AMI with the id *name*. Raises Gone if there is none.
        """
        found = self._described(metadata.filters({"image-id": [name]}))
        if not found:
            raise Gone(f"this account has no image {name} in {self.ec2.region}")
        return found[0]

    def mark(self, resource: Answer, image: Image) -> Answer:
        """Tag an AMI and its snapshots as *image*; return the AMI with these tags."""
        tags = metadata.image_tags(image)
        if metadata.read_tags(resource) is not None:
            metadata.check_owner(str(resource["ImageId"]), resource, image.tags)
        ids = [str(resource["ImageId"]), *_snapshot_ids(resource)]
        tags += self.ec2.cloud.user_tag_list()
        self.ec2.call("create_tags", Resources=ids, Tags=tags)
        # EC2's lists may not show the new tags yet, so the tags are added to the result
        # here.
        return {**resource, "Tags": tags}

    def _remove_failed(self, resources: Sequence[Answer]) -> str:
        """
        Remove the AMIs whose saving failed, and return the reason of the failure.

        Return "" if saving has not failed.
        """
        reason = ""
        for resource in resources:
            if resource.get("State") == "failed":
                why = resource.get("StateReason", {}).get("Message")
                reason = why or "AWS gave no reason"
                self.remove(resource)
        return reason

    def _progress(self, image: Image) -> list[str]:
        """
        Return the progress of each snapshot of *image*, such as "42%".

        Return [] if the call fails, for example without the permission for it: then
        only the progress of the save is unknown.
        """
        try:
            return sorted(str(one.get("Progress")) for one in self._snapshots(image))
        except ProviderError:
            return []

    def _snapshots(self, image: Image) -> list[Answer]:
        filters = metadata.filters({f"tag:{metadata.IMAGE}": [image.id]})
        return self._described_snapshots(filters)

    def _described_snapshots(self, filters: list[dict[str, object]]) -> list[Answer]:
        return self.ec2.pages(
            "describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=filters
        )

    def _described(self, filters: list[dict[str, object]]) -> list[Answer]:
        return self.ec2.pages(
            "describe_images", "Images", Owners=["self"], Filters=filters
        )

    def _stored_bytes(self, resources: Sequence[Answer]) -> dict[str, int | None]:
        """
        Return how many bytes each snapshot of these AMIs stores, by the snapshot's id.

        If the number of bytes is unknown, it is None, or the snapshot is missing from
        the result. EC2 counts all blocks that were ever written to the disk, which is
        an upper bound of what is billed.
        """
        ids = sorted({one for each in resources for one in _snapshot_ids(each)})
        if not ids:
            return {}
        try:
            found = self._described_snapshots(metadata.filters({"snapshot-id": ids}))
        except NotAllowed:
            # Without the permission to list snapshots, only the sizes of the snapshots
            # are unknown.
            return {}
        return {
            str(one["SnapshotId"]): one.get("FullSnapshotSizeInBytes") for one in found
        }

    def _image(
        self, resource: Answer, stored: Mapping[str, int | None]
    ) -> Image | None:
        texts = metadata.tags_by_name(resource)
        tags, id = metadata.read_tags(resource), texts.get(metadata.IMAGE)
        if tags is None or not id:
            return None
        base = base_images.of_image(resource, id)
        size, at_most = _billed_bytes(resource, stored)
        return Image(
            id=id,
            name=texts.get(f"{metadata.PREFIX}image-name", ""),
            recipe=texts.get(f"{metadata.PREFIX}recipe", ""),
            created=epoch_seconds(resource.get("CreationDate")),
            stored=size,
            arch=base.arch,
            tags=replace(tags, kind="image"),
            places=(self.ec2.region,),
            base=texts.get(f"{metadata.PREFIX}base", ""),
            at_most=at_most,
            disk=base.size,
        )


def adopt(cloud: Cloud, artifact: str, image: Image) -> Image:
    """
    Tag the AMIs that Packer built in one or more regions as *image*; return the image.

    Args:
        artifact: The ids of the AMIs: "ami-1" in the first region of the settings, or
            "us-east-1:ami-1,us-west-2:ami-2" for several regions.
    """
    adopted = []
    for part in artifact.split(","):
        region, _, ami = part.strip().rpartition(":")
        adopted.append(AMIs(cloud.ec2(region)).adopt(ami, image))
    places = tuple(place for one in adopted for place in one.places)
    return replace(adopted[0], places=places)


def _report(percentages: Sequence[str], progress: SaveProgress) -> None:
    """
    Report the mean of percentages such as "42%"; do nothing if one is not known.
    """
    known = [re.fullmatch(r"([0-9]{1,3})%", one, re.ASCII) for one in percentages]
    numbers = [int(one[1]) for one in known if one]
    if numbers and len(numbers) == len(percentages):
        progress(sum(numbers) / len(numbers) / 100, 0)


def _snapshot_ids(resource: Answer) -> list[str]:
    mappings = resource.get("BlockDeviceMappings", ())
    disks = [mapping.get("Ebs", {}) for mapping in mappings]
    return [str(disk["SnapshotId"]) for disk in disks if disk.get("SnapshotId")]


def _billed_bytes(
    resource: Answer, stored: Mapping[str, int | None]
) -> tuple[int, bool]:
    """
    Return how many bytes of an AMI are billed, and whether a part of that is a guess.

    If the size of a snapshot is unknown, the size of its disk is used instead. The
    result is then an upper bound.
    """
    size, at_most = 0, False
    for mapping in resource.get("BlockDeviceMappings", ()):
        disk = mapping.get("Ebs", {})
        known = stored.get(str(disk.get("SnapshotId", "")))
        at_most = at_most or known is None
        size += int(disk.get("VolumeSize") or 0) << 30 if known is None else known
    return size, at_most
