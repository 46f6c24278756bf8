"""
The families of machine types that onebox offers, and what it knows of each.

None has shared cores, bursting or accelerators, so a job gets what its size
requires. A type that the user names is offered from any family; its unknown
properties are then not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_PERSISTENT = ("pd-balanced", "pd-ssd", "pd-standard")
_HYPERDISK = ("hyperdisk-balanced",)
_BOTH = ("pd-balanced", "pd-ssd", *_HYPERDISK)


@dataclass(frozen=True)
class Family:
    """
    A family of machine types.

    *sku* is how descriptions of its prices begin in Google's price catalogue,
    *threads* the number of vCPUs on a core, *disks* the kinds that it boots from.
    """

    sku: str
    threads: int
    disks: tuple[str, ...]
    arch: str = "x86_64"


# The order decides between offers whose prices are unknown.
FAMILIES: Mapping[str, Family] = {
    "n2d": Family("N2D AMD Instance", 2, _PERSISTENT),
    "n2": Family("N2 Instance", 2, _PERSISTENT),
    "n4": Family("N4 Instance", 2, _HYPERDISK),
    "n4d": Family("N4D Instance", 2, _HYPERDISK),
    "c2": Family("Compute optimized", 2, _PERSISTENT),
    "c2d": Family("C2D AMD Instance", 2, _PERSISTENT),
    "c3": Family("C3 Instance", 2, _BOTH),
    "c3d": Family("C3D Instance", 2, _BOTH),
    "c4": Family("C4 Instance", 2, _HYPERDISK),
    "c4d": Family("C4D Instance", 2, _HYPERDISK),
    "t2d": Family("T2D AMD Instance", 1, _PERSISTENT),
    "t2a": Family("T2A Arm Instance", 1, _PERSISTENT, "aarch64"),
    "n4a": Family("N4A Instance", 1, _HYPERDISK, "aarch64"),
    "c4a": Family("C4A Arm Instance", 1, _HYPERDISK, "aarch64"),
}


# Families that are not offered, but support live migration too. GPUs, TPUs, bare
# metal and the HPC families do not, and Google refuses to create an instance of them
# with the maintenance policy MIGRATE.
_MOVE_TOO = ("e2", "n1", "f1", "g1", "m1", "m2", "m3")


def moves(type_: str) -> bool:
    """Return whether Google can migrate a running instance of this type."""
    known = family(type_) is not None or type_.partition("-")[0] in _MOVE_TOO
    return known and not type_.endswith("-metal")


def family(type_: str) -> Family | None:
    """Return the family of a machine type, None if it is not in the list."""
    return FAMILIES.get(type_.partition("-")[0])


def plain(type_: str) -> bool:
    """Return whether a type is of a listed family, without local disks or metal."""
    parts = type_.split("-")
    return family(type_) is not None and len(parts) == 3 and parts[2].isdigit()


def disk(type_: str, preferred: str) -> str:
    """Return the kind of boot disk for a type: *preferred* if the type supports it."""
    found = family(type_)
    return preferred if found is None or preferred in found.disks else found.disks[0]
