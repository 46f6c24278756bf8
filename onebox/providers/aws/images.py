"""Saved environments: images of ours, with whose they are in their tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from onebox.errors import Gone, NotAllowed, ProviderError, Unclear, UsageError
from onebox.providers.aws import base_images, errors, instances, metadata
from onebox.providers.aws.client import Answer, Cloud, wait_for
from onebox.providers.base import Box, Image

# A large disk takes its time to be copied: it is waited for as long as it gets on.
_STILL_SECONDS = 1800.0


def of_owner(cloud: Cloud, region: str, owner: str) -> list[Image]:
    """Return an owner's images in a region that can be used."""
    found = _described(cloud, region, metadata.owned_by(owner))
    usable = [one for one in found if one.get("State") == "available"]
    stored = _stored(cloud, region, usable)
    images = [_image(one, region, stored) for one in usable]
    return [one for one in images if one is not None]


def base(cloud: Cloud, region: str, image: Image) -> base_images.Base:
    """Return an image as what a machine starts from. Raises Gone if it is not there."""
    for one in _named(cloud, region, image.id):
        if one.get("State") == "available":
            _check(one, image)
            return base_images.of_image(one, image.id)
    raise Gone(
        f"there is no image {image.id} in {region}",
        next="inv image builds it, inv image --list shows those there are",
    )


def save(cloud: Cloud, region: str, box: Box, image: Image) -> Image:
    """
    Save a stopped box's disk as an image, and wait until it can be used.

    Raises:
        Unclear: It has not got on for long; it may still become one.
    """
    present = _usable(cloud, region, image)
    if present is None:
        things = instances.look(cloud, region, box.id)
        machine = things.machine
        if machine is None:
            raise UsageError(
                f"{box.id} is spot capacity: nothing of it is left but a disk, which "
                "cannot be saved as an image",
                next="--no-spot for the box that an image is saved from",
            )
        said = metadata.read(machine)
        metadata.check(box.id, said.tags if said else None, box.tags)
        if instances.state(machine) != "stopped":
            raise ProviderError(f"{box.id} must be stopped before it is saved")
        _create(cloud, region, str(machine["InstanceId"]), image)
    while True:
        before = _progress(cloud, region, image)
        saved = wait_for(
            cloud, lambda: _usable(cloud, region, image, known=True), _STILL_SECONDS
        )
        if saved is not None:
            return saved
        if _progress(cloud, region, image) == before:
            raise Unclear(
                f"saving {image.id} stands still ({', '.join(before) or 'not begun'})",
                next="inv image once more waits for it",
            )


def adopt(cloud: Cloud, regions: Sequence[str], artifact: str, image: Image) -> Image:
    """
    Make an image of ours of one of the account's own: with its tags it is one.

    Args:
        regions: Where it may be; the first one if it does not say.

        artifact: As Packer names it: "ami-1", or "us-east-1:ami-1,us-west-2:ami-2".

    Raises:
        Gone: There is no such image of this account.

        NotAllowed: It is another image of ours already, or another owner's.
    """
    made: list[Image] = []
    for one in artifact.split(","):
        region, _, ami = one.strip().rpartition(":")
        region = region or regions[0]
        found = _described(cloud, region, metadata.filters({"image-id": [ami]}))
        if not found:
            raise Gone(f"there is no image {ami} of this account in {region}")
        said = metadata.texts(found[0])
        image = replace(image, created=_epoch(str(found[0].get("CreationDate", ""))))
        if metadata.tags_of(said) is not None:
            _check(found[0], image)
        if said.get(metadata.IMAGE, image.id) != image.id:
            raise NotAllowed(f"{ami} is already {said[metadata.IMAGE]}: left as it is")
        ids = [ami, *_snapshots(found[0])]
        cloud.call(
            "ec2", "create_tags", region, Resources=ids, Tags=metadata.of_image(image)
        )
        base, (size, at_most) = (
            base_images.of_image(found[0], image.id),
            _size(found[0], _stored(cloud, region, found)),
        )
        made.append(
            replace(
                image,
                stored=size,
                at_most=at_most,
                disk=base.size,
                arch=base.arch,
                places=(region,),
            )
        )
    places = tuple(place for one in made for place in one.places)
    return replace(made[0], places=places)


def delete(cloud: Cloud, region: str, image: Image) -> None:
    """Remove an image and what its disk was saved in."""
    for one in _named(cloud, region, image.id):
        _check(one, image)
        _deregister(cloud, region, one)
    # What a crash between an image and its disk's copy has left.
    for snapshot in _copies(cloud, region, image):
        said = metadata.tags_of(metadata.texts(snapshot))
        metadata.check(f"{snapshot['SnapshotId']}", said, image.tags)
        try:
            cloud.call(
                "ec2", "delete_snapshot", region, SnapshotId=snapshot["SnapshotId"]
            )
        except Gone:
            continue


