"""Find the links among the outputs that lead out of the folder fetched into."""

from __future__ import annotations

from collections.abc import Sequence

from onebox.agent.files.collect_outputs import MOST_LINKS
from onebox.agent.files.manifest import Entry


def find_links_leading_out(entries: Sequence[Entry]) -> dict[bytes, bytes]:
    """
    Return the links that lead out of the tree, each with its target.

    A link may lead out directly or through other links.
    """
    links = {entry.path: entry.target for entry in entries if entry.kind == "l"}
    return {
        path: links[path] for path in sorted(links) if not _stays_inside(path, links)
    }


def _stays_inside(path: bytes, links: dict[bytes, bytes]) -> bool:
    """
    Return whether the place to which a link leads is inside the tree.

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
        followed += 1
        # This many links form a loop. It leads nowhere, so it does not leave the tree.
        if followed > MOST_LINKS:
            return True
        if target.startswith(b"/"):
            return False
        here.pop()
        ahead.extend(target.split(b"/")[::-1])
    return True
