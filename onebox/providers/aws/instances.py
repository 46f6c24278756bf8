"""Find EC2 instances and volumes, and read them as boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from onebox.providers.aws import instance_profile, metadata, reach
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import Box, BoxState, Proxy

_STATES: dict[str, BoxState] = {
    "pending": "starting",
    "running": "running",
    "stopping": "stopping",
    "shutting-down": "stopping",
    "stopped": "stopped",
    "terminated": "gone",
}
# The keys are EC2's codes for the reason why an instance stopped or ended. The values
# are what onebox reports.
_REASONS = {
    "Server.InsufficientInstanceCapacity": "no capacity",
    "Server.ScheduledStop": "scheduled retirement",
}
_PREEMPTED = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")
_POWERED_OFF = ("Client.InstanceInitiatedShutdown",)
_STOPPED = ("Client.UserInitiatedShutdown",)


@dataclass(frozen=True)
class Addressing:
    """
    The settings that decide how ssh reaches the boxes.

    *profile* returns the user's AWS profile, "" if there is none.
    """

    private: bool
    jump: str
    notes: tuple[str, ...] = ()
    profile: Callable[[], str] = lambda: ""


@dataclass(frozen=True)
class BoxResources:
    """
    The instances and volumes of one box.

    `find_resources` leaves *volumes* empty if the box has a live `instance`.
    """

    instances: Sequence[Answer]
    volumes: Sequence[Answer] = ()

    @property
    def instance(self) -> Answer | None:
        """Return the live instance that is the box, None if there is none."""
        return _latest(
            one for one in self.instances if is_alive(one) and not swapping(one)
        )

    @property
    def helper(self) -> Answer | None:
        """
        Return the live small instance that waits for the kept disk; see `rescue`.

        Return None if there is no such instance.
        """
        return _latest(one for one in self.instances if is_alive(one) and swapping(one))

    @property
    def kept(self) -> Answer | None:
        """Return the disk that outlived its instance, None if there is none."""
        known = {one["InstanceId"] for one in self.instances}
        for volume in self.volumes:
            if swapping(volume):
                # This is the helper's own disk, which is deleted before the kept disk
                # is attached.
                continue
            held = [
                attached
                for attached in volume.get("Attachments", ())
                if attached.get("DeleteOnTermination")
                or attached.get("InstanceId") not in known
            ]
            if volume.get("State") in ("available", "in-use") and not held:
                return volume
        return None

    @property
    def last(self) -> Answer | None:
        """
        Return the terminated instance that was launched last.

        Return None if no instance is terminated.
        """
        return _latest(one for one in self.instances if not is_alive(one))


def find_resources(ec2: EC2, box: str) -> BoxResources:
    """
    Return the instances of one box, and its volumes if it has no live instance.

    An instance that only waits for the kept disk does not count here.
    """
    instances = describe_instances(ec2, metadata.box_filters(box))
    resources = BoxResources(instances)
    if resources.instance is not None:
        return resources
    return BoxResources(
        instances,
        ec2.pages("describe_volumes", "Volumes", Filters=metadata.box_filters(box)),
    )


def find_resources_of_owner(ec2: EC2, owner: str) -> list[BoxResources]:
    """Return an owner's instances and volumes in a region, one item for each box."""
    filters = metadata.owner_filters(owner)
    instances, volumes = ec2.cloud.together(
        [
            lambda: describe_instances(ec2, filters),
            lambda: ec2.pages("describe_volumes", "Volumes", Filters=filters),
        ]
    )
    by_box, disks = metadata.groups(instances), metadata.groups(volumes)
    return [
        BoxResources(by_box.get(box, ()), disks.get(box, ()))
        for box in dict.fromkeys([*by_box, *disks])
    ]


def describe_instances(
    ec2: EC2, filters: Sequence[Mapping[str, object]]
) -> list[Answer]:
    """Return the instances that these filters select, terminated ones included."""
    found = ec2.pages("describe_instances", "Reservations", Filters=filters)
    return [one for reservation in found for one in reservation.get("Instances", ())]


def read_resources(
    resources: BoxResources, addressing: Addressing, now: float
) -> Box | None:
    """
    Return the box that *resources* make up, None if nothing of it is left.

    The result is also None if only a terminated instance is left, without a disk. But
    if that instance ended for an unusual reason (not a stop, a power-off or a
    preemption), the result is a box in the state "gone", with that reason.
    """
    if resources.instance is not None:
        return read_box(resources.instance, addressing, now)
    disk, last = resources.kept, resources.last
    if disk is not None:
        return _of_disk(disk, last, addressing, now)
    if last is None or _code(last) in ("", *_STOPPED, *_POWERED_OFF, *_PREEMPTED):
        return None
    box = read_box(last, addressing, now)
    return box if box is None else replace(box, host="")


