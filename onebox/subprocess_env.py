"""Give the programs that onebox starts our environment without the secrets."""

from __future__ import annotations

import os
from collections.abc import Iterable

_secrets: set[str] = set()


def hide(names: Iterable[str]) -> None:
    """Hide the variables *names* from every program that onebox starts."""
    # The job receives the values over the connection. ssh and git do not need them,
    # and the ssh process of a shared connection outlives this command.
    _secrets.update(names)


def environment(needed: tuple[str, ...] = ()) -> dict[str, str]:
    """
    Return the environment, without hidden variables, for a program to start.

    Args:
        needed: The beginnings of the names of variables that are passed although they
            are hidden, because the program logs in with them.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _secrets or name.startswith(needed)
    }
