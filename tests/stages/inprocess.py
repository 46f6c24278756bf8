"""Run the stages of a command line in this process, on a provider of the test's own."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from onebox import runner
from onebox.providers.base import Provider
from onebox.stages import provision, push, run

from ..conftest import Project


def type_line(
    project: Project, cloud: Provider, *stages: ModuleType, **options: Any
) -> runner.Session:
    """
    Run these stages as one `inv` line would; return its session.

    Args:
        options: Keywords of the stages' `perform`.
    """
    line = runner.Line("inv", ())
    session = runner.Session.open(str(project.root), project.environ, {}, line)
    session.__dict__["provider"] = cloud
    try:
        with runner.frame(session):
            for stage in stages:
                name = stage.__name__.rpartition(".")[2]
                line.begin(name, only=False, keep=False, own_command=False)
                if stage is run:
                    provision.perform(session)
                    push.perform(session)
                    run.perform(session, None, **options)
                else:
                    stage.perform(session, **options)
    finally:
        session.notebook.unlock()
    return session
