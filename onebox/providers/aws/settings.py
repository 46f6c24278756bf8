"""Define the settings in the table [aws] of onebox.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from onebox.providers.kernel import cloud_settings
from onebox.providers.kernel.reach import check_reach, reach_setting
from onebox.providers.kernel.user_tags import TagRules
from onebox.settings.checks import Matching
from onebox.settings.fields import setting
from onebox.settings.kinds import STRING


@dataclass(frozen=True)
class AWSSettings(cloud_settings.CloudSettings):
    """Where and how boxes are created on Amazon EC2; *disk* is a size in bytes."""

    # EC2 user guide, "Tag restrictions": these characters are accepted by all services
    # of AWS, and keys that begin with aws: are reserved.
    tag_rules: ClassVar[TagRules] = TagRules(
        "AWS",
        r"(?!(?i:aws:))[A-Za-z0-9 +=._:/@-]{1,128}",
        r"[A-Za-z0-9 +=._:/@-]{0,256}",
        "letters, digits, spaces and + - = . _ : / @, at most 128 in a key, which does "
        "not begin with aws:, and 256 in a value",
    )
    identity_setting: ClassVar[str] = "instance_profile"
    region: str = cloud_settings.region(
        "", '"us-east-1"', "AWS_REGION or your AWS profile's region if not set."
    )
    regions: tuple[str, ...] = cloud_settings.regions('["us-west-2"]')
    zones: tuple[str, ...] = cloud_settings.zones('["us-east-1a"]')
    subnet: str = setting(
        STRING,
        "",
        '"subnet-0abc1234"',
        "The subnet; those of the default VPC if not set.",
        Matching(r"subnet-[0-9a-f]+", "a subnet's id"),
        blank=True,
    )
    security_group: str = setting(
        STRING,
        "",
        '"sg-0abc1234"',
        "The security group; onebox creates one if not set.",
        Matching(r"sg-[0-9a-f]+", "a security group's id"),
        blank=True,
    )
    instance_profile: str = setting(
        STRING,
        "",
        '"train"',
        "The IAM instance profile that jobs act as; none if not set.",
        Matching(
            r"(?:arn:aws[a-z-]*:iam::[0-9]{12}:instance-profile/(?:[!-~]+/)?)?"
            r"[A-Za-z0-9_+=,.@-]{1,128}",
            "the name or the ARN of an instance profile",
        ),
        blank=True,
    )
    reach: str = reach_setting(
        "Tool of AWS for ssh, so no port is open: eice or ssm.", "eice", "ssm"
    )
    disk: int = cloud_settings.disk()
    disk_type: str = cloud_settings.disk_type("gp3", "gp2")

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict if settings contradict each other; see `check_reach`."""
        check_reach(self, self.reach)
        super().check(environ)

    @property
    def identity(self) -> str:
        """
        Return the name of the instance profile, "" if the settings name none.

        The name is unique in the account, to which all profiles of its boxes belong.
        """
        return self.instance_profile.rpartition("/")[2]

    @property
    def hides_address(self) -> str:
        """
        Return the name of the setting that hides the address ssh comes from, or "".
        """
        # onebox does not change the rules of a security group that the user names, so
        # it does not need to know where ssh connections come from.
        return "" if self.security_group else super().hides_address
