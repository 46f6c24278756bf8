"""The files that `inv export` writes: the job, for another tool, without onebox."""
