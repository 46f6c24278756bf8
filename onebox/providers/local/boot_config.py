"""The boot configuration of a box: written by clients, read by its two processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .layout import read_json, write_json


@dataclass(frozen=True)
class BootConfig:
    """
    What the supervisor and the machine need to boot a box.

    *deadline* is in seconds since the epoch. *faults* are the faults to inject.
    *host_key* is the private key of the ssh server, *user_key* the public key of the
    client. *homes* are folders to hide, *read* folders to make readable. *python_path*
    lists the folders of the libraries that the machine imports, and *work* is the
    project's folder in the box's home. *agent* becomes the agent's `box.json`.
    """

    box: str
    deadline: float
    faults: Mapping[str, float]
    host_key: str
    user: str
    user_key: str
    homes: tuple[str, ...]
    lang: str
    proxies: Mapping[str, str]
    login_shell: str
    python_path: tuple[str, ...]
    read: tuple[str, ...]
    work: str
    agent: Mapping[str, Any]

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> BootConfig:
        """Return the configuration in a JSON object."""
        lists = {name: tuple(value[name]) for name in ("homes", "python_path", "read")}
        return cls(**{**value, **lists})

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as a JSON object."""
        return asdict(self)


def load(path: Path) -> BootConfig | None:
    """Return the configuration in a file, None if it is missing or invalid."""
    value = read_json(path)
    try:
        return None if value is None else BootConfig.parse(value)
    except (KeyError, TypeError):
        # Written by another version of onebox.
        return None


def save(path: Path, config: BootConfig) -> None:
    """Write the configuration to a file."""
    write_json(path, config.to_json())
