"""The table [digitalocean] of onebox.toml, and the timeouts of its API."""

from __future__ import annotations

from dataclasses import dataclass

from onebox.providers.kernel import cloud_settings
from onebox.settings.checks import Matching, is_variable
from onebox.settings.fields import setting
from onebox.settings.kinds import BOOLEAN, STRING


@dataclass(frozen=True)
class Timeouts:
    """
    How long to wait for what, in seconds.

    *consistency_lag* is how long a list may lag behind, *poll_interval* the time
    between two polls.
    *tries* counts attempts of a call that changes nothing, *creates* those of a create
    call that the API answers with an error of its own.
    """

    connect: float = 10.0
    read: float = 30.0
    whole: float = 120.0
    tries: int = 5
    pause: float = 0.5
    limited: float = 180.0
    consistency_lag: float = 60.0
    creates: int = 4
    poll_interval: float = 3.0
    shutdown: float = 60.0
    action: float = 600.0
    image: float = 3600.0
    gone: float = 240.0
    prices: float = 300.0


@dataclass(frozen=True)
class Settings(cloud_settings.CloudSettings):
    """
    Where and how boxes are created on DigitalOcean.

    A droplet that is powered off is billed until an API call deletes it.
    *destroy_token* names the variable with the token for that call.
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
    accept_no_watchdog: bool = setting(
        BOOLEAN,
        False,
        "true",
        "Accept that a box is billed until a teardown or sweep.",
    )
    destroy_token: str = setting(
        STRING,
        "",
        '"DO_DESTROY_TOKEN"',
        "Variable with a token that deletes boxes; no sudo for jobs.",
        is_variable,
        blank=True,
    )
