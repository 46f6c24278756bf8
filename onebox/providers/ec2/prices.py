"""What machines cost now. What is not known is None, never 0."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from ...errors import OneboxError
from .cloud import Cloud

# The price list is kept in few regions, and tells of all of them.
_LIST_REGION = "us-east-1"
# The service takes so many types in a question, and answers with so many rows.
_AT_MOST = 20
_ROWS = 100
_HOURS_A_MONTH = 730


def on_demand(cloud: Cloud, region: str, types: Sequence[str]) -> dict[str, float]:
    """Return the hourly prices of Linux machines, of those types that have one."""
    chunks = [types[i : i + _AT_MOST] for i in range(0, len(types), _AT_MOST)]
    found = cloud.each(chunks, lambda chunk: _asked(cloud, region, chunk))
    return {name: price for part in found for name, price in part.items()}


def spot(
    cloud: Cloud, region: str, types: Sequence[str]
) -> dict[tuple[str, str], float]:
    """Return the present spot prices, by type and zone."""
    try:
        rows = cloud.pages(
            "describe_spot_price_history",
            "SpotPriceHistory",
            region,
            InstanceTypes=list(types),
            ProductDescriptions=["Linux/UNIX"],
            # From now on: that is the last price before it, one for each zone.
            StartTime=datetime.fromtimestamp(cloud.clock(), timezone.utc),
        )
    except OneboxError:
        return {}
    found: dict[tuple[str, str], float] = {}
    newest: dict[tuple[str, str], Any] = {}
    for row in rows:
        price = positive(row.get("SpotPrice"))
        key = str(row.get("InstanceType")), str(row.get("AvailabilityZone"))
        if price and (key not in newest or row["Timestamp"] > newest[key]):
            newest[key], found[key] = row["Timestamp"], price
    return found


def disk(cloud: Cloud, region: str, kind: str, size: float) -> float | None:
    """Return what a disk of so many GiB costs an hour."""
    rows = _rows(
        cloud,
        {
            "productFamily": ["Storage"],
            "volumeApiName": [kind],
            "regionCode": [region],
        },
    )
    month = next(iter(_prices(rows, "GB-Mo", "volumeApiName").values()), None)
    return month * size / _HOURS_A_MONTH if month else None


def positive(value: object) -> float | None:
    """
    Return a price, None for anything that cannot be one.

    >>> positive("3.2256"), positive("0.0000"), positive("-1"), positive("x")
    (3.2256, None, None, None)
    >>> positive(None), positive("nan"), positive("inf")
    (None, None, None)
    """
    try:
        price = float(str(value))
    except ValueError:
        return None
    return price if 0 < price < float("inf") else None


def _asked(cloud: Cloud, region: str, types: Sequence[str]) -> dict[str, float]:
    rows = _rows(
        cloud,
        {
            "instanceType": types,
            "regionCode": [region],
            "operatingSystem": ["Linux"],
            "tenancy": ["Shared"],
            "preInstalledSw": ["NA"],
            "capacitystatus": ["Used"],
        },
    )
    return _prices(rows, "Hrs", "instanceType")


def _rows(cloud: Cloud, wanted: dict[str, Sequence[str]]) -> list[str]:
    filters = [
        {
            "Type": "TERM_MATCH" if len(values) == 1 else "ANY_OF",
            "Field": field,
            "Value": ",".join(values),
        }
        for field, values in wanted.items()
    ]
    try:
        answer = cloud.call(
            "pricing",
            "get_products",
            _LIST_REGION,
            ServiceCode="AmazonEC2",
            Filters=filters,
            MaxResults=_ROWS,
        )
    except OneboxError:
        # Without the list nothing is wrong but that the price is not known.
        return []
    return list(answer.get("PriceList", ()))


def _prices(rows: Sequence[str], unit: str, attribute: str) -> dict[str, float]:
    """Read prices from rows; what two rows say differently is not known."""
    found: dict[str, set[float]] = {}
    for row in rows:
        for name, price in _of_row(row, unit, attribute):
            found.setdefault(name, set()).add(price)
    return {name: prices.pop() for name, prices in found.items() if len(prices) == 1}


def _of_row(row: str, unit: str, attribute: str) -> list[tuple[str, float]]:
    try:
        product = json.loads(row)
        name = str(product["product"]["attributes"][attribute])
        dimensions = [
            dimension
            for term in product["terms"]["OnDemand"].values()
            for dimension in term["priceDimensions"].values()
        ]
        said = [
            positive(one["pricePerUnit"]["USD"])
            for one in dimensions
            if one.get("unit") == unit
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [(name, price) for price in said if price]
