"""The AWS account as the provider contract sees it."""

from __future__ import annotations

import base64
import gzip
from typing import Any

from onebox.providers.values import Request
from tests.fakes.aws import profiles
from tests.fakes.aws.account import Account
from tests.fakes.world import CloudWorld, deadline_in, is_within

REGION = "us-east-1"


class AWSWorld(CloudWorld):
    """The account's state in one region, read from moto."""

    def __init__(self, account: Account) -> None:
        super().__init__()
        self.account = account

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Search the rules of the network interface's security groups."""
        return any(
            rule.ip_protocol in ("tcp", "-1")
            and (rule.ip_protocol == "-1" or int(rule.from_port) <= 22)
            and (rule.ip_protocol == "-1" or int(rule.to_port) >= 22)
            and is_within(
                source, [c for c in [(rule.ip_range or {}).get("CidrIp")] if c]
            )
            for group in self._instance(box).nics[0].group_set
            for rule in group.ingress_rules
        )

    def boot_data(self, box: str) -> str:
        """Return the user data."""
        compressed = base64.b64decode(str(self._instance(box).user_data))
        return gzip.decompress(compressed).decode()

    def deadline_on(self, box: str) -> float | None:
        """Return the deadline in the user data."""
        return deadline_in(self.boot_data(box))

    def image_on_disk(self, box: str) -> str:
        """Return the id in the tags of the instance's AMI."""
        image = self._backend.amis[self._instance(box).image_id]
        tags = {tag["key"]: tag["value"] for tag in image.get_tags()}
        return str(tags.get("onebox:image", ""))

    def objects_of(self, box: str) -> set[str]:
        """Return instances, volumes, network interfaces and the alarm."""
        alive = self.account.alive(box)
        ids = {str(instance.id) for instance in alive}
        ids |= {str(nic.id) for instance in alive for nic in instance.nics.values()}
        ids |= {str(volume.id) for volume in self.account.volumes(box)}
        alarm_calls = [
            call.action
            for call in self.account.calls
            if call.service == "cloudwatch" and f"onebox-{box}" in str(call.parameters)
            if call.action in ("PutMetricAlarm", "DeleteAlarms")
        ]
        has_alarm = alarm_calls[-1:] == ["PutMetricAlarm"]
        return ids | ({f"onebox-{box}"} if has_alarm else set())

    def firewalls_of(self, owner: str) -> set[str]:
        """Return the security groups whose name contains the owner."""
        return {str(group.id) for group in self._groups() if owner in str(group.name)}

    def identity_of(self, box: str) -> str:
        """Return the name of the instance profile."""
        profile = self._instance(box).iam_instance_profile or {}
        return str(profile.get("Arn", "")).rpartition("/")[2]

    def set_identity(self, box: str, identity: str) -> None:
        """Replace the association with an instance profile."""
        instance = self._instance(box)
        instance.iam_instance_profile = None
        if identity:
            arn = profiles.add(identity, f"{identity}-role")
            instance.iam_instance_profile = {"Arn": arn, "Id": "AIPA1"}

    def build_with_packer(self) -> str:
        """Copy a public image to an image of the account."""
        amis = self._backend.amis
        name = f"packer-{len(amis)}"
        copy = self._backend.copy_image(self._plain_image(), REGION, name, "")
        return f"{REGION}:{copy.id}"

    def cut_after_next_create(self) -> None:
        """Cut the connection after the next RunInstances."""
        self.account.faults.add("RunInstances", "cut after")

    def refuse_creates(self, request: Request) -> Request:
        """Remove all capacity."""
        self.account.faults.full.add(("*", "*", None))
        return request

    def accept_creates(self) -> None:
        """Restore all capacity."""
        self.account.faults.full.clear()

    def open_ssh_to_everyone(self, box: str) -> None:
        """Add a rule to the security groups of the box."""
        for group in self._instance(box).nics[0].group_set:
            self._backend.authorize_security_group_ingress(
                group.id, "tcp", "22", "22", [{"CidrIp": "0.0.0.0/0"}]
            )

    def detach_firewalls(self, box: str) -> None:
        """Move the box to the VPC's default group, as EC2 does without a group."""
        instance = self._instance(box)
        default = next(group for group in self._groups() if group.name == "default")
        instance.nics[0]._group_set = [default]
        instance.security_groups = [default]

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace the user data."""
        compressed = gzip.compress(boot_data.encode())
        self._instance(box).user_data = base64.b64encode(compressed).decode()

    def put_base_on_disk(self, box: str) -> None:
        """Replace the instance's AMI by a public one."""
        self._instance(box).image_id = self._plain_image()

    def leave_partial_create(self, owner: str, box: str) -> None:
        """Leave a security group without onebox's tags."""
        vpc = next(iter(self._backend.vpcs))
        name = f"left-{owner}"
        self._backend.create_security_group(name, name, vpc_id=vpc)

    @property
    def _backend(self) -> Any:
        return self.account.backend(REGION)

    def _instance(self, box: str) -> Any:
        (instance,) = self.account.alive(box)
        return instance

    def _groups(self) -> list[Any]:
        return [
            group
            for groups_of_vpc in self._backend.groups.values()
            for group in groups_of_vpc.values()
        ]

    def _plain_image(self) -> str:
        amis = self._backend.amis.values()
        return next(str(ami.id) for ami in amis if "noble" in (ami.name or ""))
