"""
`inv` with every box behind a slow connection.

`python -m tests.fakes.far REPORT DELAY run` does what `inv run` does, and writes the
number of connections and round trips to REPORT. Each direction takes DELAY seconds.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from invoke.main import program

from onebox import providers
from onebox.providers.values import Box
from tests.fakes.relay import Relay


class Relays:
    """The relays to all boxes, and a report about them."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._relays: dict[int, Relay] = {}

    def with_relay(self, box: Any) -> Any:
        """Return a box, or several, with the port of its relay."""
        if isinstance(box, Box):
            return dataclasses.replace(box, port=self._port(box.port))
        if isinstance(box, Iterable):
            return [self.with_relay(each) for each in box]
        return box

    def report(self, file: Path) -> None:
        """Write the number of connections and round trips."""
        relays = self._relays.values()
        counts = [sum(r.opened for r in relays), sum(r.turns for r in relays)]
        file.write_text(json.dumps(counts))

    def _port(self, port: int) -> int:
        if port in {relay.port for relay in self._relays.values()} or not port:
            return port
        if port not in self._relays:
            self._relays[port] = Relay(port, delay=self._delay)
            self._relays[port].__enter__()
        return self._relays[port].port


def main(report: Path, delay: float) -> None:
    """Run `inv` with the rest of the command line."""
    relays = Relays(delay)
    load = providers.load

    def through(do: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(do)(lambda *a, **k: relays.with_relay(do(*a, **k)))

    def load_far(*arguments: Any, **more: Any) -> Any:
        provider = load(*arguments, **more)
        for name in ("create", "find", "get", "start"):
            setattr(provider, name, through(getattr(provider, name)))
        return provider

    providers.load = load_far
    try:
        program.run()
    finally:
        relays.report(report)


if __name__ == "__main__":
    where, seconds = sys.argv[1:3]
    sys.argv[:3] = ["inv"]
    main(Path(where), float(seconds))
