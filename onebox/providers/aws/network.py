"""Where a box is plugged in, and who may knock at its ssh port."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from onebox.errors import Gone, NoCapacity, NotAllowed, ProviderError, UsageError
from onebox.providers.aws import errors, metadata
from onebox.providers.aws.client import Answer, Cloud
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.base import FreeThing
from onebox.providers.kernel.cidr import is_world

SSH = 22

T = TypeVar("T")


class GroupGone(UsageError):
    """The security group that a machine was to be in is not there (any more)."""


@dataclass(frozen=True)
class SubnetChoice:
    """The place in a network that a box is given."""

    vpc: str
    subnet: str
    zone: str
    public: bool


class Network:
    """
    The network of boxes, as the settings [aws] want it.

    Args:
        caller: What tells this machine's own address.
    """

    def __init__(
        self, cloud: Cloud, settings: AWSSettings, caller: Callable[[], str]
    ) -> None:
        self._cloud = cloud
        self._subnet = settings.subnet
        self._group = settings.security_group
        self._cidr = settings.ssh_cidr
        self._private = settings.private
        self._caller = caller
        self._known: dict[str, list[SubnetChoice]] = {}
        self._ranges: dict[str, list[str]] = {}
        if self._cidr:
            self._cidr = str(ipaddress.ip_network(self._cidr, strict=False))

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what the user should know of each box."""
        if self._cidr and is_world(self._cidr):
            return ("its ssh port is open to the whole world (allow_world_ssh)",)
        return ()

    def sockets(self, region: str) -> list[SubnetChoice]:
        """
        Return the subnets that boxes of a region may be in, asked for once.

        Raises:
            UsageError: There are none, or the one of the settings is not there.
        """
        if region not in self._known:
            self._known[region] = self._look(region)
        return self._known[region]

    def socket(self, region: str, zone: str) -> SubnetChoice:
        """Return the subnet of a zone. Raises NoCapacity if it has none."""
        for one in self.sockets(region):
            if one.zone == zone:
                return one
        raise NoCapacity(f"there is no subnet for boxes in {zone}")

    def groups(self, region: str, socket: SubnetChoice, owner: str) -> list[str]:
        """
        Return the security groups of a box: the settings', or the owner's own.

        There is one of ours for each owner and VPC. It costs nothing, and goes with
        the owner's last box.
        """
        if self._group:
            return [self._group]
        present = self._ours(region, socket.vpc, owner) or self._create(
            region, socket.vpc, owner
        )
        self._admit_only(region, present, self._who(region, socket.vpc))
        return [str(present["GroupId"])]

    def in_groups(
        self,
        region: str,
        socket: SubnetChoice,
        owner: str,
        make: Callable[[Sequence[str]], T],
    ) -> T:
        """
        Have a machine made in the groups of a box.

        Another command of the same owner may remove our group meanwhile, with what
        was the last box until then: once more, in that case.
        """
        try:
            return make(self.groups(region, socket, owner))
        except GroupGone:
            if self._group:
                raise
        return make(self.groups(region, socket, owner))

    def free_things(self, region: str, owner: str) -> list[FreeThing]:
        """Return our groups in a region, each with what uses it."""
        found = self._cloud.pages(
            "describe_security_groups",
            "SecurityGroups",
            region,
            Filters=metadata.owned_by(owner),
        )
        return [
            FreeThing("security group", id, region, self._used_by(region, id))
            for id in sorted(str(one["GroupId"]) for one in found)
        ]

    def remove_free(self, region: str, owner: str, group: str) -> None:
        """
        Remove one of our groups; already gone is fine, one in use EC2 keeps.

        Raises:
            NotAllowed: It is not this owner's; it was not touched.
        """
        found = self._cloud.pages(
            "describe_security_groups",
            "SecurityGroups",
            region,
            Filters=metadata.filters({"group-id": [group]}),
        )
        for one in found:
            present = metadata.tags_of(metadata.texts(one))
            if present is None or present.owner != owner:
                raise NotAllowed(f"{group} is not this owner's; it was not touched")
            try:
                self._cloud.call("ec2", "delete_security_group", region, GroupId=group)
            except Gone:
                return
            except ProviderError as error:
                if errors.code(error) != "DependencyViolation":
                    raise
                raise ProviderError("a machine still uses it") from error

    def _used_by(self, region: str, group: str) -> str:
        """Say what is in a group, "" if nothing is."""
        cards = self._cloud.pages(
            "describe_network_interfaces",
            "NetworkInterfaces",
            region,
            Filters=metadata.filters({"group-id": [group]}),
        )
        if not cards:
            return ""
        held = cards[0].get("Attachment", {}).get("InstanceId")
        box = metadata.texts(cards[0]).get(metadata.BOX)
        return f"{box or held or cards[0]['NetworkInterfaceId']} uses it"

    def allow_my_ip(self, region: str, owner: str, attached: Sequence[str]) -> bool:
        """Have our group let in who may come now, and nobody else."""
        if self._group:
            return False
        found = self._cloud.pages(
            "describe_security_groups",
            "SecurityGroups",
            region,
            Filters=metadata.filters(
                {"group-id": attached, "group-name": [_name(owner)]}
            ),
        )
        # Whoever calls is not let in: the address may have changed since.
        changes = [
            self._admit_only(region, one, self._who(region, one["VpcId"]))
            for one in found
        ]
        return any(changes)

    def _who(self, region: str, vpc: str) -> list[str]:
        if self._cidr:
            return [self._cidr]
        if not self._private:
            return [f"{self._caller()}/32"]
        if vpc not in self._ranges:
            found = self._cloud.pages("describe_vpcs", "Vpcs", region, VpcIds=[vpc])
            self._ranges[vpc] = sorted(
                {
                    str(block["CidrBlock"])
                    for one in found
                    for block in one.get("CidrBlockAssociationSet", ())
                }
                or {str(one["CidrBlock"]) for one in found}
            )
        return self._ranges[vpc]

    def _look(self, region: str) -> list[SubnetChoice]:
        asked: dict[str, Any] = {
            "Filters": metadata.filters(
                {"default-for-az": ["true"], "state": ["available"]}
            )
        }
        if self._subnet:
            asked = {"SubnetIds": [self._subnet]}
        try:
            found = self._cloud.pages("describe_subnets", "Subnets", region, **asked)
        except Gone as error:
            raise UsageError(
                f"there is no subnet {self._subnet} in {region}",
                next="see [aws] subnet in onebox.toml",
            ) from error
        if not found:
            raise UsageError(
                f"{region} has no default VPC to put boxes in",
                next='set subnet = "subnet-…" under [aws], or: '
                "aws ec2 create-default-vpc",
            )
        return sorted(map(self._socket, found), key=lambda one: one.zone)

    def _socket(self, subnet: Answer) -> SubnetChoice:
        # A subnet that was named may be one that no public address leads to.
        leads = bool(subnet.get("MapPublicIpOnLaunch")) or not self._subnet
        return SubnetChoice(
            vpc=str(subnet["VpcId"]),
            subnet=str(subnet["SubnetId"]),
            zone=str(subnet["AvailabilityZone"]),
            public=leads and not self._private,
        )

    def _ours(self, region: str, vpc: str, owner: str) -> Answer | None:
        found = self._cloud.pages(
            "describe_security_groups",
            "SecurityGroups",
            region,
            Filters=metadata.filters({"vpc-id": [vpc], "group-name": [_name(owner)]}),
        )
        return found[0] if found else None

    def _create(self, region: str, vpc: str, owner: str) -> Answer:
        try:
            made = self._cloud.call(
                "ec2",
                "create_security_group",
                region,
                GroupName=_name(owner),
                Description="ssh to the boxes of one owner of onebox",
                VpcId=vpc,
                TagSpecifications=[
                    {"ResourceType": "security-group", "Tags": metadata.of_group(owner)}
                ],
            )
        except ProviderError as error:
            # Another command of ours, or a lost answer's own.
            present = self._ours(region, vpc, owner)
            if errors.code(error) != "InvalidGroup.Duplicate" or present is None:
                raise
            return present
        return {"GroupId": made["GroupId"], "IpPermissions": []}

    def _admit_only(self, region: str, group: Answer, who: Sequence[str]) -> bool:
        rules = group.get("IpPermissions", ())
        present = {
            (_key(rule), str(cidr["CidrIp"]))
            for rule in rules
            for cidr in rule.get("IpRanges", ())
        }
        wanted = {(("tcp", SSH, SSH), cidr) for cidr in who}
        new = [_rule(key, cidr) for key, cidr in sorted(wanted - present)]
        old = [_rule(key, cidr) for key, cidr in sorted(present - wanted)]
        # Nor are other networks let in, of any other kind.
        old += [
            {**_ports(_key(rule)), kind: rule[kind]}
            for rule in rules
            for kind in ("Ipv6Ranges", "PrefixListIds", "UserIdGroupPairs")
            if rule.get(kind)
        ]
        # The new ones first: never is nobody let in who should be.
        self._change(region, group, "authorize", new, "Duplicate")
        self._change(region, group, "revoke", old, "NotFound")
        return bool(new or old)

    def _change(
        self,
        region: str,
        group: Answer,
        verb: str,
        rules: Sequence[Mapping[str, Any]],
        done: str,
    ) -> None:
        if not rules:
            return
        try:
            self._cloud.call(
                "ec2",
                f"{verb}_security_group_ingress",
                region,
                GroupId=group["GroupId"],
                IpPermissions=rules,
            )
        except ProviderError as error:
            if errors.code(error) != f"InvalidPermission.{done}":
                raise


_Key = tuple[str, int, int]


def _name(owner: str) -> str:
    return f"onebox-{owner}"


def _key(rule: Answer) -> _Key:
    return (
        str(rule.get("IpProtocol", "-1")),
        int(rule.get("FromPort", -1)),
        int(rule.get("ToPort", -1)),
    )


def _rule(key: _Key, cidr: str) -> dict[str, Any]:
    return {**_ports(key), "IpRanges": [{"CidrIp": cidr}]}


def _ports(key: _Key) -> dict[str, Any]:
    protocol, first, last = key
    ports = {} if protocol == "-1" else {"FromPort": first, "ToPort": last}
    return {"IpProtocol": protocol, **ports}
