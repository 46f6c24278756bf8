"""What the programs that we start inherit: our environment without the secrets."""

from __future__ import annotations

import os
from collections.abc import Iterable

_secrets: set[str] = set()


def hide(names: Iterable[str]) -> None:
    """Keep these variables from every program that onebox itself starts."""
    # The values go to the job over the connection. ssh and git need none of them,
    # and a shared connection's ssh lives on after us.
    _secrets.update(names)


def environment() -> dict[str, str]:
    """Return what a program of ours may see."""
    return {name: value for name, value in os.environ.items() if name not in _secrets}
