"""onebox's own use of itself: `inv run` is the example job of onebox.toml."""

import os
import sys

from invoke import task

from onebox import *  # noqa: F403 - the tasks are the file


@task(help={"fast": "Skip the tests that start boxes, machines or servers."})
def check(c, fast=False):
    """Check everything: format, lint, types, tests."""
    # Some tests wait. Nine at a time were no faster than five on two cores.
    tests = f"tests.rerun -n {2 * (os.cpu_count() or 1) + 1} --dist worksteal"
    if fast:
        tests += ' -q -m "not slow"'
    # pytest rewrites the asserts of all tests. If each of its processes did that, and
    # if nothing kept the result, it would take a minute of CPU time. So Python may
    # write bytecode here, and one process reads all tests first, beside mypy.
    env = {"PYTHONDONTWRITEBYTECODE": ""}

    def run(tool, **options):
        return c.run(f"{sys.executable} -m {tool}", echo=True, env=env, **options)

    run("ruff format --check .")
    run("ruff check .")
    types = run("mypy", asynchronous=True)
    run("pytest --collect-only -q", hide="out", warn=True)
    types.join()
    run(tests)
