"""
List the prices that DigitalOcean's API does not report, in USD (as of 2026).

The API reports the price of a droplet with its size, see `machine_types.read_offer`.
"""

from __future__ import annotations

from onebox.providers.costs import HOURS_A_MONTH
from onebox.providers.digitalocean.client import Answer

# USD per GB and month.
SNAPSHOT = 0.06
_VOLUME = 0.10
# USD per GiB sent to the internet beyond the free allowance of the month's droplets
# (DigitalOcean, "Bandwidth Billing"). onebox does not deduct the free allowance.
EGRESS = {"": 0.01}


def snapshot(snapshot: Answer) -> float:
    """Return the price of a snapshot in USD an hour."""
    return float(snapshot.get("size_gigabytes") or 0) * SNAPSHOT / HOURS_A_MONTH


def volume(volume: Answer) -> float:
    """Return the price of a volume in USD an hour."""
    return float(volume.get("size_gigabytes") or 0) * _VOLUME / HOURS_A_MONTH
