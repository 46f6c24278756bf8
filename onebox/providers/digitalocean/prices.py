"""
The prices that DigitalOcean's API does not report, in USD (as of 2026).

The price of a droplet is in its size, see `instances.read_offer`.
"""

from __future__ import annotations

from onebox.providers.costs import HOURS_A_MONTH

# A GB a month.
SNAPSHOT = 0.06
_VOLUME = 0.10
# A GiB to the internet beyond the free allowance of the month's droplets, which is not
# deducted here (DigitalOcean, "Bandwidth Billing").
EGRESS = 0.01


def snapshot(gigabytes: float) -> float:
    """Return the price of a snapshot an hour."""
    return gigabytes * SNAPSHOT / HOURS_A_MONTH


def volume(gigabytes: float) -> float:
    """Return the price of a volume an hour."""
    return gigabytes * _VOLUME / HOURS_A_MONTH
