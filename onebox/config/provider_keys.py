"""The settings that belong to one provider each."""

from __future__ import annotations

import re

from onebox.config import kinds
from onebox.config.key import GB, Key, key
from onebox.config.kinds import (
    FLAG,
    NUMBER,
    SIZE,
    TEXT,
    TEXTS,
    cidr,
    distinct,
    matching,
    not_empty,
    one_line,
    one_of,
    seconds_between,
    sizes_between,
)
from onebox.config.settings import Rehearse

_PLACE = matching(re.compile(r"[a-z]+[a-z0-9-]*"), "a place, such as us-east-1")
_DRILL = seconds_between(0, 86400)
_OFTEN = seconds_between(0.1, 86400)


def _reach(table: str) -> tuple[Key, ...]:
    """How a box's ssh port is reached: the same settings in every cloud."""
    return (
        key(
            f"{table}.ssh_cidr",
            TEXT,
            None,
            '"203.0.113.7/32"',
            "Who may reach ssh; this machine alone if not set.",
            cidr,
            blank=True,
        ),
        key(
            f"{table}.allow_world_ssh",
            FLAG,
            False,
            "true",
            "Let ssh_cidr be the whole world.",
        ),
        key(
            f"{table}.private",
            FLAG,
            False,
            "true",
            "No public address: reach boxes by their private one.",
        ),
        key(
            f"{table}.jump",
            TEXT,
            None,
            '"me@bastion.example.com"',
            "Go through this host, as your own ssh knows it.",
            matching(re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:-]*"), "a host for ssh"),
            blank=True,
        ),
    )


def _more(table: str, name: str, example: str) -> Key:
    return key(
        f"{table}.{name}",
        TEXTS,
        (),
        example,
        "More regions to try when the first has no capacity."
        if name == "regions"
        else "The zones to try, in this order; all if empty.",
        _PLACE,
        distinct,
    )


def _disk(table: str, kind: str, *kinds_of_disk: str) -> tuple[Key, ...]:
    return (
        key(
            f"{table}.disk",
            SIZE,
            100 * GB,
            '"100 GB"',
            "The disk of a box; it is billed too.",
            sizes_between(8 * GB, 65536 * GB),
        ),
        key(
            f"{table}.disk_type",
            TEXT,
            kind,
            f'"{kind}"',
            "What kind of disk.",
            one_of(kind, *kinds_of_disk),
        ),
    )


LOCAL: tuple[Key, ...] = (
    key(
        "local.read",
        TEXTS,
        (),
        '["~/datasets"]',
        "Folders outside the box that its jobs may read.",
        one_line,
        not_empty,
        distinct,
    ),
)

REHEARSE: tuple[Key, ...] = (
    *(
        key(
            f"local.rehearse.{name}",
            NUMBER,
            getattr(Rehearse, name),
            example,
            help,
            _OFTEN if name == "drop_every" else _DRILL,
        )
        for name, example, help in (
            ("boot_delay", "5", "The box answers so much later."),
            ("notice_after", "60", "The cloud takes the box back after so long."),
            ("notice_seconds", "30", "The notice it gives before it does."),
            ("drop_after", "20", "The connection breaks so long after its start."),
            ("drop_every", "60", "The connection breaks as often as this."),
            ("stall_after", "20", "The network goes silent after so long."),
            ("stall_seconds", "20", "How long it stays silent."),
            ("die_after", "60", "The box is gone without notice after so long."),
            ("host_key_after", "20", "Another host key answers after so long."),
        )
    ),
    key(
        "local.rehearse.disk",
        SIZE,
        None,
        '"100 MB"',
        "The home directory holds so much, and is lost at stop.",
        sizes_between(1 << 16, 65536 * GB),
    ),
)

AWS: tuple[Key, ...] = (
    key(
        "aws.region",
        TEXT,
        None,
        '"us-east-1"',
        "What AWS_REGION or your AWS profile says if not set.",
        _PLACE,
        blank=True,
    ),
    _more("aws", "regions", '["us-west-2"]'),
    _more("aws", "zones", '["us-east-1a"]'),
    *_reach("aws"),
    key(
        "aws.subnet",
        TEXT,
        None,
        '"subnet-0abc1234"',
        "The subnet; the default VPC's if not set.",
        matching(re.compile(r"subnet-[0-9a-f]+"), "a subnet's id"),
        blank=True,
    ),
    key(
        "aws.security_group",
        TEXT,
        None,
        '"sg-0abc1234"',
        "The security group; one is made for the box if not set.",
        matching(re.compile(r"sg-[0-9a-f]+"), "a security group's id"),
        blank=True,
    ),
    *_disk("aws", "gp3", "gp2"),
)

GCP: tuple[Key, ...] = (
    key(
        "gcp.project",
        TEXT,
        None,
        '"my-project"',
        "What Google's own configuration says if not set.",
        matching(
            re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"),
            "a project's id",
        ),
        blank=True,
    ),
    key(
        "gcp.region",
        TEXT,
        "us-central1",
        '"europe-west4"',
        "The region.",
        _PLACE,
    ),
    _more("gcp", "regions", '["us-east1"]'),
    _more("gcp", "zones", '["us-central1-a"]'),
    *_reach("gcp"),
    key(
        "gcp.network",
        TEXT,
        "default",
        '"default"',
        "The network that boxes are in.",
        matching(re.compile(r"[a-z][a-z0-9-/]*"), "a network's name"),
    ),
    key(
        "gcp.subnet",
        TEXT,
        None,
        '"default"',
        "The subnetwork; the network's own for the region if not set.",
        matching(re.compile(r"[a-z][a-z0-9-/]*"), "a subnetwork's name"),
        blank=True,
    ),
    *_disk("gcp", "pd-balanced", "pd-ssd", "pd-standard", "hyperdisk-balanced"),
    key(
        "gcp.endpoint",
        TEXT,
        None,
        '"https://compute.example.com"',
        "The address of the API, for private endpoints.",
        kinds.endpoint,
        blank=True,
    ),
    key(
        "gcp.billing_endpoint",
        TEXT,
        None,
        '"https://billing.example.com"',
        "The address of the price list, where endpoint is set too.",
        kinds.endpoint,
        blank=True,
    ),
)

DIGITALOCEAN: tuple[Key, ...] = (
    key(
        "digitalocean.region",
        TEXT,
        "nyc3",
        '"fra1"',
        "The region.",
        _PLACE,
    ),
    _more("digitalocean", "regions", '["sfo3"]'),
    *_reach("digitalocean"),
    key(
        "digitalocean.vpc",
        TEXT,
        None,
        '"0f1e2d3c-0000-4000-8000-000000000000"',
        "The VPC's id; the region's default one if not set.",
        matching(
            re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "a VPC's id"
        ),
        blank=True,
    ),
    key(
        "digitalocean.accept_no_watchdog",
        FLAG,
        False,
        "true",
        "Yes, I know: powered off is still billed, sweep is mine.",
    ),
    key(
        "digitalocean.destroy_token",
        TEXT,
        None,
        '"DO_DESTROY_TOKEN"',
        "Variable with a token to end boxes by; jobs lose sudo.",
        kinds.variables,
        blank=True,
    ),
)
