"""What the table [gcp] of onebox.toml says, complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """The table [gcp]; *disk* in bytes, "" for what was not said."""

    project: str = ""
    region: str = "us-central1"
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    ssh_cidr: str = ""
    private: bool = False
    jump: str = ""
    network: str = "default"
    subnet: str = ""
    disk: int = 100 << 30
    disk_type: str = "pd-balanced"
    endpoint: str = ""
    billing_endpoint: str = ""

    @property
    def all_regions(self) -> tuple[str, ...]:
        """Return the regions to look in, those of the zones if these are named."""
        named = [region_of(zone) for zone in self.zones]
        return tuple(dict.fromkeys(named or (self.region, *self.regions)))


def read(table: Mapping[str, object]) -> Settings:
    """Return the settings of a provider's table."""
    # Of what type each is, the configuration has seen to.
    known: dict[str, Any] = {
        name: table[name] for name in Settings.__annotations__ if name in table
    }
    for name in ("regions", "zones"):
        if name in known:
            known[name] = tuple(known[name])
    return Settings(**known)


def region_of(zone: str) -> str:
    """Return the region of a zone: us-central1 of us-central1-a."""
    return zone.rpartition("-")[0] or zone
