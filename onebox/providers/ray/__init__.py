"""
The provider `ray`: boxes that are folders on this machine, whose jobs a cluster runs.

The agent is a process of this machine and speaks with the cluster
(`onebox.agent.ray`). `settings` is the table [ray], `cluster` asks the cluster what it
has, and `provider` makes, finds and removes the folders.
"""
