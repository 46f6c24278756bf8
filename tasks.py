"""onebox's own use of itself: `inv run` is the example job of onebox.toml."""

import sys

from invoke import task

from onebox import *  # noqa: F403 - the tasks are the file


@task
def check(c):
    """Check everything: format, lint, types, tests."""
    for tool in ("ruff format --check .", "ruff check .", "mypy", "pytest"):
        c.run(f"{sys.executable} -m {tool}", echo=True)
