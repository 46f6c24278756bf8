"""onebox's own use of itself: `inv run` is the example job of onebox.toml."""

import os
import sys

from invoke import task

from onebox import *  # noqa: F403 - the tasks are the file


@task
def check(c):
    """Check everything: format, lint, types, tests."""
    # Most tests wait for something: one at a time more than there are cores.
    tests = f"tests.rerun -n {(os.cpu_count() or 1) + 1} --dist worksteal"
    for tool in ("ruff format --check .", "ruff check .", "mypy", tests):
        c.run(f"{sys.executable} -m {tool}", echo=True)
