"""Define the settings in the table [gcp] of onebox.toml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from onebox.providers.gcp import scopes as oauth
from onebox.providers.kernel import cloud_settings
from onebox.providers.kernel.reach import check_reach, reach_setting
from onebox.providers.kernel.user_tags import TagRules
from onebox.settings.checks import Matching, distinct, is_endpoint
from onebox.settings.fields import Conflict, setting
from onebox.settings.kinds import STRING, STRINGS


@dataclass(frozen=True)
class GCPSettings(cloud_settings.CloudSettings):
    """Where and how boxes are created on Google Cloud; *disk* is a size in bytes."""

    # Compute Engine, "Requirements for labels". Labels may also have small letters of
    # other alphabets, which are refused here.
    tag_rules: ClassVar[TagRules] = TagRules(
        "Google Cloud",
        r"[a-z][a-z0-9_-]{0,62}",
        r"[a-z0-9_-]{0,63}",
        "small letters, digits, _ and -, at most 63 in a key, which begins with a "
        "letter, and 63 in a value",
    )
    identity_setting: ClassVar[str] = "service_account"
    region: str = cloud_settings.region("us-central1", '"europe-west4"', "The region.")
    regions: tuple[str, ...] = cloud_settings.regions('["us-east1"]')
    zones: tuple[str, ...] = cloud_settings.zones('["us-central1-a"]')
    project: str = setting(
        STRING,
        "",
        '"my-project"',
        "The project; that of your Google credentials if not set.",
        Matching(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project's id"),
        blank=True,
    )
    network: str = setting(
        STRING,
        "default",
        '"default"',
        "The network of the boxes.",
        Matching(r"[a-z][a-z0-9-/]*", "a network's name"),
    )
    subnet: str = setting(
        STRING,
        "",
        '"default"',
        "The subnetwork; the network's own for the region if not set.",
        Matching(r"[a-z][a-z0-9-/]*", "a subnetwork's name"),
        blank=True,
    )
    service_account: str = setting(
        STRING,
        "",
        '"train@my-project.iam.gserviceaccount.com"',
        "The service account (email) that jobs act as; none if not set.",
        Matching(
            r"[a-z0-9][a-z0-9.:-]*@(?:[a-z0-9.-]+\.)?gserviceaccount\.com",
            "the email of a service account",
        ),
        blank=True,
    )
    scopes: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["storage-rw"]',
        "The scopes of the service account; all APIs if empty.",
        oauth.are_scopes,
        distinct,
    )
    reach: str = reach_setting(
        "Tool of Google for ssh, so no port is open: iap.", "iap"
    )
    disk: int = cloud_settings.disk()
    disk_type: str = cloud_settings.disk_type(
        "pd-balanced", "pd-ssd", "pd-standard", "hyperdisk-balanced"
    )
    endpoint: str = setting(
        STRING,
        "",
        '"https://compute.example.com"',
        "The address of the API; not from a project's file.",
        is_endpoint,
        blank=True,
        of_user=True,
    )
    billing_endpoint: str = setting(
        STRING,
        "",
        '"https://billing.example.com"',
        "The address of the price list; not from a project's file.",
        is_endpoint,
        blank=True,
        of_user=True,
    )
    storage_endpoint: str = setting(
        STRING,
        "",
        '"https://storage.example.com"',
        "The address of Cloud Storage; not from a project's file.",
        is_endpoint,
        blank=True,
        of_user=True,
    )
    iam_endpoint: str = setting(
        STRING,
        "",
        '"https://iam.example.com"',
        "The address of the IAM API; not from a project's file.",
        is_endpoint,
        blank=True,
        of_user=True,
    )

    def check(self, environ: Mapping[str, str]) -> None:
        """
        Raise Conflict if settings contradict each other.

        See `check_reach`; scopes need a service account.
        """
        check_reach(self, self.reach)
        super().check(environ)
        if self.scopes and not self.service_account:
            raise Conflict("scopes", "limits a service account; set service_account")

    @property
    def identity(self) -> str:
        """Return the service account with its scopes, "" if the settings name none."""
        email = self.service_account
        return oauth.identity(email, oauth.urls(self.scopes)) if email else ""

    @property
    def all_regions(self) -> tuple[str, ...]:
        """
        Return the regions to try; if *zones* is set, they are the regions of the zones.
        """
        if self.zones:
            return tuple(dict.fromkeys(region_of(zone) for zone in self.zones))
        return super().all_regions


def region_of(zone: str) -> str:
    """Return the region of a zone: us-central1 for us-central1-a."""
    return zone.rpartition("-")[0] or zone
