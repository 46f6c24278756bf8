"""Define the settings in the tables [local] and [local.rehearse] of onebox.toml."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onebox.settings.checks import (
    bytes_from,
    distinct,
    not_empty,
    one_line,
    seconds_between,
)
from onebox.settings.fields import Conflict, ProviderTable, Table, setting, subtable
from onebox.settings.kinds import BYTES, NUMBER, STRINGS
from onebox.settings.quoting import show
from onebox.settings.units import format_bytes
from onebox.store.paths import own_folder_near

# The folders of a home in which common programs keep keys and tokens.
_OF_CREDENTIALS = (
    ".aws",
    ".azure",
    ".config",
    ".docker",
    ".gnupg",
    ".kube",
    ".mozilla",
    ".password-store",
    ".ssh",
)


def _seconds(default: float | None, example: str, help: str, least: float = 0) -> Any:
    return setting(NUMBER, default, example, help, seconds_between(least, 86400))


@dataclass(frozen=True)
class Rehearse(Table):
    """
    The faults to inject into a local box, most of them at a time after its start.

    All times are in seconds. A fault that is None never happens. *disk* is the capacity
    of the box's home directory in bytes.
    """

    boot_delay: float | None = _seconds(None, "5", "The box answers this much later.")
    notice_after: float | None = _seconds(
        None, "60", "The cloud announces a preemption after this time."
    )
    notice_seconds: float = _seconds(
        30.0, "30", "The time between the notice and the preemption."
    )
    drop_after: float | None = _seconds(
        None, "20", "All connections break once, after this time."
    )
    drop_every: float | None = _seconds(
        None, "60", "All connections break at this interval.", least=0.1
    )
    stall_after: float | None = _seconds(
        None, "20", "The network goes silent after this time."
    )
    stall_seconds: float = _seconds(20.0, "20", "How long it stays silent.")
    die_after: float | None = _seconds(
        None, "60", "The box disappears without notice after this time."
    )
    host_key_after: float | None = _seconds(
        None, "20", "Another host key answers after this time."
    )
    disk: int | None = setting(
        BYTES,
        None,
        '"100 MB"',
        "The capacity of the home directory; it is lost at stop.",
        bytes_from(1 << 16),
    )

    @property
    def faults(self) -> dict[str, float]:
        """Return the settings that are not None: in seconds, but *disk* in bytes."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @property
    def notes(self) -> tuple[str, ...]:
        """
        Return notes for the user that name the faults and say that they are rehearsed.
        """
        faults = self.faults
        named = [
            f"{name} = {format_bytes(int(value)) if name == 'disk' else f'{value:g}'}"
            for name, value in faults.items()
            if name != "notice_seconds" or "notice_after" in faults
            if name != "stall_seconds" or "stall_after" in faults
        ]
        found = [f"rehearsal: {', '.join(named)}"] if named else []
        if self.disk is not None:
            found.append("its disk is lost at stop and cannot be saved as an image")
        return tuple(found)


@dataclass(frozen=True)
class LocalSettings(ProviderTable):
    """The settings of boxes on this machine, which have no tags of the user."""

    read: tuple[str, ...] = setting(
        STRINGS,
        (),
        '["~/datasets"]',
        "Folders outside the box that its jobs may read.",
        one_line,
        not_empty,
        distinct,
    )
    rehearse: Rehearse = subtable(Rehearse)

    @property
    def readable(self) -> tuple[str, ...]:
        """Return the absolute paths of the *read* folders, also with links resolved."""
        paths = [str(Path(folder).expanduser().absolute()) for folder in self.read]
        return tuple(dict.fromkeys([*paths, *map(os.path.realpath, paths)]))

    def check(self, environ: Mapping[str, str]) -> None:
        """Raise Conflict if *read* would let jobs read keys, or the state of onebox."""
        for folder in self.read:
            try:
                near = own_folder_near(Path(folder).expanduser(), environ)
            except RuntimeError:
                raise Conflict(
                    "read", f"{show(folder)} names a user that does not exist"
                ) from None
            if near is not None:
                raise Conflict(
                    "read",
                    f"{show(folder)} would expose {near[0]}, in {near[1]}, to jobs; "
                    "name only the folders that they need",
                )
            if _holds_credentials(Path(folder).expanduser(), environ):
                raise Conflict(
                    "read",
                    f"{show(folder)} is where programs keep credentials; name only the "
                    "folders that jobs need",
                )


def _holds_credentials(path: Path, environ: Mapping[str, str]) -> bool:
    """Return whether *path* holds the home folder, or is where programs keep keys."""
    home, real = Path(environ.get("HOME") or "~").expanduser().resolve(), path.resolve()
    if real in (home, *home.parents):
        return True
    return home in real.parents and real.relative_to(home).parts[0] in _OF_CREDENTIALS
