"""
The code of ours that lives on the box.

Standard library only, any Python from 3.8 on. The client imports the same
modules, so that both ends of the connection are one implementation. `bundle`
in `onebox.remote.agent_bundle` packs the folder into one file that
`python3 -I -S agent.pyz MODE` runs.
"""
