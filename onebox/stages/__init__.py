"""
The work of each stage, without Invoke.

The modules of the stages on the way to a result (image, provision, push, run,
fetch, teardown) have a function `reason(context)`. It returns why the stage has
something to do, or None if the stage is up to date; `inv plan` prints it. For image,
provision and run it also decides whether the stage runs or is reported as skipped.
Push, fetch and teardown always run, and find out on the box what is left to do.
"""
