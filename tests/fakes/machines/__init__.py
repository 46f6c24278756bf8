"""
Linux machines that boot, run and power off as the machines of a cloud do.

A machine is a set of namespaces with systemd as its first process. cloud-init reads
user data from a metadata server at 169.254.169.254; sshd is reached at port 22 of a
loopback address of this host. The only network is `lo`; the disk is an overlay above
this host's root file system. `missing()` returns why this host cannot run machines.
"""

from tests.fakes.machines.layer import missing
from tests.fakes.machines.machine import Disk, Machine, discard
from tests.fakes.machines.machines import Machines

__all__ = ["Disk", "Machine", "Machines", "discard", "missing"]
