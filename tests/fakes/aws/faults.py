"""The faults that a test requests: which call fails, how, and how often."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

from tests.fakes.aws.schema import Refusal

Kind = Literal[
    "throttle",  # refused: too many requests
    "broken",  # HTTP 500, nothing done
    "broken after",  # HTTP 500, but the call took effect
    "cut",  # no response, nothing done
    "cut after",  # no response, but the call took effect
    "hang",  # no response before the client's timeout, nothing done
    "hang after",  # the same, but the call took effect
    "html",  # a gateway's HTML page instead of a response
    "expired",  # expired credentials
    "bad key",  # unknown credentials
]


@dataclass
class Faults:
    """
    The faults of the next calls, and the limits of the account.

    Attributes:
        denied: Actions that the credentials do not permit, such as
            "ec2:RunInstances"; with a region, "ec2:DescribeInstances eu-west-1".

        full: The (type, zone, spot) without capacity; "*" and None match all.

        cpus: The quota of on-demand vCPUs.

        spot_cpus: The quota of spot vCPUs.

        lag: The seconds for which lists omit a new object.

        required_tag: The key of a tag without which nothing may be created, "" if no
            tag is required.

        ended_token_is_error: Whether a token of a terminated instance is an error.

        new_profiles: The number of launches that do not know an instance profile yet.

        encoded: Whether a refusal says only in an encoded form what is not permitted.
    """

    denied: set[str] = field(default_factory=set)
    full: set[tuple[str, str, bool | None]] = field(default_factory=set)
    cpus: float = 1000.0
    spot_cpus: float = 1000.0
    lag: float = 0.0
    required_tag: str = ""
    ended_token_is_error: bool = False
    new_profiles: int = 0
    encoded: bool = False
    _next: list[tuple[str, Kind]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, action: str, kind: Kind, times: int = 1) -> None:
        """Let the next calls of an action fail; "*" is any action."""
        with self._lock:
            self._next += [(action, kind)] * times

    def take(self, action: str) -> Kind | None:
        """Return the fault of this call, None without one; each is used once."""
        with self._lock:
            for index, (wanted, kind) in enumerate(self._next):
                if wanted in ("*", action):
                    del self._next[index]
                    return kind
        return None

    @property
    def left(self) -> int:
        """The number of faults that have not occurred yet."""
        return len(self._next)

    def has_room(self, type_: str, zone: str, spot: bool) -> bool:
        """Return whether there is capacity."""
        return not any(
            wanted_type in ("*", type_)
            and wanted_zone in ("*", zone)
            and wanted_spot in (None, spot)
            for wanted_type, wanted_zone, wanted_spot in self.full
        )

    def unauthorized(self, user: str, action: str, resource: str) -> Refusal:
        """Return EC2's refusal of an action that the credentials do not permit."""
        detail = (
            f" User: {user} is not authorized to perform: {action} on resource: "
            f"{resource} because no identity-based policy allows the {action} action."
        )
        return Refusal(
            "UnauthorizedOperation",
            "You are not authorized to perform this operation."
            f"{'' if self.encoded else detail} Encoded authorization failure "
            "message: 4GIOHlTkIaWHQD0Q0m6XSnuMMCm",
            403,
        )

    def clear(self) -> None:
        """Remove all faults."""
        fresh = Faults()
        self.denied, self.full = fresh.denied, fresh.full
        self.cpus, self.spot_cpus = fresh.cpus, fresh.spot_cpus
        self.lag, self.ended_token_is_error = fresh.lag, fresh.ended_token_is_error
        self.required_tag = fresh.required_tag
        self.new_profiles, self.encoded = fresh.new_profiles, fresh.encoded
        self._next.clear()
