"""
`inv`, with every box at the far end of a long line.

`python -m tests.transport.far REPORT DELAY run` does what `inv run` does, and
writes how many connections and round trips it took. Each direction takes DELAY.
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

from .relay import Relay


class Far:
    """The lines to the boxes there are; *report* is written when all is over."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._relays: dict[int, Relay] = {}

    def box(self, box: Any) -> Any:
        """Return a box, or several, as they are reached over a line."""
        if isinstance(box, Box):
            return dataclasses.replace(box, port=self._port(box.port))
        if isinstance(box, Iterable):
            return [self.box(one) for one in box]
        return box

    def report(self, file: Path) -> None:
        """Write down what it took."""
        relays = self._relays.values()
        told = [sum(r.opened for r in relays), sum(r.turns for r in relays)]
        file.write_text(json.dumps(told))

    def _port(self, port: int) -> int:
        if port in {relay.port for relay in self._relays.values()} or not port:
            return port
        if port not in self._relays:
            self._relays[port] = Relay(port, delay=self._delay)
            self._relays[port].__enter__()
        return self._relays[port].port


def main(report: Path, delay: float) -> None:
    """Run `inv` with the rest of the command line."""
    far = Far(delay)
    load = providers.load

    def through(do: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(do)(lambda *a, **k: far.box(do(*a, **k)))

    def load_far(*arguments: Any, **more: Any) -> Any:
        provider = load(*arguments, **more)
        for name in ("create", "find", "get", "start"):
            setattr(provider, name, through(getattr(provider, name)))
        return provider

    providers.load = load_far
    try:
        program.run()
    finally:
        far.report(report)


if __name__ == "__main__":
    where, seconds = sys.argv[1:3]
    sys.argv[:3] = ["inv"]
    main(Path(where), float(seconds))
