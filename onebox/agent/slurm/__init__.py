"""The part of the agent that runs jobs through Slurm, on a cluster of other owners."""
