"""The AWS account as the contract tests see it, without its API."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import re
from typing import Any

from onebox.providers.base import Request
from tests.fakes.ec2.account import Account

REGION = "us-east-1"
_DEADLINE = re.compile(r'\\?"deadline\\?": ([0-9.]+)')


class Ec2World:
    """The account, for one test; see `World`."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.here = "198.51.100.7"
        self.lost = 0

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Look into the groups that the box's network interface is in."""
        return any(
            rule.ip_protocol in ("tcp", "-1")
            and (rule.ip_protocol == "-1" or int(rule.from_port) <= 22)
            and (rule.ip_protocol == "-1" or int(rule.to_port) >= 22)
            and _within(source, [c for c in [(rule.ip_range or {}).get("CidrIp")] if c])
            for group in self._one(box).nics[0].group_set
            for rule in group.ingress_rules
        )

    def boot_data(self, box: str) -> str:
        """Return the user data."""
        packed = base64.b64decode(str(self._one(box).user_data))
        return gzip.decompress(packed).decode()

    def deadline_on(self, box: str) -> float | None:
        """Read it in the user data."""
        found = _DEADLINE.search(self.boot_data(box))
        return float(found[1]) if found else None

    def mark(self, box: str, word: str) -> None:
        """There are no real disks."""

    def booted_from(self, box: str) -> str:
        """Look at the tags of the instance's image."""
        image = self._backend.amis[self._one(box).image_id]
        tags = {tag["key"]: tag["value"] for tag in image.get_tags()}
        return str(tags.get("onebox:image", ""))

    def belongings(self, box: str) -> set[str]:
        """Return instances, volumes, network interfaces and the alarm."""
        alive = self.account.alive(box)
        found = {str(one.id) for one in alive}
        found |= {str(card.id) for one in alive for card in one.nics.values()}
        found |= {str(one.id) for one in self.account.volumes(box)}
        made = [
            call.action
            for call in self.account.calls
            if call.service == "cloudwatch" and f"onebox-{box}" in str(call.parameters)
            if call.action in ("PutMetricAlarm", "DeleteAlarms")
        ]
        return found | ({f"onebox-{box}"} if made[-1:] == ["PutMetricAlarm"] else set())

    def walls(self, owner: str) -> set[str]:
        """Return the groups that bear the owner's name."""
        return {str(one.id) for one in self._groups() if owner in str(one.name)}

    def packed(self) -> str:
        """Copy an image of Canonical's, as an image of the account's own."""
        amis = self._backend.amis.values()
        base = next(str(one.id) for one in amis if "noble" in (one.name or ""))
        made = self._backend.copy_image(base, REGION, f"packed-{len(amis)}", "")
        return f"{REGION}:{made.id}"

    def lose_next_answer(self) -> None:
        """Cut the connection once the machine is made."""
        self.lost += 1
        self.account.faults.add("RunInstances", "cut after")

    def refuse(self, request: Request) -> Request:
        """Have no capacity left."""
        self.account.faults.full.add(("*", "*", None))
        return request

    def accept(self) -> None:
        """Have capacity again."""
        self.account.faults.full.clear()

    def move(self) -> str:
        """Be somewhere else from now on."""
        self.here = "203.0.113.9"
        return self.here

    def open_to_all(self, box: str) -> None:
        """Add a rule to the box's group."""
        for group in self._one(box).nics[0].group_set:
            self._backend.authorize_security_group_ingress(
                group.id, "tcp", "22", "22", [{"CidrIp": "0.0.0.0/0"}]
            )

    def take_off_walls(self, box: str) -> None:
        """Put the box into the network's own group, as EC2 does by default."""
        one = self._one(box)
        default = next(g for g in self._groups() if g.name == "default")
        one.nics[0]._group_set = [default]
        one.security_groups = [default]

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace the user data."""
        packed = gzip.compress(boot_data.encode())
        self._one(box).user_data = base64.b64encode(packed).decode()

    def boot_plain(self, box: str) -> None:
        """Have the instance say that it was made of an image of Canonical's."""
        amis = self._backend.amis.values()
        self._one(box).image_id = next(
            one.id for one in amis if "noble" in (one.name or "")
        )

    def leave_behind(self, owner: str, box: str) -> None:
        """Leave a group that carries no tags of ours."""
        vpc = next(iter(self._backend.vpcs))
        name = f"left-{owner}"
        self._backend.create_security_group(name, name, vpc_id=vpc)

    @property
    def _backend(self) -> Any:
        return self.account.backend(REGION)

    def _one(self, box: str) -> Any:
        (one,) = self.account.alive(box)
        return one

    def _groups(self) -> list[Any]:
        return [
            group
            for of_vpc in self._backend.groups.values()
            for group in of_vpc.values()
        ]


def _within(source: str, networks: list[str]) -> bool:
    address = ipaddress.ip_address(source)
    return any(address in ipaddress.ip_network(network) for network in networks)
