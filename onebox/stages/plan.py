"""Say what would happen, and why; change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onebox.boxes import offers
from onebox.jobs import client
from onebox.jobs.output_paths import roots
from onebox.stages import fetch, image, preemption_recovery, provision, push, run, teardown

if TYPE_CHECKING:
    from onebox.context import Session


def show(session: Session, stage: str, command: str = "") -> None:
    """
    Print one stage's line of the plan; for `run`, those of the whole chain's end.

    Args:
        command: What `run` would run, if that is not [run] command.

    Raises:
        OneboxError: The stage would be refused; the run would say the same.
    """
    if stage not in _REASONS:
        return
    if stage in ("image", "provision"):
        offers.announce(session)
    why = _REASONS[stage](session)
    if stage == "run" and why is not None:
        command = command or session.settings.run.command or ""
        why = preemption_recovery.resumes(session, command) or why
    if why is None:
        _line(session, stage, "done", "up to date", _UP_TO_DATE[stage](session))
    else:
        stays = push.stays_here(session) if stage == "push" else ""
        detail = "; ".join(filter(None, [why, stays]))
        _line(session, stage, "kept", "would run", detail)
    if stage == "run" and why is not None and not session.line.only:
        _end_of_chain(session)


def whole(session: Session) -> None:
    """Print the plan of `inv run`."""
    with session.planning():
        session.line.begin("run", only=False, keep=False, own_command=False)
        if run.reason(session) is None:
            show(session, "run")
            return
        for stage in ("image", "provision", "push", "run"):
            show(session, stage)


def _end_of_chain(session: Session) -> None:
    outputs = ", ".join(roots(session)) or "no [fetch] outputs are configured"
    _line(session, "fetch", "kept", "would run", outputs)
    if session.box is None and session.line.makes_for_itself:
        _line(
            session,
            "teardown",
            "kept",
            "would run",
            "the chain makes the box for itself",
        )
    elif session.line.owes_teardown(session.notebook.record.ours_to_end):
        why = "a chain has made the box for itself"
        if "teardown" in session.line.named:
            why = "the line asks for it"
        _line(session, "teardown", "kept", "would run", why)
    else:
        _line(session, "teardown", "done", "would not run", "the box is kept")


def _line(session: Session, stage: str, mark: str, result: str, detail: str) -> None:
    session.screen.plan_line(stage, mark, result, detail)


def _run_reason(session: Session) -> str | None:
    why = run.reason(session)
    if why is not None:
        run.check(session)
        if session.box is not None and session.box.state == "running":
            client.refuse_running(session, client.latest(session))
    return why


def _nothing(session: Session) -> str:
    return ""


_REASONS: dict[str, Callable[[Session], str | None]] = {
    "image": image.reason,
    "provision": provision.reason,
    "push": push.reason,
    "run": _run_reason,
    "fetch": fetch.reason,
    "teardown": teardown.reason,
}
_UP_TO_DATE: dict[str, Callable[[Session], str]] = {
    "image": image.up_to_date,
    "provision": provision.up_to_date,
    "push": push.stays_here,
    "run": lambda session: "command, code, data and image unchanged",
    "fetch": _nothing,
    "teardown": lambda session: "nothing is there",
}
