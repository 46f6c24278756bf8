"""
A real Slurm cluster in namespaces of this host, reached by a real OpenSSH.

The login node, the controller and each node are namespaces with own processes and host
names; the only network is `lo`. The user is not root, and the paths on the cluster are
not paths of this host. `missing()` returns why this host cannot run a cluster.
"""

from tests.fakes.slurm.cluster import SlurmCluster, missing

__all__ = ["SlurmCluster", "missing"]
