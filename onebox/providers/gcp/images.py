"""Save a stopped box's disk as an image; find, take over and delete images."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from onebox.errors import (
    Gone,
    NotAllowed,
    OneboxError,
    ProviderError,
    Unclear,
    UsageError,
)
from onebox.providers.base import Box, Image
from onebox.providers.gcp import instances, metadata
from onebox.providers.gcp.client import Cloud, Exists
from onebox.providers.gcp.deletion import own
from onebox.providers.gcp.settings import region_of

_ARCHES = {"X86_64": "x86_64", "ARM64": "aarch64"}
# A big disk takes its time.
_SAVE_SECONDS = 3600.0
_ADDRESS = re.compile(r"(?:.*/)?projects/([^/]+)/global/images/(family/)?([^/]+)")
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")


def read(cloud: Cloud, image: str) -> Any:
    """
    Return the resource of an image: a name, or the address of any, or of a family.

    Raises:
        UsageError: It is not there.
    """
    shared = _ADDRESS.fullmatch(image)
    name = shared[3] if shared else image
    family = bool(shared and shared[2])
    if not _NAME.fullmatch(name):
        raise UsageError(f"{image!r} cannot be an image of Google Cloud")
    try:
        return cloud.ask(
            "images",
            "get_from_family" if family else "get",
            f"looking for image {image}",
            project=project_of(cloud, image),
            **{"family" if family else "image": name},
        )
    except Gone as error:
        raise UsageError(
            f"there is no image {image} on Google Cloud: {error.message}",
            next="inv image --list",
        ) from error


def address(cloud: Cloud, image: str) -> str:
    """Return what a disk is told to be made from."""
    shared = _ADDRESS.fullmatch(image)
    if shared:
        return image[image.index("projects/") :]
    return f"projects/{cloud.project}/global/images/{image}"


def project_of(cloud: Cloud, image: str) -> str:
    """Return the project that an image is in."""
    shared = _ADDRESS.fullmatch(image)
    return shared[1] if shared else cloud.project


def all_of(cloud: Cloud, owner: str) -> list[Image]:
    """Return an owner's images, newest first."""
    found = [
        _image(resource)
        for resource in cloud.list(
            "images", "looking for images", filter=metadata.owned_by(owner)
        )
        # Others are being made, or have failed: no box can start from them.
        if resource.status in ("READY", "")
    ]
    ours = [one for one in found if one is not None and one.tags.owner == owner]
    return sorted(ours, key=lambda image: image.created, reverse=True)


def save(cloud: Cloud, box: Box, image: Image) -> Image:
    """
    Save the disk of a stopped box, in the box's region.

    Raises:
        ProviderError: The box runs, or saving has failed; then no image is left.
    """
    present = _present(cloud, image)
    if present is not None:
        return present
    instance = own(cloud, box.id, box.tags, box.place)
    if instance is None:
        raise Gone(f"box {box.id} is not there any more", next="inv image --rebuild")
    if instances.state(instance) != "stopped":
        raise ProviderError(f"box {box.id} must be stopped before it is saved")
    disk = next(disk.source for disk in instance.disks if disk.boot)
    doing = f"saving {box.id} as image {image.id}"
    system = instances.read_record(instance).get("system", "")
    try:
        begun = cloud.change(
            "images",
            "insert",
            doing,
            token=f"{image.id} {instance.id}",
            image_resource={
                "name": image.id,
                "family": _family(image),
                "description": _record(image, str(system)),
                "source_disk": disk[disk.index("projects/") :],
                "labels": _labels(image),
                # Else it is kept in several countries, at a higher price.
                "storage_locations": [region_of(box.place)],
            },
        )
        cloud.wait(begun, doing, _SAVE_SECONDS)
    except (Exists, Unclear):
        # Made by this request before, or by somebody else: it says so itself.
        pass
    except OneboxError:
        # An image whose making has failed stays, and is billed, if it is left.
        delete(cloud, image)
        raise
    saved = _present(cloud, image)
    if saved is None:
        raise Unclear(f"{doing}: Google does not show it", next="inv image --list")
    return saved


def adopt(cloud: Cloud, artifact: str, image: Image) -> Image:
    """
    Make an image of the project, that Packer has built, one of ours.

    It keeps its name, which is its id from then on.

    Raises:
        NotAllowed: It is another owner's already.
    """
    resource = read(cloud, artifact)
    image = replace(image, id=resource.name)
    doing = f"taking over image {image.id}"
    before = metadata.tags(resource.labels, metadata.read_record(resource.description))
    if before is not None and not metadata.same(before, image.tags):
        raise NotAllowed(f"image {image.id} belongs to another box already")
    # The labels come last: until they are there, this is done again.
    if before is None:
        cloud.do(
            "images",
            "patch",
            doing,
            image=image.id,
            image_resource={
                "family": _family(image),
                "description": _record(image, ""),
            },
        )
        cloud.do(
            "images",
            "set_labels",
            doing,
            # Instead, the fingerprint keeps it from being done twice.
            token=None,
            resource=image.id,
            global_set_labels_request_resource={
                "labels": {**resource.labels, **_labels(image)},
                "label_fingerprint": resource.label_fingerprint,
            },
        )
    return _image(read(cloud, image.id)) or image


def delete(cloud: Cloud, image: Image) -> None:
    """
    Delete this one image; already gone is fine.

    Raises:
        NotAllowed: It carries other tags.
    """
    if _present(cloud, image, any_state=True) is None:
        return
    try:
        cloud.do("images", "delete", f"deleting image {image.id}", image=image.id)
    except Gone:
        return


def _present(cloud: Cloud, image: Image, *, any_state: bool = False) -> Image | None:
    """Return the image of this id, None if there is none, or none that is ready."""
    try:
        resource = cloud.ask(
            "images", "get", f"looking for image {image.id}", image=image.id
        )
    except Gone:
        return None
    if not metadata.belongs(resource.labels, image.id, image.tags):
        raise NotAllowed(
            f"image {image.id} carries other labels than expected: it is not touched"
        )
    if resource.status not in ("READY", "") and not any_state:
        return None
    return _image(resource)


def _image(resource: Any) -> Image | None:
    told = metadata.read_record(resource.description)
    tags = metadata.tags(resource.labels, told)
    if tags is None:
        return None
    recipe = resource.labels.get("onebox-recipe", "")
    return Image(
        id=resource.name,
        name=told.get("image-name", resource.name),
        recipe=str(told.get("recipe", metadata.decoded(recipe))),
        created=instances.moment(resource.creation_timestamp),
        stored=int(resource.archive_size_bytes),
        arch=_ARCHES.get(resource.architecture, ""),
        tags=tags,
        base=str(told.get("base", "")),
        disk=int(resource.disk_size_gb) << 30,
    )


def _record(image: Image, system: str) -> str:
    return metadata.image_record(image, system)


def _labels(image: Image) -> dict[str, str]:
    recipe = metadata.encoded(image.recipe)
    return {**metadata.labels(image.id, image.tags), "onebox-recipe": recipe}


def _family(image: Image) -> str:
    """Return the name that all images of one recipe's line share."""
    text = f"onebox-{image.tags.owner}-{image.tags.project}-{image.name}".lower()
    return re.sub(r"[^a-z0-9-]+", "-", text)[:63].strip("-")
