"""Deleting a box, and the proof that nothing of it is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from onebox.errors import Gone, OneboxError, ProviderError
from onebox.providers.aws import alarm, errors, instances, metadata, prices, rescue
from onebox.providers.aws.client import Answer, Cloud, poll, wait_for
from onebox.providers.aws.instances import BoxResources
from onebox.providers.base import Box, Leftover

# How long EC2 may take to end a machine.
_ENDED_SECONDS = 300.0


def delete(cloud: Cloud, region: str, box: Box, settle: float) -> None:
    """
    Remove the machines, disks and the alarm of one box, and wait until they are gone.

    Raises:
        NotAllowed: What stands there carries other tags; nothing was touched.
    """
    things = _settled(cloud, region, box, settle)
    for thing in (*things.instances, *things.volumes):
        said = metadata.read(thing)
        what = f"{box.id} ({thing.get('InstanceId') or thing.get('VolumeId')})"
        metadata.check(what, said.tags if said else None, box.tags)
    alive = [one for one in things.instances if instances.is_alive(one)]
    for one in alive:
        _take_disks_along(cloud, region, one)
    ids = [str(one["InstanceId"]) for one in alive]
    # The alarm first: once no machine is there, nobody would ask for it any more.
    alarm.remove(cloud, region, box.id)
    if ids:
        try:
            _ended(cloud, region, ids)
        except OneboxError:
            _alarm_again(cloud, region, alive[0])
            raise
        poll(
            cloud,
            lambda: _all_over(cloud, region, ids),
            _ENDED_SECONDS,
            f"ending {', '.join(ids)}",
        )
    if ids or things.volumes:
        _delete_disks(cloud, region, box.id)


def leftovers(cloud: Cloud, region: str, box: str, disk_type: str) -> list[Leftover]:
    """Ask anew for everything that a box may have left in a region."""
    mine = metadata.of_box(box)
    questions: list[Callable[[], list[Leftover]]] = [
        lambda: [
            Leftover("machine", str(one["InstanceId"]), _rate(one))
            for one in instances.of_instances(cloud, region, mine)
            if instances.is_alive(one)
        ],
        lambda: _disks(cloud, region, box, disk_type),
        lambda: [
            Leftover("network interface", str(one["NetworkInterfaceId"]), 0.0)
            for one in cloud.pages(
                "describe_network_interfaces",
                "NetworkInterfaces",
                region,
                Filters=mine,
            )
        ],
        lambda: [
            Leftover("spot request", str(one["SpotInstanceRequestId"]), None)
            for one in cloud.pages(
                "describe_spot_instance_requests",
                "SpotInstanceRequests",
                region,
                Filters=[*mine, *metadata.filters({"state": ["open", "active"]})],
            )
        ],
        lambda: [
            Leftover("alarm", name, None) for name in alarm.left(cloud, region, box)
        ],
    ]
    return [one for found in cloud.together(questions) for one in found]


def _settled(cloud: Cloud, region: str, box: Box, settle: float) -> BoxResources:
    """Return what there is of a box, once all of it can be expected to show."""

    def look() -> BoxResources:
        return BoxResources(
            instances.of_instances(cloud, region, metadata.of_box(box.id)),
            _volumes(cloud, region, box.id),
        )

    def shown() -> BoxResources | None:
        things = look()
        return things if any(map(instances.is_alive, things.instances)) else None

    things = look()
    asked = [metadata.rescued(one) for one in things.volumes]
    if not box.disk_only and not things.instances:
        asked.append(box.created)
    if any(map(instances.is_alive, things.instances)):
        return things
    left = max(asked, default=0.0) + settle - cloud.clock()
    return things if left <= 0 else (wait_for(cloud, shown, left) or look())


def _volumes(cloud: Cloud, region: str, box: str) -> list[Answer]:
    return list(
        cloud.pages("describe_volumes", "Volumes", region, Filters=metadata.of_box(box))
    )


def _take_disks_along(cloud: Cloud, region: str, instance: Answer) -> None:
    """Have a machine's disks end with it, whatever happens to us meanwhile."""
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
    except (Gone, ProviderError):
        # It is ending already; what it leaves is deleted after it.
        return


def _ended(cloud: Cloud, region: str, ids: Sequence[str]) -> None:
    try:
        cloud.call("ec2", "terminate_instances", region, InstanceIds=list(ids))
    except Gone:
        return


def _alarm_again(cloud: Cloud, region: str, instance: Answer) -> None:
    said = metadata.read(instance)
    if said is not None:
        spot = instances.is_spot(instance)
        rescue.put_alarm(cloud, region, said, str(instance["InstanceId"]), spot=spot)


def _all_over(cloud: Cloud, region: str, ids: Sequence[str]) -> bool | None:
    try:
        found = instances.of_instances(
            cloud, region, metadata.filters({"instance-id": ids})
        )
    except Gone:
        return True
    return None if any(instances.is_alive(one) for one in found) else True


def _delete_disks(cloud: Cloud, region: str, box: str) -> None:
    """Delete what disks are left, each as soon as nothing holds it any more."""

    def look() -> bool | None:
        left = [one for one in _volumes(cloud, region, box) if _there(one)]
        for one in left:
            if one.get("State") != "available":
                continue
            try:
                cloud.call("ec2", "delete_volume", region, VolumeId=one["VolumeId"])
            except Gone:
                continue
            except ProviderError as error:
                if errors.code(error) != "VolumeInUse":
                    raise
        return None if left else True

    poll(cloud, look, _ENDED_SECONDS, f"deleting the disks of {box}")


def _disks(cloud: Cloud, region: str, box: str, disk_type: str) -> list[Leftover]:
    found = []
    for one in _volumes(cloud, region, box):
        if _there(one):
            size = float(one.get("Size") or 0)
            kind = str(one.get("VolumeType") or disk_type)
            price = prices.disk(cloud, region, kind, size)
            found.append(Leftover("disk", str(one["VolumeId"]), price))
    return found


def _there(volume: Answer) -> bool:
    return volume.get("State") not in ("deleted", "deleting")


def _rate(instance: Answer) -> float | None:
    if instances.state(instance) in ("stopped", "stopping", "shutting-down"):
        return 0.0
    said = metadata.read(instance)
    return said.size.price if said else None
