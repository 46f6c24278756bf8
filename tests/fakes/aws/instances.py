"""
The EC2 calls about instances, volumes and images that are stricter than moto's.

Each handler checks what EC2 checks and moto does not, changes the account's state, and
returns the response; a handler that only adds a check forwards the call to moto.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moto.ec2.models.instances import StateReason

from tests.fakes.aws import catalog, profiles
from tests.fakes.aws.schema import ApiRequest, Refusal

if TYPE_CHECKING:
    from tests.fakes.aws.account import Account

Handler = Callable[["Account", ApiRequest, dict[str, Any], Any], Any]

_CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}


@dataclass
class Lifecycle:
    """The states of an instance over time: each takes `Account.delays` seconds."""

    instance: Any
    spot: bool
    behavior: str
    public: str | None
    due: float = 0.0
    then: str = ""
    reason: tuple[str, str] = ("", "")

    def tick(self, account: Account) -> None:
        """Enter the next state if it is due."""
        if not self.then or time.monotonic() < self.due:
            return
        then, self.then = self.then, ""
        one = self.instance
        if then == "running":
            _state(one, "running")
            one.nics[0].public_ip = self.public
            account.boot(one)
        elif then == "stopped":
            one.stop()
            one.nics[0].public_ip = None
        elif then == "terminated":
            one.terminate()
            _close_spot_request(account, one)
        if then != "running":
            one.state_reason = StateReason(self.reason[1], self.reason[0])

    def begin(self, account: Account) -> None:
        """Start to run."""
        _state(self.instance, "pending")
        self.instance.state_reason = StateReason()
        self._later(account.delays.pending, "running")

    def stop(self, account: Account, code: str, message: str) -> None:
        """Start to stop."""
        if self.instance.state in ("stopped", "stopping"):
            return
        account.off(self.instance)
        _state(self.instance, "stopping")
        self.reason = code, f"{code}: {message}"
        self._later(account.delays.stopping, "stopped")

    def end(self, account: Account, code: str, message: str) -> None:
        """Start to end for good."""
        if self.instance.state in ("terminated", "shutting-down"):
            return
        account.off(self.instance)
        _state(self.instance, "shutting-down")
        self.reason = code, f"{code}: {message}"
        self.instance.state_reason = StateReason(self.reason[1], code)
        self._later(account.delays.ending, "terminated")

    def power_off(self, account: Account) -> None:
        """Power off from inside: stop or terminate, as the launch has determined."""
        ends = self.spot or self.behavior == "terminate"
        how = self.end if ends else self.stop
        how(account, "Client.InstanceInitiatedShutdown", "Instance initiated shutdown")

    def _later(self, seconds: float, then: str) -> None:
        self.due, self.then = time.monotonic() + seconds, then


def run_instances(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Create one instance for each client token, after EC2's own checks."""
    backend = account.backend(request.region)
    dry = parameters.pop("DryRun", False)
    token = request.region, parameters.get("ClientToken", "")
    text = json.dumps(parameters, sort_keys=True, default=repr)
    if token in account.tokens and not dry:
        known, instance = account.tokens[token]
        if known != text:
            raise Refusal(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments "
                "used in previous request(s).",
            )
        one = backend.get_instance(instance)
        if one.state == "terminated" and account.faults.ended_token_is_error:
            raise Refusal(
                "IdempotentInstanceTerminated", "The instance has terminated."
            )
        return _reservation(one)
    spot, zone = _check(account, backend, parameters)
    if dry:
        raise Refusal(
            "DryRunOperation",
            "Request would have succeeded, but DryRun flag is set.",
            412,
        )
    _check_capacity(account, parameters, zone, spot)
    before = set(backend.reservations)
    status, headers, body = account.forward(request, environ)
    if status != 200:
        return status, headers, body
    (new,) = set(backend.reservations) - before
    one = backend.reservations[new].instances[0]
    account.tokens[token] = text, one.id
    account.created_at[one.id] = time.monotonic()
    _complete(account, backend, one, parameters, spot)
    return _reservation(one)


