"""
What each stage does, without Invoke.

Every module has `reason(session)`: why the stage has something to do, or None
if it is up to date. The same answer decides whether the stage runs, fills the
line that says it was skipped, and makes the plan.
"""
