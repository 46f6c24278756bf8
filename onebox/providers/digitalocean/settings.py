"""Define the settings in the table [digitalocean] of onebox.toml."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onebox.providers.kernel import cloud_settings
from onebox.providers.kernel.billed_off import BilledOffSettings
from onebox.providers.kernel.user_tags import TagRules
from onebox.settings.checks import Matching
from onebox.settings.fields import setting
from onebox.settings.kinds import STRING


@dataclass(frozen=True)
class DigitalOceanSettings(BilledOffSettings):
    """Where and how boxes are created on DigitalOcean."""

    # DigitalOcean API reference, "Tags": a tag is one word of at most 255 characters,
    # so a key and its value are joined by a colon.
    tag_rules: ClassVar[TagRules] = TagRules(
        "DigitalOcean",
        r"[A-Za-z0-9_-]{1,127}",
        r"[A-Za-z0-9:_-]{0,127}",
        "letters, digits, _ and -, at most 127 in a key and 127 in a value, which may "
        "have : too",
    )
    region: str = cloud_settings.region("nyc3", '"fra1"', "The region.")
    regions: tuple[str, ...] = cloud_settings.regions('["sfo3"]')
    vpc: str = setting(
        STRING,
        "",
        '"0f1e2d3c-0000-4000-8000-000000000000"',
        "The VPC's id; the region's default VPC if not set.",
        Matching(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "a VPC's id"),
        blank=True,
    )
