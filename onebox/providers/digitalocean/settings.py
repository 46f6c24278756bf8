"""The table [digitalocean] of onebox.toml."""

from __future__ import annotations

from dataclasses import dataclass

from onebox.providers.kernel import billed_off, cloud_settings
from onebox.settings.checks import Matching
from onebox.settings.fields import setting
from onebox.settings.kinds import STRING


@dataclass(frozen=True)
class DigitalOceanSettings(cloud_settings.CloudSettings):
    """
    Where and how boxes are created on DigitalOcean.

    A droplet that is powered off is billed until an API call deletes it.
    *destroy_token* names the environment variable with the token by which a box makes
    this call itself.
    """

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
    accept_no_watchdog: bool = billed_off.accept_no_watchdog()
    destroy_token: str = billed_off.destroy_token('"DO_DESTROY_TOKEN"')
