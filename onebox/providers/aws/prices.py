"""
Get the prices of instances, disks, addresses and traffic; an unknown price is None.

The prices of instances and disks come from AWS's price list. The following prices are
in no API that onebox may call, so they are constants, with their source:

* a public IPv4 address: $0.005 an hour in every region, in use or not, since
  2024-02-01 (AWS News Blog, "AWS Public IPv4 Address Charge", 2023-07-28)
* data that is sent to the internet: $0.09 a GB for the first 10 TB a month, from
  regions of the United States, Canada and Europe (EC2 on-demand pricing, "Data
  Transfer", as of 2026). The account's first 100 GB a month are free, and are not
  deducted here. The prices of other regions are higher, and onebox does not know them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from onebox.errors import OneboxError
from onebox.providers import costs
from onebox.providers.aws.client import EC2

# The price list service runs in few regions, and holds the prices of all regions.
_LIST_REGION = "us-east-1"
# One request can filter by at most _AT_MOST types. Its answer has at most _ROWS rows.
_AT_MOST = 20
_ROWS = 100
ADDRESS = 0.005
EGRESS = {"us": 0.09, "ca": 0.09, "eu": 0.09}


def on_demand(ec2: EC2, types: Sequence[str], why: list[str]) -> dict[str, float]:
    """
    Return the hourly prices of Linux instances on demand, by machine type.

    A type whose price is unknown is left out.

    Args:
        why: If the price list cannot be read, the reason is appended to this list.
    """
    chunks = [types[i : i + _AT_MOST] for i in range(0, len(types), _AT_MOST)]
    found = ec2.cloud.each(chunks, lambda chunk: _asked(ec2, chunk, why))
    return {name: price for part in found for name, price in part.items()}


def spot(
    ec2: EC2, types: Sequence[str], why: list[str]
) -> dict[tuple[str, str], float]:
    """
    Return the current hourly spot prices, by machine type and zone.

    If they cannot be read, the reason is appended to *why*.
    """
    try:
        rows = ec2.pages(
            "describe_spot_price_history",
            "SpotPriceHistory",
            InstanceTypes=list(types),
            ProductDescriptions=["Linux/UNIX"],
            # The history starts now, so that the answer has only the current price of
            # each zone.
            StartTime=datetime.fromtimestamp(ec2.clock(), timezone.utc),
        )
    except OneboxError as error:
        why.append(error.message)
        return {}
    found: dict[tuple[str, str], float] = {}
    newest: dict[tuple[str, str], Any] = {}
    for row in rows:
        price = positive(row.get("SpotPrice"))
        key = str(row.get("InstanceType")), str(row.get("AvailabilityZone"))
        if price and (key not in newest or row["Timestamp"] > newest[key]):
            newest[key], found[key] = row["Timestamp"], price
    return found


def disk(
    ec2: EC2, kind: str, size: float, why: list[str] | None = None
) -> float | None:
    """
    Return the hourly price of a disk of *size* GiB, None if it is unknown.

    *kind* is the type of the disk, such as "gp3". If the price list cannot be read, the
    reason is appended to *why*.
    """
    rows = _rows(
        ec2,
        [] if why is None else why,
        {
            "productFamily": ["Storage"],
            "volumeApiName": [kind],
            "regionCode": [ec2.region],
        },
    )
    month = next(iter(_prices(rows, "GB-Mo", "volumeApiName").values()), None)
    return month * size / costs.HOURS_A_MONTH if month else None


def positive(value: object) -> float | None:
    """
    Return *value* as a price, None if it is not a positive number.

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


def _asked(ec2: EC2, types: Sequence[str], why: list[str]) -> dict[str, float]:
    rows = _rows(
        ec2,
        why,
        {
            "instanceType": types,
            "regionCode": [ec2.region],
            "operatingSystem": ["Linux"],
            "tenancy": ["Shared"],
            "preInstalledSw": ["NA"],
            "capacitystatus": ["Used"],
        },
    )
    return _prices(rows, "Hrs", "instanceType")


def _rows(ec2: EC2, why: list[str], fields: dict[str, Sequence[str]]) -> list[str]:
    filters = [
        {
            "Type": "TERM_MATCH" if len(values) == 1 else "ANY_OF",
            "Field": field,
            "Value": ",".join(values),
        }
        for field, values in fields.items()
    ]
    try:
        answer = ec2.cloud.call(
            "pricing",
            "get_products",
            _LIST_REGION,
            ServiceCode="AmazonEC2",
            Filters=filters,
            MaxResults=_ROWS,
        )
    except OneboxError as error:
        # This raises no error, because onebox can work with unknown prices.
        why.append(error.message)
        return []
    return list(answer.get("PriceList", ()))


def _prices(rows: Sequence[str], unit: str, attribute: str) -> dict[str, float]:
    """
    Return the prices in these rows of the price list, by name.

    *attribute* is the attribute of a row that holds its name. Prices in another unit
    than *unit* are ignored. A name with two different prices is left out.
    """
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
        hourly = [
            positive(one["pricePerUnit"]["USD"])
            for one in dimensions
            if one.get("unit") == unit
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    return [(name, price) for price in hourly if price]