def _progress(cloud: Cloud, region: str, image: Image) -> list[str]:
    """Return how far the copies of an image's disks are."""
    return sorted(str(one.get("Progress")) for one in _copies(cloud, region, image))


def _copies(cloud: Cloud, region: str, image: Image) -> list[Answer]:
    return list(
        cloud.pages(
            "describe_snapshots",
            "Snapshots",
            region,
            OwnerIds=["self"],
            Filters=metadata.filters({f"tag:{metadata.IMAGE}": [image.id]}),
        )
    )


def _create(cloud: Cloud, region: str, instance: str, image: Image) -> None:
    tags = metadata.of_image(image)
    try:
        cloud.call(
            "ec2",
            "create_image",
            region,
            InstanceId=instance,
            Name=image.id,
            Description=f"onebox: {image.name}"[:255],
            TagSpecifications=[
                {"ResourceType": kind, "Tags": tags} for kind in ("image", "snapshot")
            ],
        )
    except ProviderError as error:
        # There is no token for this call, but a name can be had only once.
        if errors.code(error) != "InvalidAMIName.Duplicate":
            raise


def _usable(
    cloud: Cloud, region: str, image: Image, *, known: bool = False
) -> Image | None:
    """Return an image once it can be used; clear away one that failed."""
    for one in _named(cloud, region, image.id):
        _check(one, image)
        if one.get("State") == "available":
            return _image(one, region, _stored(cloud, region, [one]))
        if one.get("State") == "failed":
            _deregister(cloud, region, one)
            why = one.get("StateReason", {}).get("Message", "no reason was given")
            if known:
                raise ProviderError(f"saving {image.id} failed: {why}")
    return None


def _deregister(cloud: Cloud, region: str, image: Answer) -> None:
    try:
        cloud.call(
            "ec2",
            "deregister_image",
            region,
            ImageId=image["ImageId"],
            DeleteAssociatedSnapshots=True,
        )
    except Gone:
        return


def _check(present: Answer, image: Image) -> None:
    said = metadata.tags_of(metadata.texts(present))
    metadata.check(f"image {image.id} ({present['ImageId']})", said, image.tags)


def _snapshots(described: Answer) -> list[str]:
    disks = [one.get("Ebs", {}) for one in described.get("BlockDeviceMappings", ())]
    return [str(disk["SnapshotId"]) for disk in disks if disk.get("SnapshotId")]


def _named(cloud: Cloud, region: str, image: str) -> list[Answer]:
    # One that was taken over has its tags from us, but not its name.
    return _described(cloud, region, metadata.filters({"name": [image]})) or _described(
        cloud, region, metadata.filters({f"tag:{metadata.IMAGE}": [image]})
    )


def _described(
    cloud: Cloud, region: str, wanted: Sequence[dict[str, object]]
) -> list[Answer]:
    return list(
        cloud.pages(
            "describe_images", "Images", region, Owners=["self"], Filters=wanted
        )
    )


def _stored(
    cloud: Cloud, region: str, images: Sequence[Answer]
) -> dict[str, int | None]:
    """
    Return how many bytes are stored for each snapshot of these images.

    EC2 tells the size of all blocks that were ever written to the disk, which a
    snapshot is billed by at most; None where it does not.
    """
    ids = sorted({one for image in images for one in _snapshots(image)})
    if not ids:
        return {}
    try:
        found = cloud.pages(
            "describe_snapshots",
            "Snapshots",
            region,
            OwnerIds=["self"],
            Filters=metadata.filters({"snapshot-id": ids}),
        )
    except NotAllowed:
        # The images are there all the same.
        return {}
    return {str(one["SnapshotId"]): one.get("FullSnapshotSizeInBytes") for one in found}


def _size(described: Answer, stored: Mapping[str, int | None]) -> tuple[int, bool]:
    """Return how many bytes of an image are billed, and whether that is a bound."""
    size, at_most = 0, False
    for mapping in described.get("BlockDeviceMappings", ()):
        disk = mapping.get("Ebs", {})
        known = stored.get(str(disk.get("SnapshotId", "")))
        at_most = at_most or known is None
        size += int(disk.get("VolumeSize") or 0) << 30 if known is None else known
    return size, at_most


def _image(
    described: Answer, region: str, stored: Mapping[str, int | None]
) -> Image | None:
    said = metadata.texts(described)
    tags = metadata.tags_of(said)
    if tags is None or not said.get(metadata.IMAGE):
        return None
    base = base_images.of_image(described, said[metadata.IMAGE])
    size, at_most = _size(described, stored)
    return Image(
        id=said[metadata.IMAGE],
        name=said.get(f"{metadata.PREFIX}image-name", ""),
        recipe=said.get(f"{metadata.PREFIX}recipe", ""),
        created=_epoch(str(described.get("CreationDate", ""))),
        stored=size,
        arch=base.arch,
        tags=replace(tags, kind="image"),
        places=(region,),
        base=said.get(f"{metadata.PREFIX}base", ""),
        at_most=at_most,
        disk=base.size,
    )


def _epoch(text: str) -> float:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
