"""Have code and data on the box, exactly as they are here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting
from onebox.boxes import bring_up
from onebox.project_files import left_out, project
from onebox.stages import previous_outputs
from onebox.transfer import push_files

if TYPE_CHECKING:
    from onebox.agent.files.hash_index import Index
    from onebox.agent.files.manifest import Entry
    from onebox.context import Session


def chosen(session: Session, known: Index | None = None) -> list[Entry]:
    """Return the files that belong on the box; warn once of what cannot go."""
    return project(session, known).entries


def stays_here(session: Session) -> str:
    """Return a phrase for what is here and is not pushed, being output, or ""."""
    return left_out(project(session))


def digest(session: Session) -> str:
    """Return one hash over the code and data that are here."""
    return push_files.digest(session.root, partial(chosen, session), _index(session))


def reason(session: Session) -> str | None:
    """Say what on the box differs from here, or None."""
    box = session.box
    if box is None or box.state != "running":
        return "the box is empty" if box is None else f"{box.id} is {box.state}"
    files = partial(chosen, session)
    why: str | None = session.resuming(
        lambda link: push_files.difference(link, session.root, files, _index(session))
    )
    return why


def perform(session: Session) -> None:
    """Bring code and data to the box; the box confirms by digest."""
    session.lock()
    # The files that a job works with are not changed under it, nor those that it
    # has changed before they are here.
    previous_outputs.fetch_outputs(session, bring_up.ready(session))
    with session.timed("push"), session.screen.stage("push") as line:
        line.doing("looking at what is here")
        stays = ""

        def files(known: Index) -> list[Entry]:
            nonlocal stays
            found = project(session, known)
            stays = left_out(found)
            return found.entries

        done = session.resuming(
            lambda link: push_files.push(
                link, session.root, files, _index(session), line.progress
            )
        )
        session.pushed = done.digest
        amount = (
            f"{formatting.count(done.files, 'file')}, {formatting.size(done.bytes)}"
        )
        if not done.sent_files and not done.deleted:
            line.end("up to date", "; ".join(filter(None, [amount, stays])))
            return
        changes = []
        if done.sent_files < done.files:
            changes.append(f"{done.sent_files:,} changed")
        if done.deleted:
            changes.append(f"{done.deleted:,} deleted")
        detail = ", ".join([amount, *changes])
        line.end("", "; ".join(filter(None, [detail, stays])))


def _index(session: Session) -> Path:
    return session.notebook.directory / "index"
