"""Runs the stages of a command line in this process, on a provider of the test."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from onebox import runner
from onebox.context import BoxContext
from onebox.invocation import Invocation
from onebox.providers.base import Provider
from onebox.stages import provision, push, run
from tests.conftest import Project


def type_line(
    project: Project, cloud: Provider, *stages: ModuleType, **options: Any
) -> BoxContext:
    """
    Run these stages as one `inv` line would; return its context.

    Args:
        options: Keywords of the stages' `perform`.
    """
    line = Invocation("inv", ())
    context = BoxContext.open(str(project.root), project.environ, {}, line)
    context.use_provider(cloud)
    try:
        with runner.outermost_stage(context):
            for stage in stages:
                name = stage.__name__.rpartition(".")[2]
                line.begin(name, only=False, keep=False, own_command="")
                if stage is run:
                    provision.perform(context)
                    push.perform(context)
                    run.perform(context, None, **options)
                else:
                    stage.perform(context, **options)
    finally:
        context.store.unlock()
    return context
