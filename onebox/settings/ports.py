"""A port of the box and the port of this machine that leads to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_TEXT = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")
_HIGHEST = 65535


@dataclass(frozen=True)
class PortPair:
    """The port *local* of this machine, which leads to the port *remote* of the box."""

    local: int
    remote: int

    @classmethod
    def parse(cls, text: str) -> PortPair:
        """
        Return the pair for a text such as "8888" or "8080:80".

        Raises:
            ValueError: The text names no ports; the message says what is expected.
        """
        found = _TEXT.fullmatch(text.strip())
        local, remote = (
            (int(n) for n in (found[1], found[2] or found[1])) if found else (0, 0)
        )
        if not (0 < local <= _HIGHEST and 0 < remote <= _HIGHEST):
            raise ValueError(
                f'"{text}" is no port; use one from 1 to {_HIGHEST}, or two as in '
                '"8080:80": port 8080 here leads to port 80 of the box'
            )
        return cls(local, remote)