def _check(
    account: Account, backend: Any, parameters: dict[str, Any]
) -> tuple[bool, str]:
    """Refuse what EC2 refuses; return whether the instance is spot, and its zone."""
    if len(parameters.get("UserData", "")) > 4 * -(-16384 // 3):
        raise Refusal("InvalidParameterValue", "User data is limited to 16384 bytes")
    image = backend.amis.get(parameters["ImageId"])
    if image is None or image.state != "available":
        raise Refusal(
            "InvalidAMIID.NotFound",
            f"The image id '[{parameters['ImageId']}]' does not exist",
        )
    type_ = parameters["InstanceType"]
    kinds = catalog.described(type_)["ProcessorInfo"]["SupportedArchitectures"]
    if image.architecture not in kinds:
        raise Refusal(
            "InvalidParameterValue",
            f"The architecture '{','.join(kinds)}' of the specified instance type does "
            f"not match the architecture '{image.architecture}' of the specified AMI.",
        )
    profiles.check(account.faults, parameters)
    (card,) = parameters["NetworkInterfaces"]
    zone = _zone(backend, card)
    for group in card.get("Groups", ()):
        if backend.get_security_group_from_id(group) is None:
            raise Refusal(
                "InvalidGroup.NotFound", f"The security group '{group}' does not exist"
            )
    if not catalog.is_offered(backend.region_name, zone, type_):
        raise Refusal(
            "Unsupported",
            f"Your requested instance type ({type_}) is not supported in your "
            f"requested Availability Zone ({zone}).",
        )
    market = parameters.get("InstanceMarketOptions", {})
    spot = market.get("MarketType") == "spot"
    options = market.get("SpotOptions", {})
    if spot and (
        "InstanceInitiatedShutdownBehavior" in parameters or "ValidUntil" in options
    ):
        raise Refusal(
            "InvalidParameterCombination",
            "The parameter is not supported for one-time spot instances.",
        )
    for mapping in parameters.get("BlockDeviceMappings", ()):
        if mapping["DeviceName"] != image.root_device_name:
            raise AssertionError("another device name would add a second disk")
        if mapping["Ebs"]["VolumeSize"] < getattr(image, "gib", 8):
            raise Refusal(
                "InvalidBlockDeviceMapping",
                f"Volume of size {mapping['Ebs']['VolumeSize']}GB is smaller than "
                "snapshot",
            )
    for one in parameters.get("TagSpecifications", ()):
        if one["ResourceType"] == "spot-instances-request" and not spot:
            raise Refusal(
                "InvalidParameterValue", "'spot-instances-request' is not valid here"
            )
        for tag in one["Tags"]:
            if len(tag["Key"]) > 128 or len(tag["Value"]) > 256:
                raise Refusal("InvalidParameterValue", "Tag is too long")
        if len(one["Tags"]) > 50:
            raise Refusal("TagLimitExceeded", "More than 50 tags")
    return spot, zone


def _zone(backend: Any, card: dict[str, Any]) -> str:
    for by_zone in backend.subnets.values():
        for subnet in by_zone.values():
            if subnet.id == card.get("SubnetId"):
                return str(subnet.availability_zone)
    raise Refusal(
        "InvalidSubnetID.NotFound",
        f"The subnet ID '{card.get('SubnetId')}' does not exist",
    )


def _check_capacity(
    account: Account, parameters: dict[str, Any], zone: str, spot: bool
) -> None:
    type_ = parameters["InstanceType"]
    cpus = catalog.described(type_)["VCpuInfo"]["DefaultVCpus"]
    used = sum(
        catalog.described(life.instance.instance_type)["VCpuInfo"]["DefaultVCpus"]
        for life in account.lifecycles.values()
        if life.instance.state in ("pending", "running") and life.spot == spot
    )
    if spot and used + cpus > account.faults.spot_cpus:
        raise Refusal(
            "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"
        )
    if not spot and used + cpus > account.faults.cpus:
        raise Refusal(
            "VcpuLimitExceeded",
            "You have requested more vCPU capacity than your current vCPU limit of "
            f"{account.faults.cpus:g} allows for the instance bucket",
        )
    if not account.faults.has_room(type_, zone, spot):
        raise Refusal(
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {type_} capacity in the Availability "
            f"Zone you requested ({zone}).",
            500,
        )


def _complete(
    account: Account, backend: Any, one: Any, parameters: dict[str, Any], spot: bool
) -> None:
    """Add to a new instance what moto leaves out: tags, spot request, address."""
    for specification in parameters.get("TagSpecifications", ()):
        tags = {tag["Key"]: tag["Value"] for tag in specification["Tags"]}
        if specification["ResourceType"] == "network-interface":
            one.nics[0].add_tags(tags)
        if specification["ResourceType"] == "spot-instances-request":
            number = f"sir-{random.randrange(1 << 32):08x}"
            account.spot_requests[number] = {
                "SpotInstanceRequestId": number,
                "InstanceId": one.id,
                "State": "active",
                "Type": "one-time",
                "Tags": specification["Tags"],
                "region": backend.region_name,
            }
    one.nics[0].attach_time = one.launch_time
    one.security_groups = list(one.nics[0].group_set)
    public = one.nics[0].public_ip
    if public and account.address is not None:
        public = account.address(one)
    one.nics[0].public_ip = None
    behavior = parameters.get("InstanceInitiatedShutdownBehavior", "stop")
    life = Lifecycle(one, spot, behavior, public)
    account.lifecycles[one.id] = life
    life.begin(account)


def _reservation(one: Any) -> dict[str, Any]:
    return {"ReservationId": "r-1", "OwnerId": one.owner_id, "Instances": [one]}


def describe_instances(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """List instances, without those that are younger than `faults.lag`."""
    backend = account.backend(request.region)
    for attached in backend.attachments.values():
        _ends_with(attached)
    with _without_new(account, backend):
        return account.forward(request, environ)


def describe_volumes(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """List volumes, with `DeleteOnTermination` of their attachments."""
    backend = account.backend(request.region)
    for attached in backend.attachments.values():
        _ends_with(attached)
    hidden = {
        key: one
        for key, one in backend.volumes.items()
        if one.attachment and _is_new(account, one.attachment.instance.id)
    }
    for key in hidden:
        del backend.volumes[key]
    try:
        return account.forward(request, environ)
    finally:
        backend.volumes.update(hidden)


def _ends_with(attached: Any) -> None:
    block = attached.instance.block_device_mapping.get(attached.device)
    attached.delete_on_termination = bool(block and block.delete_on_termination)


def _is_new(account: Account, instance: str) -> bool:
    age = time.monotonic() - account.created_at.get(instance, 0.0)
    return age < account.faults.lag


@contextmanager
def _without_new(account: Account, backend: Any) -> Iterator[None]:
    hidden = {
        key: one
        for key, one in backend.reservations.items()
        if any(_is_new(account, instance.id) for instance in one.instances)
    }
    for key in hidden:
        del backend.reservations[key]
    try:
        yield
    finally:
        backend.reservations.update(hidden)


def change_state(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Start, stop or terminate instances; the change takes some time."""
    backend = account.backend(request.region)
    found = []
    with _without_new(account, backend):
        for instance in parameters["InstanceIds"]:
            one = backend.get_instance_by_id(instance)
            if one is None:
                raise Refusal(
                    "InvalidInstanceID.NotFound",
                    f"The instance ID '{instance}' does not exist",
                )
            found.append(one)
    if parameters.get("DryRun"):
        raise Refusal("DryRunOperation", "It would have succeeded.", 412)
    changes = []
    for one in found:
        before = one.state
        _change(account, request.action, one)
        changes.append(
            {
                "InstanceId": one.id,
                "PreviousState": {"Code": _CODES[before], "Name": before},
                "CurrentState": {"Code": _CODES[one.state], "Name": one.state},
            }
        )
    key = {
        "StartInstances": "StartingInstances",
        "StopInstances": "StoppingInstances",
        "TerminateInstances": "TerminatingInstances",
    }[request.action]
    return {key: changes}


def _change(account: Account, action: str, one: Any) -> None:
    life, by_user = account.lifecycles[one.id], "User initiated shutdown"
    if action == "TerminateInstances":
        life.end(account, "Client.UserInitiatedShutdown", by_user)
        return
    if (
        one.state in ("terminated", "shutting-down")
        or (action == "StopInstances" and one.state == "pending")
        or (action == "StartInstances" and one.state == "stopping")
    ):
        raise Refusal(
            "IncorrectInstanceState",
            f"This instance '{one.id}' is not in a state from which it can be changed.",
        )
    if action == "StopInstances":
        if life.spot:
            raise Refusal(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{one.id}' because it is associated "
                "with a one-time Spot Instance request.",
            )
        life.stop(account, "Client.UserInitiatedShutdown", by_user)
    elif one.state == "stopped":
        if not account.faults.has_room(one.instance_type, one.placement.zone, False):
            raise Refusal(
                "InsufficientInstanceCapacity", "There is no capacity now.", 500
            )
        life.begin(account)


def modify_instance(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Change an attribute of an instance; user data only while it is stopped."""
    one = find_instance(account, request, parameters["InstanceId"])
    if "UserData" in parameters and one.state != "stopped":
        raise Refusal(
            "IncorrectInstanceState",
            f"The instance '{one.id}' is not in the 'stopped' state.",
        )
    if one.state == "terminated":
        raise Refusal("IncorrectInstanceState", "The instance has terminated.")
    if "UserData" in parameters:
        # moto expects base64 twice; the SDK and EC2 encode once.
        raw = parameters["UserData"]["Value"]
        if len(raw) > 16384:
            raise Refusal(
                "InvalidParameterValue", "User data is limited to 16384 bytes"
            )
        one.user_data = base64.b64encode(raw).decode()
        return {}
    return account.forward(request, environ)


def attach_volume(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Attach a volume to an instance in the same zone."""
    backend = account.backend(request.region)
    one = find_instance(account, request, parameters["InstanceId"])
    volume = backend.get_volume(parameters["VolumeId"])
    if volume.attachment:
        raise Refusal("VolumeInUse", f"{volume.id} is already attached")
    if volume.zone.name != one.placement.zone:
        raise Refusal("InvalidVolume.ZoneMismatch", "The volume is in another zone.")
    if parameters["Device"] in one.block_device_mapping:
        raise Refusal(
            "InvalidParameterValue", f"{parameters['Device']} is already in use"
        )
    return account.forward(request, environ)


def detach_volume(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Detach a volume, while its instance is stopped."""
    backend = account.backend(request.region)
    volume = backend.get_volume(parameters["VolumeId"])
    if volume.attachment is None:
        raise Refusal(
            "IncorrectState", f"Volume '{volume.id}' is in the 'available' state."
        )
    if volume.attachment.instance.state != "stopped":
        raise Refusal("OperationNotPermitted", "A root volume may not be detached.")
    held = volume.attachment
    backend.detach_volume(volume.id, held.instance.id, held.device)
    return {"VolumeId": volume.id, "State": "detaching"}


def delete_group(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Delete a security group that no instance uses."""
    backend = account.backend(request.region)
    for one in backend.all_instances():
        if one.state != "terminated" and parameters["GroupId"] in [
            group.id for card in one.nics.values() for group in card.group_set
        ]:
            raise Refusal(
                "DependencyViolation",
                f"resource {parameters['GroupId']} has a dependent object",
            )
    return account.forward(request, environ)


def describe_spot_requests(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """List the spot requests that match the filters."""
    found = []
    for one in account.spot_requests.values():
        tags = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        values = {"state": one["State"], **{f"tag:{k}": v for k, v in tags.items()}}
        if one["region"] == request.region and all(
            values.get(wish["Name"]) in wish["Values"]
            for wish in parameters.get("Filters", ())
        ):
            found.append(one)
    return {"SpotInstanceRequests": found}


def describe_spot_prices(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Return present and former spot prices of each zone."""
    zones = [
        zone.name
        for zone in account.backend(request.region).describe_availability_zones()
    ]
    return {
        "SpotPriceHistory": catalog.spot_history(zones, parameters["InstanceTypes"])
    }


def console_output(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Return the console output of an instance."""
    one = find_instance(account, request, parameters["InstanceId"])
    output = account.console.get(one.id, "")
    return {
        "InstanceId": one.id,
        "Output": base64.b64encode(output.encode()).decode(),
    }


def describe_regions(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """List the account's regions: only three, which keeps the tests fast."""
    return {
        "Regions": [
            {"RegionName": name, "OptInStatus": "opt-in-not-required"}
            for name in catalog.REGIONS
        ]
    }


def put_alarm(
    account: Account, request: ApiRequest, parameters: dict[str, Any], environ: Any
) -> Any:
    """Accept an alarm whose periods cover at most a week, as CloudWatch does."""
    span = parameters["Period"] * parameters["EvaluationPeriods"]
    if span > (7 * 86400 if parameters["Period"] >= 3600 else 86400):
        raise Refusal(
            "ValidationError", "Metrics cannot be checked across more than a week"
        )
    return account.forward(request, environ)


def find_instance(account: Account, request: ApiRequest, instance: str) -> Any:
    """Return an instance; raise Refusal if it does not exist."""
    one = account.backend(request.region).get_instance_by_id(instance)
    if one is None:
        raise Refusal(
            "InvalidInstanceID.NotFound", f"The instance ID '{instance}' does not exist"
        )
    return one


def _state(one: Any, name: str) -> None:
    one._state.name, one._state.code = name, _CODES[name]


def _close_spot_request(account: Account, one: Any) -> None:
    for request in account.spot_requests.values():
        if request["InstanceId"] == one.id:
            request["State"] = "closed"


def resources(
    account: Account, request: ApiRequest, parameters: dict[str, Any]
) -> tuple[tuple[str, dict[str, str]], ...]:
    """Return the objects of a call as (kind, tags), in the form that IAM evaluates."""
    if request.service != "ec2":
        return ()
    backend, found = account.backend(request.region), []
    ids: list[str] = []
    for key, value in parameters.items():
        if key in _IDS:
            ids += value if isinstance(value, list) else [value]
    for one in ids:
        kind = {
            "i": "instance",
            "vol": "volume",
            "ami": "image",
            "sg": "security-group",
        }
        kind |= {"snap": "snapshot", "subnet": "subnet", "vpc": "vpc"}
        tags = dict(backend.tags.get(one, {}))
        found.append((kind.get(one.partition("-")[0], "other"), tags))
    return tuple(found)


_IDS = (
    "InstanceId",
    "InstanceIds",
    "VolumeId",
    "ImageId",
    "GroupId",
    "SnapshotId",
    "Resources",
    "VpcId",
)

HANDLERS: dict[tuple[str, str], Handler] = {
    ("ec2", "RunInstances"): run_instances,
    ("ec2", "DescribeInstances"): describe_instances,
    ("ec2", "DescribeVolumes"): describe_volumes,
    ("ec2", "StartInstances"): change_state,
    ("ec2", "StopInstances"): change_state,
    ("ec2", "TerminateInstances"): change_state,
    ("ec2", "ModifyInstanceAttribute"): modify_instance,
    ("ec2", "AttachVolume"): attach_volume,
    ("ec2", "DetachVolume"): detach_volume,
    ("ec2", "DeleteSecurityGroup"): delete_group,
    ("ec2", "DescribeSpotInstanceRequests"): describe_spot_requests,
    ("ec2", "DescribeSpotPriceHistory"): describe_spot_prices,
    ("ec2", "GetConsoleOutput"): console_output,
    ("ec2", "DescribeRegions"): describe_regions,
    ("cloudwatch", "PutMetricAlarm"): put_alarm,
}
