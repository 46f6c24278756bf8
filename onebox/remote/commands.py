"""Write the commands that ssh runs on a box, for any login shell."""

from __future__ import annotations

import shlex

from onebox.providers.values import Box

# This is printed on a login node before the output of our command, because the login
# may print other lines first. It needs no quotes in any shell.
BEGINS = "onebox-output-begins-here"


def agent(box: Box, path: str, mode: str) -> str:
    """
    Return the command that starts the agent.

    Args:
        path: The path of the agent's file on the box.

        mode: What the agent does, such as "serve".
    """
    words = f"{shlex.quote(box.python)} -I -S {shlex.quote(path)} {mode}"
    return f"{_beginning(box, marked=mode == 'serve')} {words}"


def shell(box: Box) -> str:
    """Return the command that runs a script from its stdin, in the box's home."""
    return f"{_beginning(box, marked=True)} sh {'-c ' + _IN_HOME if box.home else '-s'}"


_IN_HOME = "'cd && exec sh -s'"


def _beginning(box: Box, *, marked: bool) -> str:
    """
    Return the words that set the home of a box on a cluster.

    If *marked*, they also print `BEGINS` there.
    """
    preface = f"printf {BEGINS}; " if box.user_ssh and marked else ""
    home = f" env HOME={shlex.quote(box.home)}" if box.home else ""
    return f"{preface}exec{home}"
