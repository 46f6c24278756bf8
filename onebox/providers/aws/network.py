"""Find the subnets of boxes, and maintain the security group that opens ssh to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from onebox.errors import Gone, NoCapacity, ProviderError, UsageError
from onebox.providers.aws import errors, metadata, reach
from onebox.providers.aws.client import EC2, Answer
from onebox.providers.aws.instances import region_of
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.kernel.metadata import check_same_owner
from onebox.providers.kernel.reach import require
from onebox.providers.kernel.ssh_access import SSHAccess
from onebox.providers.values import FreeObject

SSH = 22

T = TypeVar("T")


class GroupGone(UsageError):
    """The security group for a new instance does not exist, or no longer exists."""


@dataclass(frozen=True)
class Subnet:
    """The subnet of a box, and whether the box gets a public address there."""

    vpc: str
    id: str
    zone: str
    public: bool


class Network:
    """
    The subnets and security groups of boxes, according to the table [aws].

    Args:
        my_ip: Returns this machine's public address.

    Attributes:
        group: The security group in the settings, "" if they name none.

        access: The networks from which a box's ssh port may be reached.
    """

    def __init__(self, settings: AWSSettings, my_ip: Callable[[], str]) -> None:
        self.settings = settings
        self.group = settings.security_group
        self.access = SSHAccess(
            ssh_cidr=settings.ssh_cidr, private=settings.private, my_ip=my_ip
        )
        self._known: dict[str, list[Subnet]] = {}
        self._ranges: dict[str, list[str]] = {}

    def subnets(self, ec2: EC2) -> list[Subnet]:
        """
        Return the subnets of a region in which boxes may be created; they are cached.

        Raises:
            UsageError: The region has no default subnets, or the subnet in the settings
                does not exist.
        """
        if ec2.region not in self._known:
            self._known[ec2.region] = self._describe_subnets(ec2)
        return self._known[ec2.region]

    def usable_subnets(self, ec2: EC2) -> list[Subnet]:
        """
        Return the subnets of the zones that the settings name in this region, in order.

        If the settings name no zone of this region, return all its subnets.
        """
        subnets = self.subnets(ec2)
        zones = [one for one in self.settings.zones if region_of(one) == ec2.region]
        if not zones:
            return subnets
        return [one for zone in zones for one in subnets if one.zone == zone]

    def subnet(self, ec2: EC2, zone: str) -> Subnet:
        """Return the subnet of a zone. Raises NoCapacity if the zone has no subnet."""
        for one in self.subnets(ec2):
            if one.zone == zone:
                return one
        raise NoCapacity(f"there is no subnet for boxes in {zone}")

    def reachable(self, regions: Sequence[EC2]) -> list[EC2]:
        """
        Return the regions whose boxes can be reached as the settings say.

        Raises:
            SetupError: A tool that leads to the boxes is missing on this machine.

            UsageError: No region has what the tool needs.
        """
        way = self.settings.reach
        require(reach.TOOLS[way])
        if way != reach.ENDPOINT:
            return list(regions)
        found, refused = [], []
        for ec2 in regions:
            try:
                subnet = self.subnets(ec2)[0]
                reach.endpoint_groups(ec2, subnet.vpc, subnet.id)
                found.append(ec2)
            except UsageError as error:
                refused.append(error)
        if not found:
            raise refused[0]
        return found

    def groups(self, ec2: EC2, subnet: Subnet, owner: str, way: str = "") -> list[str]:
        """
        Return the id of the security group of a box, as a list with one item.

        If the settings name a group, it is that one. Otherwise it is the owner's group
        in this VPC, which onebox creates if needed and whose rules it corrects. Such a
        group is free, and is deleted with the owner's last box.

        Args:
            way: How the box is reached, as in the setting `reach`. For each way there
                is a group, because one group cannot have the rules of two.
        """
        if self.group:
            return [self.group]
        present = self._ours(ec2, subnet.vpc, owner, way) or self._create(
            ec2, subnet.vpc, owner, way
        )
        self._admit_only(ec2, present, self._sources(ec2, subnet.vpc, subnet.id, way))
        return [str(present["GroupId"])]

    def create_in_groups(
        self,
        ec2: EC2,
        subnet: Subnet,
        owner: str,
        way: str,
        create: Callable[[Sequence[str]], T],
    ) -> T:
        """
        Call *create* with the security groups of a box, and return its result.

        Before *create* uses the group, another command of the same owner may delete it
        together with the owner's last box. In that case the group is created again, and
        *create* is called again.
        """
        try:
            return create(self.groups(ec2, subnet, owner, way))
        except GroupGone:
            if self.group:
                raise
        return create(self.groups(ec2, subnet, owner, way))

    def free_objects(self, ec2: EC2, owner: str) -> list[FreeObject]:
        """Return the owner's groups in a region; each one tells what still uses it."""
        found = _groups(ec2, metadata.owner_filters(owner))
        return [
            FreeObject("security group", id, ec2.region, self._used_by(ec2, id))
            for id in sorted(str(one["GroupId"]) for one in found)
        ]

    def remove_free(self, ec2: EC2, owner: str, group: str) -> None:
        """
        Delete a security group of the owner; it is no error if it is already gone.

        Raises:
            NotAllowed: The group belongs to another owner; it was not changed.

            ProviderError: An instance still uses the group.
        """
        found = _groups(ec2, metadata.filters({"group-id": [group]}))
        for one in found:
            check_same_owner(group, metadata.owner_of(one), owner)
            try:
                ec2.call("delete_security_group", GroupId=group)
            except Gone:
                return
            except ProviderError as error:
                if errors.code(error) != "DependencyViolation":
                    raise
                raise ProviderError("an instance still uses it") from error

    def _used_by(self, ec2: EC2, group: str) -> str:
        """Return a text such as "ob-1 uses it", "" if nothing uses the group."""
        cards = ec2.pages(
            "describe_network_interfaces",
            "NetworkInterfaces",
            Filters=metadata.filters({"group-id": [group]}),
        )
        if not cards:
            return ""
        held = cards[0].get("Attachment", {}).get("InstanceId")
        box = metadata.tags_by_name(cards[0]).get(metadata.BOX)
        return f"{box or held or cards[0]['NetworkInterfaceId']} uses it"

    def allow_my_ip(self, ec2: EC2, owner: str, attached: Sequence[str]) -> bool:
        """
        Open the owner's group to the networks that may reach ssh now.

        Return whether a rule has changed. *attached* has the ids of the box's security
        groups. If the settings name the group, nothing is changed.
        """
        if self.group:
            return False
        found = _groups(
            ec2, metadata.filters({"group-id": attached, "group-name": [_name(owner)]})
        )
        # The address of this machine is looked up again, because it may have changed.
        changes = [
            self._admit_only(
                ec2,
                one,
                _from_networks(self._networks(ec2, one["VpcId"], refresh=True)),
            )
            for one in found
        ]
        return any(changes)

    def _sources(self, ec2: EC2, vpc: str, subnet: str, way: str) -> set[_Source]:
        """
        Return what may reach the ssh port of a box.

        For an endpoint these are its security groups: a rule that names a group holds
        whether the endpoint preserves the address of its client or not, and admits
        nothing else of the VPC. SSM needs no rule.
        """
        if way == reach.ENDPOINT:
            groups = reach.endpoint_groups(ec2, vpc, subnet)
            return {("UserIdGroupPairs", "GroupId", one) for one in groups}
        return set() if way else _from_networks(self._networks(ec2, vpc))

    def _networks(self, ec2: EC2, vpc: str, *, refresh: bool = False) -> Sequence[str]:
        """
        Return the networks that may reach ssh.

        If only private networks may reach it, these are the networks of the VPC.
        """
        if not self.access.is_private:
            return self.access.networks(refresh=refresh)
        if vpc not in self._ranges:
            found = ec2.pages("describe_vpcs", "Vpcs", VpcIds=[vpc])
            self._ranges[vpc] = sorted(
                {
                    str(block["CidrBlock"])
                    for one in found
                    for block in one.get("CidrBlockAssociationSet", ())
                }
                or {str(one["CidrBlock"]) for one in found}
            )
        return self._ranges[vpc]

    def _describe_subnets(self, ec2: EC2) -> list[Subnet]:
        query: dict[str, Any] = {
            "Filters": metadata.filters(
                {"default-for-az": ["true"], "state": ["available"]}
            )
        }
        if self.settings.subnet:
            query = {"SubnetIds": [self.settings.subnet]}
        try:
            found = ec2.pages("describe_subnets", "Subnets", **query)
        except Gone as error:
            raise UsageError(
                f"there is no subnet {self.settings.subnet} in {ec2.region}",
                next="see [aws] subnet in onebox.toml",
            ) from error
        if not found:
            raise UsageError(
                f"{ec2.region} has no default VPC for boxes",
                next='set subnet = "subnet-…" under [aws], or: '
                "aws ec2 create-default-vpc",
            )
        return sorted(map(self._read, found), key=lambda one: one.zone)

    def _read(self, subnet: Answer) -> Subnet:
        # The default subnets assign public addresses. A subnet that the settings name
        # may assign none.
        assigns = bool(subnet.get("MapPublicIpOnLaunch")) or not self.settings.subnet
        return Subnet(
            vpc=str(subnet["VpcId"]),
            id=str(subnet["SubnetId"]),
            zone=str(subnet["AvailabilityZone"]),
            public=assigns and not self.settings.private,
        )

    def _ours(self, ec2: EC2, vpc: str, owner: str, way: str) -> Answer | None:
        names = [_name(owner, way)]
        found = _groups(ec2, metadata.filters({"vpc-id": [vpc], "group-name": names}))
        return found[0] if found else None

    def _create(self, ec2: EC2, vpc: str, owner: str, way: str) -> Answer:
        try:
            created = ec2.call(
                "create_security_group",
                GroupName=_name(owner, way),
                Description="ssh to the boxes of one owner of onebox",
                VpcId=vpc,
                TagSpecifications=[
                    {
                        "ResourceType": "security-group",
                        "Tags": metadata.group_tags(owner),
                    }
                ],
            )
        except ProviderError as error:
            # Another command, or a call whose response was lost, may have created the
            # group.
            present = self._ours(ec2, vpc, owner, way)
            if errors.code(error) != "InvalidGroup.Duplicate" or present is None:
                raise
            return present
        return {"GroupId": created["GroupId"], "IpPermissions": []}

    def _admit_only(self, ec2: EC2, group: Answer, sources: set[_Source]) -> bool:
        """
        Open a group's ssh port to these sources only; return whether a rule changed.
        """
        rules = group.get("IpPermissions", ())
        present = {
            (_key(rule), (kind, field, str(one[field])))
            for rule in rules
            for kind, field in (("IpRanges", "CidrIp"), ("UserIdGroupPairs", "GroupId"))
            for one in rule.get(kind, ())
        }
        expected = {(("tcp", SSH, SSH), source) for source in sources}
        new = [_rule(key, source) for key, source in sorted(expected - present)]
        old = [_rule(key, source) for key, source in sorted(present - expected)]
        # Rules that admit anything other than IPv4 networks and groups are removed too.
        old += [
            {**_ports(_key(rule)), kind: rule[kind]}
            for rule in rules
            for kind in ("Ipv6Ranges", "PrefixListIds")
            if rule.get(kind)
        ]
        # The new rules are added before the old ones are removed, so that this machine
        # is never locked out.
        self._change(ec2, group, "authorize", new, "Duplicate")
        self._change(ec2, group, "revoke", old, "NotFound")
        return bool(new or old)

    def _change(
        self,
        ec2: EC2,
        group: Answer,
        verb: str,
        rules: Sequence[Mapping[str, Any]],
        done: str,
    ) -> None:
        if not rules:
            return
        try:
            ec2.call(
                f"{verb}_security_group_ingress",
                GroupId=group["GroupId"],
                IpPermissions=rules,
            )
        except ProviderError as error:
            if errors.code(error) != f"InvalidPermission.{done}":
                raise


_Key = tuple[str, int, int]
# What a rule admits: the list and the field of it in EC2's API, and the value.
_Source = tuple[str, str, str]


def _from_networks(networks: Sequence[str]) -> set[_Source]:
    return {("IpRanges", "CidrIp", one) for one in networks}


def _groups(ec2: EC2, filters: Sequence[Mapping[str, object]]) -> list[Answer]:
    return ec2.pages("describe_security_groups", "SecurityGroups", Filters=filters)


def _name(owner: str, way: str = "") -> str:
    return f"onebox-{owner}-{way}" if way else f"onebox-{owner}"


def _key(rule: Answer) -> _Key:
    return (
        str(rule.get("IpProtocol", "-1")),
        int(rule.get("FromPort", -1)),
        int(rule.get("ToPort", -1)),
    )


def _rule(key: _Key, source: _Source) -> dict[str, Any]:
    kind, field, value = source
    return {**_ports(key), kind: [{field: value}]}


def _ports(key: _Key) -> dict[str, Any]:
    protocol, first, last = key
    ports = {} if protocol == "-1" else {"FromPort": first, "ToPort": last}
    return {"IpProtocol": protocol, **ports}