def read_box(instance: Answer, addressing: Addressing, now: float) -> Box | None:
    """Return an instance as a box, None if its tags are not those of onebox."""
    stored = metadata.read(instance)
    if stored is None:
        return None
    state = _STATES.get(instance.get("State", {}).get("Name", ""), "starting")
    return stored.to_box(
        state=state,
        offer=replace(
            stored.offer,
            type=instance.get("InstanceType", stored.offer.type),
            place=zone(instance),
            spot=is_spot(instance),
        ),
        created=_created(instance),
        host=_host(instance, state, addressing.private or bool(stored.reach)),
        why=_why(instance, stored, now) if state in ("stopped", "gone") else "",
        notes=_notes(stored, addressing),
        jump=addressing.jump,
        identity=instance_profile.of_instance(instance),
        proxy=_proxy(instance, stored, addressing),
    )


def is_alive(instance: Answer) -> bool:
    """Return whether an instance is not terminated."""
    return bool(instance.get("State", {}).get("Name") != "terminated")


def is_spot(instance: Answer) -> bool:
    """Return whether an instance is a spot instance."""
    return instance.get("InstanceLifecycle") == "spot"


def swapping(resource: Answer) -> bool:
    """
    Return whether *resource* is an instance that waits for a kept disk.

    If *resource* is a volume, return whether such an instance was launched with it.
    """
    return bool(metadata.tags_by_name(resource).get(metadata.SWAPPING))


def zone(instance: Answer) -> str:
    """Return the zone of an instance."""
    return str(instance.get("Placement", {}).get("AvailabilityZone", ""))


def state(instance: Answer) -> str:
    """Return EC2's name for the state of an instance."""
    return str(instance.get("State", {}).get("Name", ""))


def region_of(place: str) -> str:
    """
    Return the region of a zone; the name of a region is returned as it is.

    >>> region_of("us-east-1c"), region_of("eu-west-3"), region_of("")
    ('us-east-1', 'eu-west-3', '')
    >>> region_of("us-west-2-lax-1a")
    'us-west-2'
    """
    words = place.split("-")
    for length, word in enumerate(words, 1):
        number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
        if number.isdigit():
            return "-".join([*words[: length - 1], number])
    return place


def _of_disk(
    volume: Answer, last: Answer | None, addressing: Addressing, now: float
) -> Box | None:
    stored = metadata.read(volume)
    if stored is None:
        return None
    return stored.to_box(
        state="stopped",
        offer=replace(stored.offer, place=str(volume.get("AvailabilityZone", ""))),
        created=_seconds(volume.get("CreateTime")),
        why=_why(last, stored, now) if last is not None else "",
        notes=_notes(stored, addressing),
        jump=addressing.jump,
        disk_only=True,
    )


def _proxy(
    instance: Answer, stored: BoxMetadata, addressing: Addressing
) -> Proxy | None:
    """Return the command that leads to an instance, None if ssh connects directly."""
    if not stored.reach:
        return None
    region = region_of(zone(instance))
    profile = addressing.profile()
    return reach.proxy(stored.reach, str(instance["InstanceId"]), region, profile)


def _host(instance: Answer, state: BoxState, private_only: bool) -> str:
    if state not in ("starting", "running"):
        return ""
    private = str(instance.get("PrivateIpAddress") or "")
    public = str(instance.get("PublicIpAddress") or "")
    if private_only:
        return private
    # An instance that runs without a public address is in a private subnet, so its
    # private address is used.
    return public or (private if state == "running" else "")


def _why(instance: Answer, stored: BoxMetadata, now: float) -> str:
    code = _code(instance)
    if code in _POWERED_OFF:
        return "deadline" if now >= stored.deadline else "poweroff"
    if code in _STOPPED:
        return "deadline" if now >= stored.deadline else "stopped"
    if code in _PREEMPTED:
        return "preempted"
    message = instance.get("StateReason", {}).get("Message", "")
    return _REASONS.get(code) or str(message).partition(": ")[2] or code


def _code(instance: Answer) -> str:
    return str(instance.get("StateReason", {}).get("Code", ""))


def _notes(stored: BoxMetadata, addressing: Addressing) -> tuple[str, ...]:
    if not stored.no_alarm:
        return addressing.notes
    return (
        *addressing.notes,
        "only the box itself enforces its deadline: no alarm could be set",
    )


def _created(instance: Answer) -> float:
    # LaunchTime changes with every start. But the first network interface stays
    # attached, so the box was created when that interface was attached.
    times = [
        _seconds(card.get("Attachment", {}).get("AttachTime"))
        for card in instance.get("NetworkInterfaces", ())
    ]
    return min((t for t in times if t), default=_launched(instance))


def _latest(instances: Iterable[Answer]) -> Answer | None:
    return max(instances, key=_launched, default=None)


def _launched(instance: Answer) -> float:
    return _seconds(instance.get("LaunchTime"))


def _seconds(when: Any) -> float:
    return when.timestamp() if isinstance(when, datetime) else 0.0
