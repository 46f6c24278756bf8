"""
List the families of machine types that onebox offers, and their properties.

No listed family has shared cores, bursting or accelerators, so a job gets all the CPU
that its size requires. A type that the user names may be of any family. If the family
is not listed, its unknown properties are not guessed.
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

    *sku* is the family's name in the price descriptions of Google's price catalogue.
    *threads* is the number of vCPUs of one core. *disks* lists the kinds of disk that
    machines of the family can boot from.
    """

    sku: str
    threads: int
    disks: tuple[str, ...]
    arch: str = "x86_64"


# The order of the families decides between offers whose prices are unknown.
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


# onebox offers these families only by name, but they support live migration too. Types
# with GPUs or TPUs, bare metal and the HPC families do not support it. Google refuses
# to create an instance of such a type with the maintenance policy MIGRATE.
_MOVE_TOO = ("e2", "n1", "f1", "g1", "m1", "m2", "m3")


def moves(type_: str) -> bool:
    """Return whether Google can migrate a running instance of this type."""
    known = family(type_) is not None or type_.partition("-")[0] in _MOVE_TOO
    return known and not type_.endswith("-metal")


def family(type_: str) -> Family | None:
    """Return the family of a machine type, None if FAMILIES does not list it."""
    return FAMILIES.get(type_.partition("-")[0])


def plain(type_: str) -> bool:
    """
    Return whether a machine type is a plain one, such as n2-standard-4.

    Its family must be listed in FAMILIES. Types with local disks, bare-metal types and
    custom types are not plain: their names have more than three parts.
    """
    parts = type_.split("-")
    return family(type_) is not None and len(parts) == 3 and parts[2].isdigit()


def disk(type_: str, preferred: str) -> str:
    """
    Return the kind of boot disk to use for a machine type.

    It is *preferred* if the type's family supports that kind, or if FAMILIES does not
    list the family. Otherwise it is the first kind that the family supports.
    """
    found = family(type_)
    return preferred if found is None or preferred in found.disks else found.disks[0]
