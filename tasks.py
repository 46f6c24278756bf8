"""onebox's own use of itself: `inv run` is the example job of onebox.toml."""

import os
import sys

from invoke import task

from onebox import *  # noqa: F403 - the tasks are the file


@task(help={"fast": "Skip the tests that start boxes, machines or servers."})
def check(c, fast=False):
    """Check everything: format, lint, types, tests."""
    # Most tests wait for something: three at a time used 42 % of two cores.
    tests = f"tests.rerun -n {2 * (os.cpu_count() or 1) + 1} --dist worksteal"
    if fast:
        tests += ' -q -m "not slow"'
    for tool in ("ruff format --check .", "ruff check .", "mypy", tests):
        c.run(f"{sys.executable} -m {tool}", echo=True)
