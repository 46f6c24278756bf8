"""Put the tools into a folder, which comes first in the PATH of a test."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from tests.fakes.tunnels.gateway import Gateway

_ROOT = Path(__file__).parents[3]
# The module and the function of each program.
_PROGRAMS = {
    "aws": ("aws_cli", "aws"),
    "session-manager-plugin": ("aws_cli", "plugin"),
    "gcloud": ("gcloud", "gcloud"),
}


class Tools:
    """
    The tools that are installed on this machine.

    Args:
        folder: An empty folder for the programs.

        versions: The version of a tool, if it is not the default one.
    """

    def __init__(self, folder: Path, gateway: Gateway, **versions: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, (module, function) in _PROGRAMS.items():
            code = (
                f"import sys; sys.path.insert(0, {str(_ROOT)!r})\n"
                f"from tests.fakes.tunnels import {module}\n"
                f"{module}.{function}(sys.argv[1], sys.argv[2], sys.argv[3:])\n"
            )
            version = versions.get(name, "")
            words = [sys.executable, "-I", "-S", "-c", code, str(gateway.path), version]
            path = folder / name
            path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            path.chmod(0o755)

    @property
    def path(self) -> str:
        """The PATH with the tools."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"

    def remove(self, name: str) -> None:
        """Uninstall a tool."""
        (self.folder / name).unlink()
