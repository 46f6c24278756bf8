"""Faults on request: which call fails, how, and how often."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "throttle",  # refused: too many
    "broken",  # HTTP 500, nothing done
    "broken after",  # HTTP 500, and done all the same
    "cut",  # no answer at all, nothing done
    "cut after",  # no answer at all, and done
    "hang",  # no answer for longer than anybody waits, nothing done
    "hang after",  # the same, and done
    "html",  # a gateway's own page instead of an answer
    "expired",  # credentials that are over
    "bad key",  # credentials that never were
]


@dataclass
class Faults:
    """
    The faults to come.

    Attributes:
        denied: Actions that the credentials do not permit, such as
            "ec2:RunInstances"; with a region, "ec2:DescribeInstances eu-west-1".

        full: Where there is no capacity: (type, zone, spot or not), "*" for any.

        cpus: How many vCPUs the account may have, on demand.

        spot_cpus: The same for spot.

        lag: For how many seconds a new thing is missing in descriptions.

        over: Whether a token whose machine has ended is an error, or gives that.
    """

    denied: set[str] = field(default_factory=set)
    full: set[tuple[str, str, bool | None]] = field(default_factory=set)
    cpus: float = 1000.0
    spot_cpus: float = 1000.0
    lag: float = 0.0
    over: bool = False
    _next: list[tuple[str, Kind]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, action: str, kind: Kind, times: int = 1) -> None:
        """Have the next calls of an action ("*": any) go wrong."""
        with self._lock:
            self._next += [(action, kind)] * times

    def take(self, action: str) -> Kind | None:
        """Return what goes wrong with this call, if anything does."""
        with self._lock:
            for index, (wanted, kind) in enumerate(self._next):
                if wanted in ("*", action):
                    del self._next[index]
                    return kind
        return None

    @property
    def left(self) -> int:
        """How many faults have not come up."""
        return len(self._next)

    def has_room(self, type_: str, zone: str, spot: bool) -> bool:
        """Tell whether there is capacity."""
        return not any(
            wanted_type in ("*", type_)
            and wanted_zone in ("*", zone)
            and wanted_spot in (None, spot)
            for wanted_type, wanted_zone, wanted_spot in self.full
        )

    def clear(self) -> None:
        """Have all go well from now on."""
        fresh = Faults()
        self.denied, self.full = fresh.denied, fresh.full
        self.cpus, self.spot_cpus = fresh.cpus, fresh.spot_cpus
        self.lag, self.over = fresh.lag, fresh.over
        self._next.clear()
