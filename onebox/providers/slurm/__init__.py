"""
The provider `slurm`: boxes that are folders on a cluster, whose jobs Slurm runs.

`login_node` sends requests to the login node over the user's own ssh. The agent answers
them there (`onebox.agent.slurm.login`). `settings` is the table [slurm], `doctor` has
the lines of `inv doctor`, and `provider` puts these together.
"""
