"""
Run the part of one box of `map --boxes`, in a process of its own.

The process that deals the units starts this one, and writes one JSON document to its
stdin: settings as they are there, and the units themselves. So nothing is read or made
again, and the box is that of an ordinary run, with its own lock, deadline, receipt and
teardown. If the other process is killed, this one goes on.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onebox.command_hints import Hints
from onebox.context import BoxContext
from onebox.errors import OneboxError
from onebox.exit_code import report, system_error, unexpected_error
from onebox.invocation import Invocation
from onebox.python_hints import PythonHints
from onebox.runner import outermost_stage, prepare_chain, print_kept_boxes
from onebox.settings.handover import from_document
from onebox.signals import Interrupted
from onebox.stages import image, map, provision, push
from onebox.ui.progress import StageLine
from onebox.ui.screen import Screen
from onebox.units import job as unit_job

# The stages that the job needs, in their order.
NEEDS = (("image", image), ("provision", provision), ("push", push))


def main() -> None:
    """Run the part that stdin describes; exit as `inv map` would."""
    document = json.loads(sys.stdin.buffer.read())
    sys.exit(_run(_open(document, os.environ), document))


def _open(document: Mapping[str, Any], environ: Mapping[str, str]) -> BoxContext:
    """Return the context of the box."""
    root = Path(document["root"])
    settings = from_document(root, environ, document["settings"])
    invocation = Invocation(
        document["command"],
        ("map",),
        from_python=document["python"],
        project=document["project"],
    )
    hints = Hints(document["tasks"], settings.name, document["program"])
    if invocation.from_python:
        hints = PythonHints(name=settings.name, project=invocation.project)
    screen = _PartScreen(environ, hints, document["progress"])
    context = BoxContext(root, environ, settings, invocation, screen)
    context.store.take_over(document["lock"], invocation.command)
    context.chain.part = unit_job.from_document(document["units"])
    return context


def _run(context: BoxContext, document: Mapping[str, Any]) -> int:
    """Run the units after what they need; return the exit code."""
    code = 0
    try:
        with (
            outermost_stage(context),
            context.using_outputs_folder(Path(document["outputs"])),
            _system_errors(),
        ):
            _run_chain(context, keep=document["keep"], yes=document["yes"])
    except OneboxError as error:
        report(error, context)
        code = error.code
    except Interrupted as stop:
        code = stop.code
    print_kept_boxes([context])
    return code


def _run_chain(context: BoxContext, *, keep: bool, yes: bool) -> None:
    invocation = context.invocation
    invocation.begin("map", only=False, keep=keep, own_command="")
    if not prepare_chain(context, "map"):
        return
    with invocation.as_need():
        for name, module in NEEDS:
            invocation.begin(name, only=False, keep=False, own_command="")
            if prepare_chain(context, name):
                module.perform(context)
    map.perform(context, yes=yes)


@contextmanager
def _system_errors() -> Iterator[None]:
    """Turn an error that no stage expects into a OneboxError."""
    try:
        yield
    except OSError as error:
        raise system_error(error) from error
    except OneboxError:
        raise
    except Exception as error:
        raise unexpected_error(error) from error


class _PartScreen(Screen):
    """
    Prints what the other process passes on, and tells it how far this one is.

    Args:
        progress: The descriptor of a pipe that gets a line for each change.
    """

    def __init__(self, environ: Mapping[str, str], hints: Hints, progress: int) -> None:
        super().__init__(environ, hints)
        self._progress = progress
        # If the other process is stopped, this one must not wait for it.
        os.set_blocking(progress, False)
        os.set_inheritable(progress, False)

    def footer(self, text: str) -> None:
        """Tell the other process how far the job is."""
        self._tell(text)

    @contextmanager
    def stage(self, name: str, *, kept: bool = True) -> Iterator[StageLine]:
        """Tell the other process that a stage begins; print its end."""
        self._tell(name)
        with super().stage(name, kept=kept) as line:
            yield line

    def _tell(self, text: str) -> None:
        line = " ".join(text.split("\n")).encode("utf-8", "replace")[:4000]
        # The reader may be gone, or may not read at the moment.
        with suppress(OSError):
            os.write(self._progress, line + b"\n")
