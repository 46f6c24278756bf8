"""
Find everything that belongs to the outputs, with what their links lead to.

A link whose target is an output as well comes as a link. One that leads to another
place in the work folder comes as what it leads to, under the link's own path: no path
outside of the outputs is ever needed. Each target comes once; further links to it
become links to where it comes. A link to a folder that holds outputs stays a link.
"""

from __future__ import annotations

import os
import stat
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Set

from ..file_names import check_path, raw
from . import manifest
from .manifest import Entry

# As many links as Linux follows before it reports a loop.
MOST_LINKS = 40


class Resolved(NamedTuple):
    """
    Where a path leads.

    *path* is the place in the work folder, without a link on the way; None if it is
    elsewhere. *kind* is "f", "d", or "" if no file or folder is there. *links* are the
    links on the way, each at its own place.
    """

    path: Optional[bytes]
    kind: str
    links: List[bytes]


class Outputs(NamedTuple):
    """
    What belongs to the outputs.

    *through* are the paths in *paths* that count as what they lead to; *targets* are
    the texts of links that are not to be as they are; *nowhere* are links that lead to
    no file or folder. *missing* names the roots that do not exist. *places* has the
    path of each target's place in the work folder.
    """

    paths: Set[bytes]
    through: Set[bytes]
    targets: Dict[bytes, bytes]
    nowhere: List[bytes]
    missing: List[str]
    places: Dict[bytes, bytes]


class Collector:
    """
    Collects the outputs of a work folder.

    *here* tells of a place in the work folder whether the client has all that is
    there, as it is there.
    """

    def __init__(self, work: bytes, here: Callable[[bytes], bool]) -> None:
        self._work = work
        self._here = here
        self._bases = sorted({work, os.path.realpath(work)})
        self._found = Outputs(set(), set(), {}, [], [], {})

    def collect(self, roots: Iterable[str]) -> Outputs:
        """Return what belongs to the outputs below these paths."""
        found, links, led = self._found, [], []
        for name in roots:
            path = root_path(name)
            reached = resolve(self._work, path, self._bases)
            if reached.path == path and reached.kind:
                found.places[path] = path
                links += self._walk(path)
            elif reached.kind or _is_link(self._work, path):
                led.append(path)
            else:
                found.missing.append(name)
        links += self._settle(led)
        while links:
            links = self._settle(links)
        return found

    def _settle(self, links: List[bytes]) -> List[bytes]:
        """Decide how these links come; return the links in what comes for them."""
        fresh: List[bytes] = []
        reached = {path: resolve(self._work, path, self._bases) for path in links}
        # What is in another one's target comes with that.
        for link in sorted(links, key=lambda path: (reached[path].path or b"", path)):
            fresh += self._settle_one(link, reached[link])
        return fresh

    def _settle_one(self, link: bytes, reached: Resolved) -> List[bytes]:
        found = self._found
        found.paths.add(link)
        if not reached.kind:
            found.nowhere.append(link)
            return []
        if reached.path is None:
            if link not in reached.links:
                # A folder on the way leads out, and it is not among the outputs.
                found.targets[link] = os.path.realpath(os.path.join(self._work, link))
            return []
        place = self._place(reached.path)
        if place is None and not self._holds_outputs(reached.path):
            found.places[reached.path] = link
            found.through.add(link)
            return self._walk(link, follow=True) if reached.kind == "d" else []
        if place is None:
            place = reached.path
        if not self._works(link, place, reached):
            above = os.path.dirname(link)
            found.targets[link] = os.path.relpath(
                os.path.join(b"/", place), os.path.join(b"/", above)
            )
        return []

    def _place(self, path: bytes) -> Optional[bytes]:
        """Return the path under which the client has a place in the work folder."""
        rest: List[bytes] = []
        above = path
        while True:
            if above in self._found.places:
                return b"/".join([self._found.places[above], *reversed(rest)])
            if not above:
                break
            above, _, name = above.rpartition(b"/")
            rest.append(name)
        return path if self._here(path) else None

    def _holds_outputs(self, path: bytes) -> bool:
        top = path + b"/" if path else b""
        places = self._found.places.items()
        return any(path == place and path.startswith(top) for path, place in places)

    def _works(self, link: bytes, place: bytes, reached: Resolved) -> bool:
        """Tell whether the link leads to the same place if it comes as it is."""
        if place != reached.path or reached.links[:1] != [link]:
            return False
        text = os.readlink(os.path.join(self._work, link))
        return not text.startswith(b"/") and all(
            self._place(one) == one for one in reached.links[1:]
        )

    def _walk(self, path: bytes, *, follow: bool = False) -> List[bytes]:
        try:
            walked = manifest.walk(self._work, path, follow=follow)
        except (FileNotFoundError, NotADirectoryError):
            # A job that runs has just removed it.
            return []
        self._found.paths.update(walked.paths)
        return walked.links


def resolve(work: bytes, path: bytes, bases: Iterable[bytes]) -> Resolved:
    """
    Follow a path below *work* through the links on its way, as the system does.

    Args:
        bases: The absolute paths that are the work folder.

    Raises:
        OSError: A folder on the way cannot be looked into.
    """
    here: List[bytes] = []
    ahead = path.split(b"/")[::-1] if path else []
    links: List[bytes] = []
    kind = "d"
    while ahead:
        part = ahead.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not here:
                return Resolved(None, _kind(work, path), links)
            here.pop()
            kind = "d"
            continue
        here.append(part)
        place = b"/".join(here)
        text = b""
        try:
            mode = os.lstat(os.path.join(work, place)).st_mode
            if stat.S_ISLNK(mode):
                text = os.readlink(os.path.join(work, place))
        except (FileNotFoundError, NotADirectoryError):
            return Resolved(b"/".join([*here, *reversed(ahead)]), "", links)
        kind = _named(mode)
        if not stat.S_ISLNK(mode):
            continue
        links.append(place)
        if len(links) > MOST_LINKS:
            return Resolved(place, "", links)
        here.pop()
        if text.startswith(b"/"):
            inside = _below(text, bases)
            if inside is None:
                return Resolved(None, _kind(work, path), links)
            here, text = [], inside
        ahead.extend(text.split(b"/")[::-1])
        kind = "d"
    return Resolved(b"/".join(here), kind, links)


def retargeted(entries: List[Entry], targets: Dict[bytes, bytes]) -> List[Entry]:
    """Return the entries with these texts of links, of missing ones as well."""
    if not targets:
        return entries
    fresh = {path: Entry(path, "l", 0o777, target=targets[path]) for path in targets}
    return sorted([e for e in entries if e.path not in fresh] + [*fresh.values()])


def root_path(name: str) -> bytes:
    """Return the path of a root in the work folder. Raises `Hostile`."""
    root = raw(name).rstrip(b"/")
    if root in (b"", b"."):
        return b""
    check_path(root)
    return root


def _below(path: bytes, bases: Iterable[bytes]) -> Optional[bytes]:
    for base in bases:
        if path == base or path.startswith(base + b"/"):
            return path[len(base) :]
    return None


def _is_link(work: bytes, path: bytes) -> bool:
    return os.path.islink(os.path.join(work, path))


def _kind(work: bytes, path: bytes) -> str:
    """Return the kind of what a path leads to, wherever that is."""
    try:
        return _named(os.stat(os.path.join(work, path)).st_mode)
    except OSError:
        return ""


def _named(mode: int) -> str:
    return "d" if stat.S_ISDIR(mode) else "f" if stat.S_ISREG(mode) else ""
