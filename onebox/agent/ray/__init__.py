"""The jobs of a box on a Ray cluster: on this machine, and on the cluster's nodes."""
