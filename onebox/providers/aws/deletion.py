"""Delete a box, and list what is left of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from onebox.errors import Gone, OneboxError, ProviderError
from onebox.providers.aws import alarm, errors, instances, metadata, prices
from onebox.providers.aws.client import Answer, Cloud
from onebox.providers.aws.instances import BoxResources
from onebox.providers.values import Box, Leftover

# The longest time that EC2 may need to terminate an instance.
_TERMINATION_SECONDS = 300.0


def delete(cloud: Cloud, region: str, box: Box, lag: float) -> None:
    """
    Delete the instances, volumes and alarm of a box; wait until they are gone.

    Raises:
        NotAllowed: One carries the tags of another box; nothing was touched.
    """
    resources = _resources(cloud, region, box, lag)
    for resource in (*resources.instances, *resources.volumes):
        what = f"{box.id} ({resource.get('InstanceId') or resource.get('VolumeId')})"
        metadata.check_owner(what, resource, box.tags)
    alive = [one for one in resources.instances if instances.is_alive(one)]
    for instance in alive:
        _delete_volumes_with(cloud, region, instance)
    ids = [str(one["InstanceId"]) for one in alive]
    # The alarm first: after a crash without an instance no command would look for it.
    alarm.remove(cloud, region, box.id)
    if ids:
        try:
            with suppress(Gone):
                cloud.call("ec2", "terminate_instances", region, InstanceIds=ids)
        except OneboxError:
            meta = metadata.read(alive[0])
            if meta is not None:
                spot = instances.is_spot(alive[0])
                alarm.put(cloud, region, meta, ids[0], spot=spot)
            raise
        cloud.poller.require(
            lambda: _are_terminated(cloud, region, ids),
            _TERMINATION_SECONDS,
            f"terminating {', '.join(ids)}",
        )
    if ids or resources.volumes:
        _delete_volumes(cloud, region, box.id)


def leftovers(cloud: Cloud, region: str, box: str, disk_type: str) -> list[Leftover]:
    """Return what still exists of a box in a region."""
    of_box = metadata.box_filters(box)
    questions: list[Callable[[], list[Leftover]]] = [
        lambda: [
            Leftover("machine", str(one["InstanceId"]), _hourly(one))
            for one in instances.describe_instances(cloud, region, of_box)
            if instances.is_alive(one)
        ],
        lambda: _volume_leftovers(cloud, region, box, disk_type),
        lambda: [
            Leftover("network interface", str(one["NetworkInterfaceId"]), 0.0)
            for one in cloud.pages(
                "describe_network_interfaces",
                "NetworkInterfaces",
                region,
                Filters=of_box,
            )
        ],
        lambda: [
            Leftover("spot request", str(one["SpotInstanceRequestId"]), None)
            for one in cloud.pages(
                "describe_spot_instance_requests",
                "SpotInstanceRequests",
                region,
                Filters=[*of_box, *metadata.filters({"state": ["open", "active"]})],
            )
        ],
        lambda: [
            Leftover("alarm", name, None) for name in alarm.left(cloud, region, box)
        ],
    ]
    return [one for found in cloud.together(questions) for one in found]


def _resources(cloud: Cloud, region: str, box: Box, lag: float) -> BoxResources:
    """Return the resources of a box, once EC2's lists can be expected to be right."""

    def look() -> BoxResources:
        return BoxResources(
            instances.describe_instances(cloud, region, metadata.box_filters(box.id)),
            _volumes(cloud, region, box.id),
        )

    def with_instance() -> BoxResources | None:
        resources = look()
        alive = any(map(instances.is_alive, resources.instances))
        return resources if alive else None

    resources = look()
    if any(map(instances.is_alive, resources.instances)):
        return resources
    launches = [metadata.rescued(one) for one in resources.volumes]
    if not box.disk_only and not resources.instances:
        launches.append(box.created)
    left = max(launches, default=0.0) + lag - cloud.clock()
    if left <= 0:
        return resources
    return cloud.poller.until(with_instance, left) or look()


def _volumes(cloud: Cloud, region: str, box: str) -> list[Answer]:
    filters = metadata.box_filters(box)
    return cloud.pages("describe_volumes", "Volumes", region, Filters=filters)


def _delete_volumes_with(cloud: Cloud, region: str, instance: Answer) -> None:
    """Make EC2 delete an instance's volumes with it, even if onebox is killed now."""
    kept = [
        mapping["DeviceName"]
        for mapping in instance.get("BlockDeviceMappings", ())
        if not mapping.get("Ebs", {}).get("DeleteOnTermination")
    ]
    if not kept or instances.state(instance) == "shutting-down":
        return
    try:
        cloud.call(
            "ec2",
            "modify_instance_attribute",
            region,
            InstanceId=instance["InstanceId"],
            BlockDeviceMappings=[
                {"DeviceName": name, "Ebs": {"DeleteOnTermination": True}}
                for name in kept
            ],
        )
    except ProviderError:
        # The instance is terminating already; its volumes are deleted after it.
        return


def _are_terminated(cloud: Cloud, region: str, ids: Sequence[str]) -> bool:
    with suppress(Gone):
        filters = metadata.filters({"instance-id": ids})
        found = instances.describe_instances(cloud, region, filters)
        return not any(map(instances.is_alive, found))
    return True


def _delete_volumes(cloud: Cloud, region: str, box: str) -> None:
    """Delete the volumes of a box, each as soon as it is detached."""

    def are_deleted() -> bool:
        left = [one for one in _volumes(cloud, region, box) if _exists(one)]
        for volume in left:
            if volume.get("State") != "available":
                continue
            try:
                cloud.call("ec2", "delete_volume", region, VolumeId=volume["VolumeId"])
            except Gone:
                continue
            except ProviderError as error:
                if errors.code(error) != "VolumeInUse":
                    raise
        return not left

    what = f"deleting the disks of {box}"
    cloud.poller.require(are_deleted, _TERMINATION_SECONDS, what)


def _volume_leftovers(
    cloud: Cloud, region: str, box: str, disk_type: str
) -> list[Leftover]:
    found = []
    for volume in _volumes(cloud, region, box):
        if _exists(volume):
            gigabytes = float(volume.get("Size") or 0)
            kind = str(volume.get("VolumeType") or disk_type)
            price = prices.disk(cloud, region, kind, gigabytes)
            found.append(Leftover("disk", str(volume["VolumeId"]), price))
    return found


def _exists(volume: Answer) -> bool:
    return volume.get("State") not in ("deleted", "deleting")


def _hourly(instance: Answer) -> float | None:
    if instances.state(instance) in ("stopped", "stopping", "shutting-down"):
        return 0.0
    meta = metadata.read(instance)
    return meta.offer.price if meta else None
