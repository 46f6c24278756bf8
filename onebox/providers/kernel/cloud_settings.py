"""Every cloud has these settings: where its boxes are, and who may reach their ssh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from onebox.providers.kernel.ssh_access import is_world
from onebox.providers.kernel.user_tags import TagRules
from onebox.settings.checks import Matching, OneOf, bytes_from, distinct, is_cidr
from onebox.settings.fields import Conflict, ProviderTable, setting
from onebox.settings.kinds import BOOLEAN, BYTES, STRING, STRINGS
from onebox.settings.units import GB

PLACE = Matching(r"[a-z]+[a-z0-9-]*", "a place such as us-east-1")


def region(default: str, example: str, help: str) -> Any:
    """Declare the setting for a cloud's region; each cloud has its own default."""
    return setting(STRING, default, example, help, PLACE, blank=not default)


def regions(example: str) -> Any:
    """Declare the setting for the regions that onebox tries after the first region."""
    help = "More regions to try if the first has no capacity."
    return setting(STRINGS, (), example, help, PLACE, distinct)


def zones(example: str) -> Any:
    """Declare the setting for the zones of a region, in clouds that have zones."""
    help = "The zones to try, in this order; all zones if empty."
    return setting(STRINGS, (), example, help, PLACE, distinct)


def disk() -> Any:
    """Declare the setting for the disk's size, in clouds where the user chooses it."""
    check = bytes_from(8 * GB)
    return setting(
        BYTES, 100 * GB, '"100 GB"', "The disk of a box; it is billed too.", check
    )


def disk_type(*types: str) -> Any:
    """Declare the setting for the disk's type; the default is the first of *types*."""
    help = "The type of the disk."
    return setting(STRING, types[0], f'"{types[0]}"', help, OneOf(types))


@dataclass(frozen=True)
class CloudSettings(ProviderTable):
    """
    The settings that all clouds share; a string that is not set is "".

    The class of each cloud overrides *region* and *regions*, with its own default and
    example. Boxes are created in *region*, or in one of *regions* if *region* has no
    capacity. The ssh port of a box accepts connections only from *ssh_cidr*. If
    *ssh_cidr* is not set, `SSHAccess` chooses the networks. *tag_rules* is what the
    cloud accepts as a tag of the user.
    """

    tag_rules: ClassVar[TagRules]

    region: str = ""
    regions: tuple[str, ...] = ()
    ssh_cidr: str = setting(
        STRING,
        "",
        '"203.0.113.7/32"',
        "The network that can reach ssh; this machine if not set.",
        is_cidr,
        blank=True,
    )
    allow_world_ssh: bool = setting(
        BOOLEAN, False, "true", "Accept an ssh_cidr that is the whole internet."
    )
    private: bool = setting(
        BOOLEAN, False, "true", "Boxes have a private address only."
    )
    jump: str = setting(
        STRING,
        "",
        '"me@bastion.example.com"',
        "Connect through this host, as your own ssh knows it.",
        Matching(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]*", "a host for ssh"),
        blank=True,
    )

    @property
    def all_regions(self) -> tuple[str, ...]:
        """Return the regions to try, in their order."""
        return tuple(dict.fromkeys((self.region, *self.regions)))

    @property
    def open_to_world(self) -> bool:
        """Return whether ssh accepts connections from the whole internet."""
        return bool(self.ssh_cidr) and is_world(self.ssh_cidr)

    @property
    def hides_address(self) -> str:
        """
        Return the name of the setting that hides the address of ssh clients.

        Return "" if no setting hides it.
        """
        return "jump" if self.jump and not self.private else ""

    def check(self, environ: Mapping[str, str]) -> None:
        """
        Raise Conflict if *ssh_cidr* does not fit the other settings.

        It must not be the whole internet without *allow_world_ssh*. It must be set if a
        jump host hides the address that ssh connections come from.
        """
        if self.open_to_world and not self.allow_world_ssh:
            raise Conflict(
                "ssh_cidr",
                "opens ssh to the whole internet; to accept that, set "
                "allow_world_ssh = true",
            )
        if self.hides_address and not self.ssh_cidr:
            raise Conflict(
                self.hides_address,
                "hides the address that ssh connections come from; set ssh_cidr too, "
                "to the jump host's address or a network such as 10.0.0.0/8",
            )

    def check_tags(self) -> None:
        """Raise Conflict, with a tag's key, if the cloud would refuse the tag."""
        for key, value in self.tags.items():
            problem = self.tag_rules.problem(key, value)
            if problem:
                raise Conflict(key, problem)
