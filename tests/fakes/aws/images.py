"""The EC2 calls about images and snapshots that are stricter than moto's."""

from __future__ import annotations

import random
import time
from typing import Any

from tests.fakes.aws import catalog
from tests.fakes.aws.account import Account
from tests.fakes.aws.instances import Handler, find_instance
from tests.fakes.aws.schema import ApiRequest, Refusal


def create_image(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Create an image of an instance's disk; it is pending for some time."""
    backend = account.backend(request.region)
    one = find_instance(account, request, parameters["InstanceId"])
    if any(ami.name == parameters["Name"] for ami in backend.amis.values()):
        raise Refusal(
            "InvalidAMIName.Duplicate",
            f"AMI name {parameters['Name']} is already in use",
        )
    (block,) = [b for _, b in one.get_block_device_mapping]
    ami = catalog.CatalogImage(
        backend,
        f"ami-{random.randrange(1 << 68):017x}",
        instance=one,
        name=parameters["Name"],
        root_device_type="ebs",
        root_device_name=one.root_device_name,
        region_name=one.placement.zone,
        state="pending",
    )
    ami.gib = backend.get_volume(block.volume_id).size
    for specification in parameters.get("TagSpecifications", ()):
        tags = {tag["Key"]: tag["Value"] for tag in specification["Tags"]}
        resource = ami if specification["ResourceType"] == "image" else ami.ebs_snapshot
        resource.add_tags(tags)
    backend.amis[ami.id] = ami
    account.saved(one, ami)
    account.created_at[ami.id] = time.monotonic()
    return {"ImageId": ami.id}


def describe_images(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """List images; a pending one becomes available or fails when it is due."""
    backend = account.backend(request.region)
    for ami in backend.amis.values():
        if ami.state == "pending" and (
            time.monotonic() - account.created_at[ami.id] > account.delays.saving
        ):
            ami.state = "failed" if ami.fails else "available"
    return account.forward(request, environ)


_SNAPSHOT_FILTERS = ("snapshot-id", "owner-id", "status", "volume-id", "volume-size")


def describe_snapshots(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """List snapshots, each with the size of its written blocks, if that is known."""
    ids, filters = parameters.get("SnapshotIds", []), parameters.get("Filters", [])
    if ids and "MaxResults" in parameters:
        raise Refusal(
            "InvalidParameterCombination",
            "The parameter snapshotSet cannot be used with the parameter maxResults",
        )
    for one in filters:
        name = one["Name"]
        if name not in _SNAPSHOT_FILTERS and not name.startswith("tag"):
            raise Refusal("InvalidParameterValue", f"The filter '{name}' is invalid")
    backend = account.backend(request.region)
    missing = [one for one in ids if one not in backend.snapshots]
    if missing:
        raise Refusal(
            "InvalidSnapshot.NotFound", f"The snapshot '{missing[0]}' does not exist."
        )
    found = backend.describe_snapshots(
        snapshot_ids=ids or None,
        filters={one["Name"]: one["Values"] for one in filters},
    )
    mine = [one for one in found if one.owner_id == backend.account_id]
    return {
        "Snapshots": [
            _snapshot(account, backend, one)
            for one in (mine if "self" in parameters.get("OwnerIds", ()) else found)
        ]
    }


def _snapshot(account: Account, backend: Any, one: Any) -> dict[str, Any]:
    written = catalog.WRITTEN.get(one.id, catalog.BLOCKS)
    known = {} if written is None else {"FullSnapshotSizeInBytes": written}
    return {
        "SnapshotId": one.id,
        "VolumeId": one.volume.id,
        **_progress(account, backend, one),
        "OwnerId": one.owner_id,
        "VolumeSize": one.volume.size,
        "StartTime": one.start_time,
        "Tags": [{"Key": t["key"], "Value": t["value"]} for t in one.get_tags()],
        **known,
    }


def _progress(account: Account, backend: Any, one: Any) -> dict[str, str]:
    """Return state and progress of a snapshot, whose image may be pending."""
    for ami in backend.amis.values():
        if ami.state == "pending" and ami.ebs_snapshot.id == one.id:
            age = time.monotonic() - account.created_at[ami.id]
            share = 0.0 if account.delays.stands_still else age / account.delays.saving
            return {"State": "pending", "Progress": f"{min(int(share * 100), 100)}%"}
    return {"State": one.status, "Progress": one.progress}


def deregister_image(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Delete an image, and its snapshot only if the call requests that."""
    backend = account.backend(request.region)
    ami = backend.amis.get(parameters["ImageId"])
    answer = account.forward(request, environ)
    if ami is not None and parameters.get("DeleteAssociatedSnapshots"):
        backend.snapshots.pop(ami.ebs_snapshot.id, None)
    return answer


HANDLERS: dict[tuple[str, str], Handler] = {
    ("ec2", "CreateImage"): create_image,
    ("ec2", "DescribeImages"): describe_images,
    ("ec2", "DescribeSnapshots"): describe_snapshots,
    ("ec2", "DeregisterImage"): deregister_image,
}
