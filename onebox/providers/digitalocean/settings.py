"""Define the settings in the table [digitalocean] of onebox.toml, and time limits."""

from __future__ import annotations

from dataclasses import dataclass

from onebox.providers.kernel import cloud_settings
from onebox.settings.checks import Matching, is_variable
from onebox.settings.fields import setting
from onebox.settings.kinds import BOOLEAN, STRING


@dataclass(frozen=True)
class Timeouts:
    """
    How long to wait, in seconds, and how often to try.

    Three limits are for one request: *connect* for the connection, *read* for a time
    without data, *request* for all of it. A request that may be repeated is tried
    *attempts* times. The first pause is *first_pause*, and each later one is twice as
    long on average. While the API throttles, the pauses last *throttled* in total. A
    create call is tried *create_attempts* times if the API reports a failure of its
    own.

    *consistency_lag* is how long the API's lists may lag behind. *poll_interval* is the
    time between two polls. *shutdown* is how long a droplet may take to shut down
    before its power is cut. *action* limits the wait for a stop or a start, *image* the
    wait for a snapshot or its copy, and *deletion* the wait for a deletion. Prices are
    requested again after *price_cache*.
    """

    connect: float = 10.0
    read: float = 30.0
    request: float = 120.0
    attempts: int = 5
    first_pause: float = 0.5
    throttled: float = 180.0
    create_attempts: int = 4
    consistency_lag: float = 60.0
    poll_interval: float = 3.0
    shutdown: float = 60.0
    action: float = 600.0
    image: float = 3600.0
    deletion: float = 240.0
    price_cache: float = 300.0


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
