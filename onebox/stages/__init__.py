"""
The work of each stage, without Invoke.

The modules of the stages on the way to a result (image, provision, push, run,
fetch, teardown) have a function `reason(context)`. It returns why the stage has
something to do, or None if the stage is up to date. The same answer decides whether
the stage runs, fills the line that reports it as skipped, and makes the plan.
"""
