"""Find links that lead out of the folder of the outputs."""

from __future__ import annotations

from collections.abc import Sequence

from onebox.agent.files.collect_outputs import MOST_LINKS, climbs_after_name
from onebox.agent.files.manifest import Entry


def find_links_leading_out(entries: Sequence[Entry]) -> dict[bytes, bytes]:
    """
    Return the links that lead out of the folder of the outputs, each with its target.

    A link may lead out directly or through other links.

    A link with `..` after a name counts too, because the name can be a link here that
    another fetch has brought, or will bring. Without such links, a link that begins in
    the folder stays there, whatever other fetches bring: it climbs at most to the top,
    as the folders on its path are no links, and then each name leads to a place inside.
    """
    links = {entry.path: entry.target for entry in entries if entry.kind == "l"}
    return {
        path: links[path] for path in sorted(links) if not _stays_inside(path, links)
    }


def _stays_inside(path: bytes, links: dict[bytes, bytes]) -> bool:
    """
    Return whether the link at *path* leads to a place in the folder of the outputs.

    Other links on the way are followed, too.
    """
    here: list[bytes] = []
    ahead = path.split(b"/")[::-1]
    followed = 0
    while ahead:
        part = ahead.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not here:
                return False
            here.pop()
            continue
        here.append(part)
        target = links.get(b"/".join(here))
        if target is None:
            continue
        if climbs_after_name(target):
            return False
        followed += 1
        # So many links form a loop. A loop leads nowhere, so it stays in the folder.
        if followed > MOST_LINKS:
            return True
        if target.startswith(b"/"):
            return False
        here.pop()
        ahead.extend(target.split(b"/")[::-1])
    return True
