"""
Check requests against DigitalOcean's published API description.

It covers the calls that onebox makes. An unknown field or query parameter, which the
API would ignore, is refused too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], str]

TAG = re.compile(r"[a-zA-Z0-9_\-:]{1,255}")
HOSTNAME = re.compile(r"[a-zA-Z0-9]?[a-z0-9A-Z.\-]*[a-z0-9A-Z]")
FIREWALL = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9.\-]+")
USER_DATA = 64 << 10


def text(pattern: re.Pattern[str] | None = None, longest: int = 255) -> Check:
    """Return a check of a string."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            return "must be a string"
        if len(value) > longest:
            return f"is too long (maximum is {longest} characters)"
        if pattern is not None and not pattern.fullmatch(value):
            return "is invalid"
        return ""

    return check


def flag(value: Any) -> str:
    """Check a boolean."""
    return "" if isinstance(value, bool) else "must be a boolean"


def number(value: Any) -> str:
    """Check an integer."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return "" if whole else "must be an integer"


def either(*checks: Check) -> Check:
    """Return a check that passes if one of several checks passes."""

    def check(value: Any) -> str:
        problem = [one(value) for one in checks]
        return "" if "" in problem else problem[0]

    return check


def list_of(check: Check) -> Check:
    """Return a check of a list."""

    def whole(value: Any) -> str:
        if not isinstance(value, list):
            return "must be an array"
        return next((problem for problem in map(check, value) if problem), "")

    return whole


def one_of(*known: str) -> Check:
    """Return a check of an enumeration."""
    return lambda value: "" if value in known else f"must be one of {', '.join(known)}"


def record(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    """Return a check of an object that has no other field."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return "must be an object"
        for name, one in required.items():
            if name not in value:
                return f"{name} is required"
            problem = one(value[name])
            if problem:
                return f"{name} {problem}"
        for name in value.keys() - required.keys():
            if name not in optional:
                return f"{name} is unknown"
            problem = optional[name](value[name])
            if problem:
                return f"{name} {problem}"
        return ""

    return check


def network(value: Any) -> str:
    """Check an address or network."""
    try:
        ipaddress.ip_network(value)
    except ValueError:
        return "invalid address"
    return ""


_TAGS = list_of(text(TAG))
_TARGET = record(
    {},
    {
        "addresses": list_of(network),
        "droplet_ids": list_of(number),
        "load_balancer_uids": list_of(text()),
        "kubernetes_ids": list_of(text()),
        "tags": _TAGS,
    },
)
_PORTS = text(re.compile(r"all|\d+(-\d+)?"))
_PROTOCOL = one_of("tcp", "udp", "icmp")


def _rules(target: str) -> Check:
    fields = {"protocol": _PROTOCOL, "ports": _PORTS, target: _TARGET}
    return list_of(record(fields, {}))


_FIREWALL = record(
    {
        "name": text(FIREWALL),
        "inbound_rules": _rules("sources"),
        "outbound_rules": _rules("destinations"),
    },
    {"droplet_ids": list_of(number), "tags": _TAGS},
)
_RESOURCES = record(
    {
        "resources": list_of(
            record(
                {
                    "resource_id": text(),
                    "resource_type": one_of(
                        "droplet", "image", "volume", "volume_snapshot"
                    ),
                },
                {},
            )
        )
    },
    {},
)

_KEY = re.compile(r"ssh-ed25519 [A-Za-z0-9+/]+={0,2}( .*)?")

BODIES: Mapping[tuple[str, str], Check] = {
    ("POST", "droplets"): record(
        {
            "name": text(HOSTNAME),
            "size": text(),
            "image": either(text(), number),
        },
        {
            "region": text(),
            "backups": flag,
            "ipv6": flag,
            "monitoring": flag,
            "public_networking": flag,
            "with_droplet_agent": flag,
            "ssh_keys": list_of(either(text(), number)),
            "tags": _TAGS,
            "user_data": text(None, USER_DATA),
            "volumes": list_of(text()),
            "vpc_uuid": text(),
        },
    ),
    ("POST", "droplets/*/actions"): either(
        record(
            {"type": one_of("shutdown", "power_off", "power_on", "reboot")},
            {},
        ),
        record({"type": one_of("snapshot")}, {"name": text()}),
    ),
    ("POST", "images/*/actions"): record(
        {"type": one_of("transfer"), "region": text()}, {}
    ),
    ("POST", "firewalls"): _FIREWALL,
    ("PUT", "firewalls/*"): _FIREWALL,
    ("POST", "account/keys"): record({"name": text(), "public_key": text(_KEY)}, {}),
    ("POST", "tags"): record({"name": text(TAG)}, {}),
    ("POST", "tags/*/resources"): _RESOURCES,
    ("DELETE", "tags/*/resources"): _RESOURCES,
}

_PAGED = ("page", "per_page")
QUERIES: Mapping[str, tuple[str, ...]] = {
    "account/keys": _PAGED,
    "droplets": (*_PAGED, "tag_name", "name", "type"),
    "droplets/*/actions": _PAGED,
    "firewalls": _PAGED,
    "images": (*_PAGED, "type", "private", "tag_name"),
    "sizes": _PAGED,
    "regions": _PAGED,
    "tags": _PAGED,
    "volumes": (*_PAGED, "name", "region"),
}


def wrong_query(path: str, query: Mapping[str, str]) -> str:
    """Return what is wrong with a query, "" if it is valid."""
    for name, value in query.items():
        if name not in QUERIES.get(path, ()):
            return f"{name} is unknown"
        if name == "private" and value not in ("true", "false"):
            return "private must be a boolean"
        if name in _PAGED and not re.fullmatch(r"[1-9][0-9]*", value):
            return f"{name} must be a positive integer"
        if name == "per_page" and int(value) > 200:
            return "per_page must be at most 200"
    return ""
