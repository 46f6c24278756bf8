"""Check a cluster, for `inv doctor`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.errors import UsageError
from onebox.providers.slurm import partitions
from onebox.providers.slurm.settings import SlurmSettings
from onebox.providers.values import Check

# With less free space than this, an environment may not fit.
_LITTLE_DISK = 2 << 30
# Filesystems of one machine, as `stat -f` names them: the nodes do not see a folder
# there, unless the cluster exports it under the same path.
_OF_ONE_MACHINE = ("ext2/ext3", "xfs", "btrfs", "tmpfs", "overlayfs", "zfs")


def checks(host: str, facts: Mapping[str, Any], settings: SlurmSettings) -> list[Check]:
    """Return the lines for a cluster, from what its login node reports."""
    return [
        Check("login", True, f"{host}, Python {_text(facts, 'python')}"),
        Check("slurm", True, _text(facts, "version")),
        _partitions(facts, settings.partition),
        _folder(facts, settings),
    ]


def _partitions(facts: Mapping[str, Any], name: str | None) -> Check:
    try:
        partitions.check(facts, name)
    except UsageError as error:
        return Check("partitions", False, error.message, error.next)
    return Check("partitions", True, partitions.describe(facts))


def _folder(facts: Mapping[str, Any], settings: SlurmSettings) -> Check:
    kind, root = _text(facts, "filesystem"), _text(facts, "root")
    free = facts.get("disk_free")
    free = free if isinstance(free, int) else 0
    detail = f"{root}, {formatting.byte_count(free)} free, {kind}"
    if kind in _OF_ONE_MACHINE:
        next = "if not: [slurm] root on a filesystem that they see"
        return Check("root", None, f"{detail}: do the nodes see it?", next)
    return Check("root", None if free < _LITTLE_DISK else True, detail)


def _text(facts: Mapping[str, Any], name: str) -> str:
    return printable(str(facts.get(name, "")))[:200]
