"""What EC2 says of instances and volumes, read as boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from onebox.providers.aws import metadata
from onebox.providers.aws.client import Cloud
from onebox.providers.aws.metadata import Answer, BoxMetadata
from onebox.providers.base import Box, BoxState
from onebox.providers.kernel import user_data

_STATES: dict[str, BoxState] = {
    "pending": "starting",
    "running": "running",
    "stopping": "stopping",
    "shutting-down": "stopping",
    "stopped": "stopped",
    "terminated": "gone",
}
# What ended a machine, in words, by EC2's own code for it.
_REASONS = {
    "Server.InsufficientInstanceCapacity": "no capacity",
    "Server.ScheduledStop": "scheduled retirement",
}
_TAKEN = ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown")
_BY_ITSELF = ("Client.InstanceInitiatedShutdown",)
_BY_CALL = ("Client.UserInitiatedShutdown",)


@dataclass(frozen=True)
class Addressing:
    """How boxes are reached, as the settings say."""

    private: bool
    jump: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BoxResources:
    """What there is of one box: instances and, if asked for, volumes."""

    instances: Sequence[Answer]
    volumes: Sequence[Answer] = ()

    @property
    def machine(self) -> Answer | None:
        """Return the machine that the box is, None if there is only a disk."""
        alive = [one for one in self.instances if is_alive(one) and not swapping(one)]
        return max(alive, key=lambda one: _launched(one), default=None)

    @property
    def helper(self) -> Answer | None:
        """Return the machine that is about to be given the kept disk."""
        alive = [one for one in self.instances if is_alive(one) and swapping(one)]
        return max(alive, key=lambda one: _launched(one), default=None)

    @property
    def kept(self) -> Answer | None:
        """Return the disk that outlived its machine."""
        known = {one["InstanceId"] for one in self.instances}
        for volume in self.volumes:
            if swapping(volume):
                # The helper's own, which goes once the kept one takes its place.
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
        """Return the machine that has ended last."""
        ended = [one for one in self.instances if not is_alive(one)]
        return max(ended, key=lambda one: _launched(one), default=None)


def look(cloud: Cloud, region: str, box: str) -> BoxResources:
    """Ask for the instances of one box; for its volumes if no instance is alive."""
    instances = of_instances(cloud, region, metadata.of_box(box))
    things = BoxResources(instances)
    if things.machine is not None:
        return things
    return BoxResources(
        instances,
        cloud.pages(
            "describe_volumes", "Volumes", region, Filters=metadata.of_box(box)
        ),
    )


def look_for_owner(cloud: Cloud, region: str, owner: str) -> list[BoxResources]:
    """Ask for all instances and volumes of one owner in a region."""
    wanted = metadata.owned_by(owner)
    instances, volumes = cloud.together(
        [
            lambda: of_instances(cloud, region, wanted),
            lambda: cloud.pages("describe_volumes", "Volumes", region, Filters=wanted),
        ]
    )
    by_box, disks = metadata.groups(instances), metadata.groups(volumes)
    return [
        BoxResources(by_box.get(box, ()), disks.get(box, ()))
        for box in dict.fromkeys([*by_box, *disks])
    ]


def of_instances(
    cloud: Cloud, region: str, wanted: Sequence[Mapping[str, object]]
) -> list[Answer]:
    """Return the instances that these filters select, also ended ones."""
    found = cloud.pages("describe_instances", "Reservations", region, Filters=wanted)
    return [one for reservation in found for one in reservation.get("Instances", ())]


def box_of(things: BoxResources, reach: Addressing, now: float) -> Box | None:
    """
    Return what there is of one box as a box, None if there is nothing.

    Of a machine that ended and left nothing, nothing is returned, unless EC2 itself
    gave up on it: then why it did.
    """
    if things.machine is not None:
        return of_machine(things.machine, reach, now)
    disk, last = things.kept, things.last
    if disk is not None:
        return _of_disk(disk, last, reach, now)
    if last is None or _code(last) in ("", *_BY_CALL, *_BY_ITSELF, *_TAKEN):
        return None
    box = of_machine(last, reach, now)
    return box if box is None else replace(box, host="")


def of_machine(instance: Answer, reach: Addressing, now: float) -> Box | None:
    """Return an instance as a box, None if it is none of ours."""
    said = metadata.read(instance)
    if said is None:
        return None
    state = _STATES.get(instance.get("State", {}).get("Name", ""), "starting")
    return Box(
        id=said.box,
        tags=said.tags,
        state=state,
        offer=replace(
            said.size,
            type=instance.get("InstanceType", said.size.type),
            place=zone(instance),
            spot=is_spot(instance),
        ),
        image=said.image,
        place=zone(instance),
        host=_host(instance, state, reach),
        port=22,
        user=user_data.USER,
        host_key=said.host_key,
        created=_created(instance),
        deadline=said.deadline,
        agent=user_data.AGENT,
        work=user_data.WORK,
        why=_why(instance, said, now) if state in ("stopped", "gone") else "",
        notes=_notes(said, reach),
        jump=reach.jump,
        bootstrap_key=said.bootstrap_key,
        rescue=said.rescue,
    )


def is_alive(instance: Answer) -> bool:
    """Tell whether an instance has not ended for good."""
    return bool(instance.get("State", {}).get("Name") != "terminated")


def is_spot(instance: Answer) -> bool:
    """Tell whether an instance is spot capacity."""
    return instance.get("InstanceLifecycle") == "spot"


def swapping(thing: Answer) -> bool:
    """Tell whether an instance waits for a kept disk, or a disk to make way for it."""
    return bool(metadata.texts(thing).get(metadata.SWAPPING))


def zone(instance: Answer) -> str:
    """Return the zone that an instance is in."""
    return str(instance.get("Placement", {}).get("AvailabilityZone", ""))


def state(instance: Answer) -> str:
    """Return the state of an instance, in EC2's words."""
    return str(instance.get("State", {}).get("Name", ""))


