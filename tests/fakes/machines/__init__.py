"""
Real machines: a Linux of their own, from the first process to the power-off.

systemd as the first process, cloud-init reading its user data from a metadata
service at 169.254.169.254, sshd behind port 22 of a loopback address of this host.
A machine has namespaces of its own and no network but `lo`; its disk is an overlay
above this host's root file system. `missing()` says why there can be none here.
"""

from tests.fakes.machines.layer import missing
from tests.fakes.machines.machine import Disk, Machine
from tests.fakes.machines.machines import Machines

__all__ = ["Disk", "Machine", "Machines", "missing"]
