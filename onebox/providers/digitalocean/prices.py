"""
The prices that DigitalOcean's API does not report, in USD (as of 2026).

The price of a droplet is in its size, see `instances.read_offer`.
"""

from __future__ import annotations

from onebox.providers.costs import HOURS_A_MONTH
from onebox.providers.digitalocean.client import Answer

# A GB a month.
SNAPSHOT = 0.06
_VOLUME = 0.10
# A GiB to the internet beyond the free allowance of the month's droplets, which is not
# deducted here (DigitalOcean, "Bandwidth Billing").
EGRESS = {"": 0.01}


def snapshot(snapshot: Answer) -> float:
    """Return the price of a snapshot an hour."""
    return float(snapshot.get("size_gigabytes") or 0) * SNAPSHOT / HOURS_A_MONTH


def volume(volume: Answer) -> float:
    """Return the price of a volume an hour."""
    return float(volume.get("size_gigabytes") or 0) * _VOLUME / HOURS_A_MONTH