def region_of(place: str) -> str:
    """
    Return the region that a zone is in; a region is its own.

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
    volume: Answer, last: Answer | None, reach: Addressing, now: float
) -> Box | None:
    said = metadata.read(volume)
    if said is None:
        return None
    place = str(volume.get("AvailabilityZone", ""))
    return Box(
        id=said.box,
        tags=said.tags,
        state="stopped",
        offer=replace(said.size, place=place),
        image=said.image,
        place=place,
        host="",
        port=22,
        user=user_data.USER,
        host_key=said.host_key,
        created=_seconds(volume.get("CreateTime")),
        deadline=said.deadline,
        agent=user_data.AGENT,
        work=user_data.WORK,
        why=_why(last, said, now) if last is not None else "",
        notes=_notes(said, reach),
        jump=reach.jump,
        bootstrap_key=said.bootstrap_key,
        disk_only=True,
    )


def _host(instance: Answer, state: BoxState, reach: Addressing) -> str:
    if state not in ("starting", "running"):
        return ""
    private = str(instance.get("PrivateIpAddress") or "")
    public = str(instance.get("PublicIpAddress") or "")
    if reach.private:
        return private
    # One that runs without a public address is in a subnet that gives none.
    return public or (private if state == "running" else "")


def _why(instance: Answer, said: BoxMetadata, now: float) -> str:
    code = _code(instance)
    if code in _BY_ITSELF:
        return "deadline" if now >= said.deadline else "poweroff"
    if code in _BY_CALL:
        return "deadline" if now >= said.deadline else "stopped"
    if code in _TAKEN:
        return "preempted"
    message = instance.get("StateReason", {}).get("Message", "")
    return _REASONS.get(code) or str(message).partition(": ")[2] or code


def _code(instance: Answer) -> str:
    return str(instance.get("StateReason", {}).get("Code", ""))


def _notes(said: BoxMetadata, reach: Addressing) -> tuple[str, ...]:
    if not said.no_alarm:
        return reach.notes
    return (
        *reach.notes,
        "only the box itself keeps its deadline: no alarm could be set",
    )


def _created(instance: Answer) -> float:
    # The time of launch changes with every start, that of the first interface not.
    times = [
        _seconds(card.get("Attachment", {}).get("AttachTime"))
        for card in instance.get("NetworkInterfaces", ())
    ]
    return min((t for t in times if t), default=_launched(instance))


def _launched(instance: Answer) -> float:
    return _seconds(instance.get("LaunchTime"))


def _seconds(when: Any) -> float:
    return when.timestamp() if isinstance(when, datetime) else 0.0
