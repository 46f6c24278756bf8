"""Define the settings in the table [gcp] of onebox.toml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onebox.providers.kernel import cloud_settings
from onebox.providers.kernel.user_tags import TagRules
from onebox.settings.checks import Matching, is_endpoint
from onebox.settings.fields import setting
from onebox.settings.kinds import STRING


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
