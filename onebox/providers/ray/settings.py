"""Define the settings in the table [ray] of onebox.toml."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from onebox.settings.checks import Between, Matching, not_empty, one_line
from onebox.settings.fields import Conflict, ProviderTable, setting
from onebox.settings.kinds import BYTES, INTEGER, STRING

LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Where the dashboard of Ray listens, as the head itself sees it.
DASHBOARD = "127.0.0.1:8265"


@dataclass(frozen=True)
class RaySettings(ProviderTable):
    """How the cluster is reached, and how outputs come back."""

    host: str | None = setting(
        STRING,
        None,
        '"head.example.edu"',
        "The cluster's head, for your own ssh; not from a project's file.",
        Matching(
            r"([A-Za-z0-9_][A-Za-z0-9_.-]*@)?[A-Za-z0-9_][A-Za-z0-9_.:-]*",
            "the name of a host, which may begin with USER@",
        ),
        of_user=True,
    )
    dashboard: str = setting(
        STRING,
        DASHBOARD,
        '"10.0.0.5:8265"',
        "Where Ray's dashboard listens there; not from a project's file.",
        Matching(r"[A-Za-z0-9_.-]+:[0-9]{1,5}", "HOST:PORT"),
        of_user=True,
    )
    address: str | None = setting(
        STRING,
        None,
        '"https://ray.example.edu"',
        "Its address, instead of host; not from a project's file.",
        Matching(
            r"https?://[^\s?#@]+",
            "an address that begins with https://, or http:// on this machine",
        ),
        of_user=True,
    )
    token_env: str = setting(
        STRING,
        "RAY_AUTH_TOKEN",
        '"LAB_RAY_TOKEN"',
        "The variable with the cluster's token; not from a project's file.",
        Matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable"),
        of_user=True,
    )
    storage: str | None = setting(
        STRING,
        None,
        '"/mnt/share/onebox"',
        "A folder that this machine and all nodes see, for code, data and outputs.",
        Matching(
            r"/[^\0\n\r]*", "an absolute path (s3:// and gs:// are not supported yet)"
        ),
    )
    max_outputs: int = setting(
        BYTES,
        2 << 30,
        '"500 MB"',
        "The most that a job may send back through the head, without storage.",
        Between(1 << 20, 1 << 40),
    )
    retries: int = setting(
        INTEGER,
        3,
        "0",
        "How often a unit of map runs again whose node was lost.",
        Between(0, 100),
    )
    ssh_config: str | None = setting(
        STRING,
        None,
        '"~/.ssh/cluster"',
        "A configuration of ssh, instead of ~/.ssh/config.",
        not_empty,
        one_line,
        of_user=True,
    )

    def check(self, environ: Mapping[str, str]) -> None:
        """Refuse two addresses, and a plain one that leads to another machine."""
        if self.host and self.address:
            raise Conflict("address", "host says how the cluster is reached already")
        if not self.address:
            return
        try:
            parts = urlsplit(self.address)
            name, _ = parts.hostname, parts.port
        except ValueError as error:
            problem = f"{self.address!r} is no address: {error}"
            raise Conflict("address", problem) from None
        if parts.scheme == "http" and name not in LOOPBACK:
            raise Conflict(
                "address",
                "http would send the token and the code in the clear; use https, or "
                "host for a way through ssh",
            )
        if not name or not re.fullmatch(r"[A-Za-z0-9_.:-]+", name):
            raise Conflict("address", f"{self.address!r} names no host")
