"""Delete a box, and list its resources that still exist."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from onebox.errors import Gone, OneboxError, ProviderError
from onebox.providers.aws import alarm, errors, instances, metadata, prices
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.aws.instances import BoxResources
from onebox.providers.values import Box, Leftover

# EC2 may need at most this many seconds to terminate an instance.
_TERMINATION_SECONDS = 300.0


def delete(ec2: EC2, box: Box, lag: float) -> None:
    """
    Delete the instances, volumes and alarm of a box; wait until they are gone.

    Raises:
        NotAllowed: A resource carries other ownership tags; nothing was changed.
    """
    resources = _resources(ec2, box, lag)
    for resource in (*resources.instances, *resources.volumes):
        what = f"{box.id} ({resource.get('InstanceId') or resource.get('VolumeId')})"
        metadata.check_owner(what, resource, box.tags)
    alive = [one for one in resources.instances if instances.is_alive(one)]
    for instance in alive:
        _delete_volumes_with(ec2, instance)
    ids = [str(one["InstanceId"]) for one in alive]
    # The alarm is removed before the instance. If onebox removed the instance first and
    # then crashed, no later command would look for the alarm.
    alarm.remove(ec2, box.id)
    if ids:
        try:
            with suppress(Gone):
                ec2.call("terminate_instances", InstanceIds=ids)
        except OneboxError:
            meta = metadata.read(alive[0])
            if meta is not None:
                spot = instances.is_spot(alive[0])
                alarm.put(ec2, meta, ids[0], spot=spot)
            raise
        ec2.poller.require(
            lambda: _are_terminated(ec2, ids),
            _TERMINATION_SECONDS,
            f"terminating {', '.join(ids)}",
        )
    if ids or resources.volumes:
        _delete_volumes(ec2, box.id)


def leftovers(ec2: EC2, box: str, disk_type: str) -> list[Leftover]:
    """Return the resources of a box that still exist in a region."""
    of_box = metadata.box_filters(box)
    questions: list[Callable[[], list[Leftover]]] = [
        lambda: [
            Leftover("machine", str(one["InstanceId"]), _hourly(one))
            for one in instances.describe_instances(ec2, of_box)
            if instances.is_alive(one)
        ],
        lambda: _volume_leftovers(ec2, box, disk_type),
        lambda: [
            Leftover("network interface", str(one["NetworkInterfaceId"]), 0.0)
            for one in ec2.pages(
                "describe_network_interfaces", "NetworkInterfaces", Filters=of_box
            )
        ],
        lambda: [
            Leftover("spot request", str(one["SpotInstanceRequestId"]), None)
            for one in ec2.pages(
                "describe_spot_instance_requests",
                "SpotInstanceRequests",
                Filters=[*of_box, *metadata.filters({"state": ["open", "active"]})],
            )
        ],
        lambda: [Leftover("alarm", name, None) for name in alarm.left(ec2, box)],
    ]
    return [one for found in ec2.cloud.together(questions) for one in found]


def _resources(ec2: EC2, box: Box, lag: float) -> BoxResources:
    """
    Return the resources of a box.

    EC2's lists show a new instance late. So if they show no live instance, but one may
    have been launched less than *lag* seconds ago, wait for it.
    """

    def look() -> BoxResources:
        return BoxResources(
            instances.describe_instances(ec2, metadata.box_filters(box.id)),
            _volumes(ec2, box.id),
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
    left = max(launches, default=0.0) + lag - ec2.clock()
    if left <= 0:
        return resources
    return ec2.poller.until(with_instance, left) or look()


def _volumes(ec2: EC2, box: str) -> list[Answer]:
    filters = metadata.box_filters(box)
    return ec2.pages("describe_volumes", "Volumes", Filters=filters)


def _delete_volumes_with(ec2: EC2, instance: Answer) -> None:
    """
    Make EC2 delete an instance's volumes when the instance is terminated.

    EC2 then deletes them even if onebox is killed right after the termination.
    """
    kept = [
        mapping["DeviceName"]
        for mapping in instance.get("BlockDeviceMappings", ())
        if not mapping.get("Ebs", {}).get("DeleteOnTermination")
    ]
    if not kept or instances.state(instance) == "shutting-down":
        return
    try:
        ec2.call(
            "modify_instance_attribute",
            InstanceId=instance["InstanceId"],
            BlockDeviceMappings=[
                {"DeviceName": name, "Ebs": {"DeleteOnTermination": True}}
                for name in kept
            ],
        )
    except ProviderError:
        # The instance is terminating already. `_delete_volumes` deletes its volumes
        # later.
        return


def _are_terminated(ec2: EC2, ids: Sequence[str]) -> bool:
    with suppress(Gone):
        filters = metadata.filters({"instance-id": ids})
        found = instances.describe_instances(ec2, filters)
        return not any(map(instances.is_alive, found))
    return True


def _delete_volumes(ec2: EC2, box: str) -> None:
    """Delete each volume of a box when it is detached; wait until none is left."""

    def are_deleted() -> bool:
        left = [one for one in _volumes(ec2, box) if _exists(one)]
        for volume in left:
            if volume.get("State") != "available":
                continue
            try:
                ec2.call("delete_volume", VolumeId=volume["VolumeId"])
            except Gone:
                continue
            except ProviderError as error:
                if errors.code(error) != "VolumeInUse":
                    raise
        return not left

    what = f"deleting the disks of {box}"
    ec2.poller.require(are_deleted, _TERMINATION_SECONDS, what)


def _volume_leftovers(ec2: EC2, box: str, disk_type: str) -> list[Leftover]:
    found = []
    for volume in _volumes(ec2, box):
        if _exists(volume):
            gigabytes = float(volume.get("Size") or 0)
            kind = str(volume.get("VolumeType") or disk_type)
            price = prices.disk(ec2, kind, gigabytes)
            found.append(Leftover("disk", str(volume["VolumeId"]), price))
    return found


def _exists(volume: Answer) -> bool:
    return volume.get("State") not in ("deleted", "deleting")


def _hourly(instance: Answer) -> float | None:
    if instances.state(instance) in ("stopped", "stopping", "shutting-down"):
        return 0.0
    meta = metadata.read(instance)
    return meta.offer.machine_price if meta else None
