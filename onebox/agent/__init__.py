"""
The program that runs on the box: jobs, file transfer, watchdog.

It needs only the standard library of Python 3.8 or later. The client imports the
same modules, so client and agent share one implementation.
`onebox.agent_bundle` packs this folder into one file, which
`python3 -I -S agent.pyz MODE` runs.
"""
