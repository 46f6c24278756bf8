"""
A real Ray cluster in namespaces of this host, reached by HTTP or a real OpenSSH.

The head and each worker are namespaces with own processes and an own /tmp; the only
network is `lo`. The cluster's paths are not paths of this host. `missing()` returns why
this host cannot run a cluster; it installs Ray at the first call.
"""

from tests.fakes.ray.cluster import RayCluster
from tests.fakes.ray.install import missing

__all__ = ["RayCluster", "missing"]
