"""Launch an instance, and repeat the call with its token until the outcome is clear."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from onebox.errors import Gone, OneboxError, ProviderError, Unclear, UsageError
from onebox.providers.aws import errors, instance_profile, instances, metadata
from onebox.providers.aws.base_images import Base
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.aws.network import GroupGone, Network, Subnet
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.kernel.retry import leave_unclear

# EC2's limit for user data, before it is encoded in base64.
USER_DATA_BYTES = 16384
# A new instance may be missing from EC2's lists for at most this many seconds.
LAG_SECONDS = 120.0

_TAGGED = ("instance", "volume", "network-interface")


@dataclass(frozen=True)
class Plan:
    """
    The parameters of an instance to launch, without its ownership tags.

    Several calls with the same *token* launch at most one instance. *disk* is a size in
    bytes. The disk of a spot instance is kept when the instance ends, because AWS may
    end the instance at any time. *profile* is the name or the ARN of the instance
    profile, "" for none.
    """

    token: str
    type: str
    base: Base
    subnet: Subnet
    user_data: bytes
    disk: int
    disk_type: str
    spot: bool
    groups: tuple[str, ...] = ()
    profile: str = ""

    def parameters(self, meta: BoxMetadata) -> dict[str, Any]:
        """Return the parameters for the call RunInstances."""
        tags = metadata.to_tags(meta)
        gib = math.ceil(max(self.disk, self.base.size) / (1 << 30))
        kinds = (*_TAGGED, "spot-instances-request") if self.spot else _TAGGED
        parameters: dict[str, Any] = {
            "ClientToken": self.token,
            "MinCount": 1,
            "MaxCount": 1,
            "ImageId": self.base.ami,
            "InstanceType": self.type,
            "UserData": self.user_data,
            "NetworkInterfaces": [
                {
                    "DeviceIndex": 0,
                    "SubnetId": self.subnet.id,
                    "Groups": list(self.groups),
                    "AssociatePublicIpAddress": self.subnet.public,
                    "DeleteOnTermination": True,
                }
            ],
            "BlockDeviceMappings": [
                {
                    # This is the name of the AMI's root device. With any other name EC2
                    # adds a second disk.
                    "DeviceName": self.base.root,
                    "Ebs": {
                        "VolumeSize": gib,
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
            **instance_profile.parameters(self.profile),
        }
        if self.spot:
            # EC2 can interrupt a one-time spot instance only by terminating it.
            parameters["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {
                    "SpotInstanceType": "one-time",
                    "InstanceInterruptionBehavior": "terminate",
                },
            }
        else:
            parameters["InstanceInitiatedShutdownBehavior"] = "stop"
        return parameters


def run_in_groups(ec2: EC2, network: Network, plan: Plan, meta: BoxMetadata) -> Answer:
    """Launch an instance as `run` does, in the security groups that *network* gives."""
    return network.create_in_groups(
        ec2,
        plan.subnet,
        meta.tags.owner,
        meta.reach,
        lambda groups: run(ec2, replace(plan, groups=tuple(groups)), meta),
    )


def run(ec2: EC2, plan: Plan, meta: BoxMetadata) -> Answer:
    """
    Launch an instance, or return the one that a call with this token launched before.

    Raises:
        NoCapacity, QuotaExceeded, NotAllowed, ProviderError: No instance was launched.

        Gone: The instance that was launched has been terminated.

        Unclear: An instance may have been launched.
    """
    if len(plan.user_data) > USER_DATA_BYTES:
        raise ProviderError(
            f"the user data of {meta.box} has {len(plan.user_data)} bytes, but EC2 "
            f"accepts {USER_DATA_BYTES}"
        )
    parameters = plan.parameters(meta)

    def launch() -> Answer:
        answer = ec2.once("run_instances", **parameters)
        instance: Answer = answer["Instances"][0]
        return instance

    def launch_once() -> Answer:
        return ec2.cloud.retry.call(
            launch, after_loss=lambda error: _find_launched(ec2, meta, error)
        )

    try:
        launched = ec2.poller.until_free(
            launch_once,
            instance_profile.LAG_SECONDS if plan.profile else 0.0,
            instance_profile.is_unknown,
        )
    except Unclear:
        raise
    except ProviderError as error:
        launched = _launched_before(ec2, plan, meta, error)
    metadata.check_owner(f"{meta.box} ({launched['InstanceId']})", launched, meta.tags)
    if not instances.is_alive(launched):
        raise _terminated(meta)
    return launched


def _find_launched(ec2: EC2, meta: BoxMetadata, error: OneboxError) -> Answer:
    """
    Return the instance that a call launched before its response was lost.

    If no instance is found, raise *error*, or Unclear if one may exist nevertheless.
    """
    if not errors.code(error).startswith("Idempotent"):
        try:
            instance = instances.find_resources(ec2, meta.box).instance
        except OneboxError as second:
            raise Unclear(second.message, next=second.next) from second
        if instance is not None:
            return instance
    return leave_unclear(error)


def _launched_before(
    ec2: EC2, plan: Plan, meta: BoxMetadata, error: ProviderError
) -> Answer:
    """
    Return the instance that an earlier call with the same token launched.

    EC2 refuses a token that it knows if the other parameters have changed. They change
    if the base image was updated or the price is a different one. If *error* is any
    other refusal, it is raised as `raise_for_settings` describes.
    """
    code = errors.code(error)
    if code == "IdempotentInstanceTerminated":
        raise _terminated(meta) from error
    if code != "IdempotentParameterMismatch":
        raise_for_settings(error, plan)
    found = ec2.poller.require(
        lambda: instances.find_resources(ec2, meta.box).instances,
        LAG_SECONDS,
        f"looking for the instance that {meta.box} already has",
    )
    alive = [one for one in found if instances.is_alive(one)]
    if not alive:
        raise _terminated(meta) from error
    return alive[0]


def _terminated(meta: BoxMetadata) -> Gone:
    return Gone(f"the instance of {meta.box} has been terminated")


def raise_for_settings(error: ProviderError, plan: Plan) -> NoReturn:
    """
    Raise *error*, or an error that names the settings which caused it.

    The security group, the subnet or the instance profile may have caused it. The error
    is GroupGone if the security group does not exist.
    """
    code = errors.code(error)
    if code in ("InvalidGroup.NotFound", "InvalidSecurityGroupID.NotFound"):
        raise GroupGone(
            f"the security group in [aws] does not exist: {error.message}",
            next="see security_group in onebox.toml",
        ) from error
    if code.startswith(("InvalidGroup", "InvalidSecurityGroup", "InvalidSubnet")):
        raise UsageError(
            f"the network in [aws] cannot be used: {error.message}",
            next="see subnet and security_group in onebox.toml",
        ) from error
    explained = instance_profile.explained(error, plan.profile)
    if explained is not error:
        raise explained from error
    raise error
