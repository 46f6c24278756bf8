"""The units of a job: the pool that runs them, and how each of them ends."""
