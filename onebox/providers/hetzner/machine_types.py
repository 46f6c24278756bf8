"""Offer the server types that fit a size of onebox.toml, at the project's prices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from hcloud.server_types import BoundServerType

from onebox.providers.costs import ADDRESS, Cost
from onebox.providers.hetzner.client import CLOUD, Cloud
from onebox.providers.hetzner.settings import HetznerSettings
from onebox.providers.kernel import ranking
from onebox.providers.values import Offer, Requirements

GB = 1 << 30
ARCHES = {"x86": "x86_64", "arm": "aarch64"}


class MachineTypes:
    """
    The server types and the prices of the project, each of them read only once.

    All prices are in USD, and include taxes.
    """

    def __init__(self, cloud: Cloud, settings: HetznerSettings) -> None:
        self._cloud, self._settings = cloud, settings

    @cached_property
    def _types(self) -> dict[str, BoundServerType]:
        return {str(one.name): one for one in self._cloud.server_types.get_all()}

    @cached_property
    def _prices(self) -> Any:
        return self._cloud.request("GET", "/pricing")["pricing"]

    @property
    def image_rate(self) -> float | None:
        """Return the price (USD) of a GB of a snapshot for a month."""
        return self._usd(self._prices["image"]["price_per_gb_month"])

    def egress(self, place: str) -> float | None:
        """
        Return the highest price (USD) of a GB sent from *place* to the internet.

        Return None if the price list has no such price.
        """
        rates = [
            self._usd_at(one.prices, place, "price_per_tb_traffic") or 0.0
            for one in self._types.values()
        ]
        return max(rates, default=0.0) / 1024 or None

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """Return the offers that meet the requirements, best first."""
        return ranking.of_fixed_sizes(
            CLOUD,
            requirements,
            self._settings.all_regions,
            {name: self._in_locations(one) for name, one in self._types.items()},
            is_dedicated=lambda name: self._types[name].cpu_type == "dedicated",
            disk=lambda name: (self._types[name].disk or 0) * GB,
        )

    def _in_locations(self, one: BoundServerType) -> list[Offer]:
        """Return the offers of a server type, one for each location that has it now."""
        locations = [at for at in one.locations or () if at.available is not False]
        return [self._offer(one, str(at.location.name)) for at in locations]

    def _offer(self, one: BoundServerType, place: str) -> Offer:
        price = self._usd_at(one.prices, place, "price_hourly")
        addresses = [kind["prices"] for kind in self._prices["primary_ips"]]
        address = max(self._usd_at(a, place, "price_hourly") or 0.0 for a in addresses)
        return Offer(
            name=str(one.name),
            type=str(one.name),
            cpus=one.cores or 0,
            memory=int((one.memory or 0) * GB),
            machine_price=price,
            machine_on_demand=price,
            place=place,
            arch=ARCHES[str(one.architecture)],
            extras=(Cost(ADDRESS, address or None),),
        )

    def _usd_at(self, prices: Any, place: str, key: str) -> float | None:
        found = [one.get(key) for one in prices or () if one["location"] == place]
        return self._usd(found[0]) if found else None

    def _usd(self, price: Mapping[str, str] | None) -> float | None:
        euros = self._prices["currency"] == "EUR"
        rate = self._settings.usd_per_euro if euros else 1.0
        return float(price["gross"]) * rate if price else None
