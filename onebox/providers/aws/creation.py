"""The one call that makes a machine, repeated with its token until it is clear."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from onebox.errors import (
    Gone,
    NoCapacity,
    NotAllowed,
    ProviderError,
    QuotaExceeded,
    Unclear,
    UsageError,
)
from onebox.providers.aws import errors, instances, metadata
from onebox.providers.aws.base_images import Base
from onebox.providers.aws.client import Answer, Cloud, poll
from onebox.providers.aws.network import GroupGone, Network, SubnetChoice
from onebox.providers.base import Offer, Tags

# What EC2 takes as user data, before it is encoded.
USER_DATA_BYTES = 16384
# For how long a machine may be there and not show in EC2's lists.
SETTLE_SECONDS = 120.0

_TAGGED = ("instance", "volume", "network-interface")


@dataclass(frozen=True)
class Plan:
    """
    What a machine is to be, but for whose it is.

    *token* makes one machine at most, *disk* is in bytes. With *keep* the disk
    outlives the machine, because the cloud may take that back.
    """

    token: str
    type: str
    base: Base
    socket: SubnetChoice
    user_data: bytes
    disk: int
    disk_type: str
    spot: bool
    groups: tuple[str, ...] = ()

    def words(self, said: metadata.BoxMetadata) -> dict[str, Any]:
        """Return the plan as RunInstances takes it."""
        tags = metadata.write(said)
        kinds = (*_TAGGED, "spot-instances-request") if self.spot else _TAGGED
        words: dict[str, Any] = {
            "ClientToken": self.token,
            "MinCount": 1,
            "MaxCount": 1,
            "ImageId": self.base.ami,
            "InstanceType": self.type,
            "UserData": self.user_data,
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": self.socket.subnet,
                    "Groups": list(self.groups),
                    "AssociatePublicIpAddress": self.socket.public,
                    "DeleteOnTermination": True,
                }
            ],
            "BlockDeviceMappings": [
                {
                    # Under any other name EC2 would add a second disk.
                    "DeviceName": self.base.root,
                    "Ebs": {
                        "VolumeSize": -(-max(self.disk, self.base.size) >> 30),
                        "VolumeType": self.disk_type,
                        "Encrypted": True,
                        "DeleteOnTermination": not self.spot,
                    },
                }
            ],
            "MetadataOptions": {
                "HttpEndpoint": "enabled",
                "HttpTokens": "required",
                "HttpPutResponseHopLimit": 1,
            },
            "TagSpecifications": [
                {"ResourceType": kind, "Tags": tags} for kind in kinds
            ],
        }
        if self.spot:
            # One-time spot takes no other behaviour than to terminate.
            words["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {
                    "SpotInstanceType": "one-time",
                    "InstanceInterruptionBehavior": "terminate",
                },
            }
        else:
            words["InstanceInitiatedShutdownBehavior"] = "stop"
        return words


def run_in_groups(
    cloud: Cloud, network: Network, region: str, plan: Plan, said: metadata.BoxMetadata
) -> Answer:
    """Make the machine as `run` does, in the groups that its owner's boxes are in."""
    return network.in_groups(
        region,
        plan.socket,
        said.tags.owner,
        lambda groups: run(cloud, region, replace(plan, groups=tuple(groups)), said),
    )


def run(cloud: Cloud, region: str, plan: Plan, said: metadata.BoxMetadata) -> Answer:
    """
    Make the machine, or return the one that this token has already made.

    Raises:
        NoCapacity, QuotaExceeded, NotAllowed, ProviderError: It was not made.

        Unclear: It may have been made.
    """
    if len(plan.user_data) > USER_DATA_BYTES:
        raise ProviderError(
            f"what {said.box} needs to know at boot is {len(plan.user_data)} bytes, "
            f"and EC2 takes {USER_DATA_BYTES}"
        )
    words, doubtful = plan.words(said), False

    def attempt() -> Answer:
        nonlocal doubtful
        try:
            return cloud.once("ec2", "run_instances", region, **words)
        except Unclear:
            doubtful = True
            raise

    try:
        made: Answer = cloud.repeat(attempt)["Instances"][0]
    except (NoCapacity, QuotaExceeded, NotAllowed, ProviderError) as error:
        if isinstance(error, Unclear):
            raise
        if errors.code(error) == "IdempotentParameterMismatch":
            made = _made_before(cloud, region, said, error)
        elif errors.code(error) == "IdempotentInstanceTerminated":
            raise Gone(f"the machine of {said.box} has been terminated") from error
        elif doubtful:
            made = _made_in_doubt(cloud, region, said, error)
        else:
            raise _about_settings(error) from error
    present = metadata.tags_of(metadata.texts(made))
    metadata.check(f"{said.box} ({made['InstanceId']})", present, said.tags)
    if not instances.is_alive(made):
        raise Gone(f"the machine of {said.box} has been terminated")
    return made


def _made_before(
    cloud: Cloud, region: str, said: metadata.BoxMetadata, error: ProviderError
) -> Answer:
    """Return what the token has made with other words: a moved base, a new price."""
    found = poll(
        cloud,
        lambda: instances.look(cloud, region, said.box).instances or None,
        SETTLE_SECONDS,
        f"looking for the machine that {said.box} already has",
    )
    alive = [one for one in found if instances.is_alive(one)]
    if not alive:
        raise Gone(f"the machine of {said.box} has been terminated") from error
    return alive[0]


def _made_in_doubt(
    cloud: Cloud, region: str, said: metadata.BoxMetadata, error: ProviderError
) -> Answer:
    """Return what a call without an answer has made, though the next was refused."""
    machine = instances.look(cloud, region, said.box).machine
    if machine is None:
        raise error
    return machine


def _about_settings(error: ProviderError) -> ProviderError | UsageError:
    code = errors.code(error)
    if code in ("InvalidGroup.NotFound", "InvalidSecurityGroupID.NotFound"):
        return GroupGone(
            f"the security group of [aws] is not there: {error.message}",
            next="see security_group in onebox.toml",
        )
    if code.startswith(("InvalidGroup", "InvalidSecurityGroup", "InvalidSubnet")):
        return UsageError(
            f"the network of [aws] cannot be used: {error.message}",
            next="see subnet and security_group in onebox.toml",
        )
    return error


def allowed(cloud: Cloud, region: str, plan: Plan, said: metadata.BoxMetadata) -> None:
    """Ask whether the machine could be made, without making it. Raises if not."""
    try:
        cloud.call("ec2", "run_instances", region, **plan.words(said), DryRun=True)
    except ProviderError as error:
        if errors.code(error) != "DryRunOperation":
            raise


def asking(region: str) -> metadata.BoxMetadata:
    """Return the marks of a machine that is only asked about."""
    return metadata.BoxMetadata(
        box="ob-doctor",
        tags=Tags("doctor", "doctor", "doctor", 0.0, "0"),
        size=Offer("doctor", "m7i.large", 2, 8 << 30, None, None, place=region),
        image="",
        host_key="",
        bootstrap_key=False,
        deadline=0.0,
    )
