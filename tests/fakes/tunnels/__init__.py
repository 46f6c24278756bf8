"""
The tools of the clouds that lead ssh to a machine: `aws`, its plugin, and `gcloud`.

Each is a program that refuses what the real one refuses, with its message and exit
code. It asks a `Gateway` in the test's process, which knows the fake cloud, and passes
bytes between its own stdin and stdout and the machine.
"""

from tests.fakes.tunnels.gateway import Gateway, Refused
from tests.fakes.tunnels.tools import Tools

__all__ = ["Gateway", "Refused", "Tools"]
