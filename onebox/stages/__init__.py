"""
These modules do the work of the stages; they do not use Invoke.

The stages on the way to a result are image, provision, push, run, fetch and teardown.
The module of each stage has a function `reason(context)`, which returns why the stage
has something to do, or None if the stage is up to date. `inv plan` prints this reason.
For image, provision and run, the reason also decides whether the stage runs or is
reported as up to date. Push, fetch and teardown always run, and find out on the box
what is left to do.
"""
