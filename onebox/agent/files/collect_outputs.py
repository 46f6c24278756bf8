"""
Collect the paths of the outputs, and decide how each link among them is fetched.

A link to another output, or to a path that the client already has, is fetched as a
link. So is a link to a folder that holds outputs, and a link out of the work folder. A
link to any other path in the work folder is replaced by what it leads to, because that
path is not fetched itself. Each such target is fetched once: it replaces the first link
to it, and further links to it become links to the first.
"""

from __future__ import annotations

import itertools
import os
import stat
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Set

from ..file_names import check_path, raw
from . import manifest
from .manifest import Entry

# Like Linux, onebox follows at most this many links on a path, and then assumes a loop.
MOST_LINKS = 40


class Resolved(NamedTuple):
    """
    Where a path leads when its links are followed.

    *path* is the target as a path in the work folder that contains no links. It is None
    if the target is outside of the work folder. *kind* is "f" for a file, "d" for a
    folder, and "" if the target is neither or does not exist. *links* are the links
    that were followed.
    """

    path: Optional[bytes]
    kind: str
    links: List[bytes]


class Outputs(NamedTuple):
    """
    The outputs of a work folder.

    *paths* are the paths of all outputs. *through* are the links that are replaced by
    what they lead to. *targets* maps each link that must change to its new target.
    *nowhere* are the links that lead to no file or folder. *missing* are the requested
    paths that do not exist. *places* maps paths in the work folder to the paths under
    which they are fetched.
    """

    paths: Set[bytes]
    through: Set[bytes]
    targets: Dict[bytes, bytes]
    nowhere: List[bytes]
    missing: List[str]
    places: Dict[bytes, bytes]


class OutputCollector:
    """
    Collects the outputs of a work folder.

    *on_client* returns whether the client already has everything at and below a path,
    unchanged.
    """

    def __init__(self, work: bytes, on_client: Callable[[bytes], bool]) -> None:
        self._work = work
        self._on_client = on_client
        self._bases = sorted({work, os.path.realpath(work)})
        self._outputs = Outputs(set(), set(), {}, [], [], {})

    def collect(self, roots: Iterable[str]) -> Outputs:
        """Return the outputs at and below the paths *roots*."""
        outputs, links, root_links = self._outputs, [], []
        for name in roots:
            path = root_path(name)
            reached = resolve(self._work, path, self._bases)
            if reached.path == path and reached.kind:
                outputs.places[path] = path
                links += self._walk(path)
            elif reached.kind or os.path.islink(os.path.join(self._work, path)):
                root_links.append(path)
            else:
                outputs.missing.append(name)
        links += self._add_links(root_links)
        while links:
            links = self._add_links(links)
        return outputs

    def _add_links(self, links: List[bytes]) -> List[bytes]:
        """
        Decide how *links* are fetched; return the links to decide next.

        Those are the links inside of the folders that replace some of *links*.
        """
        inner: List[bytes] = []
        reached = {path: resolve(self._work, path, self._bases) for path in links}
        # The links are sorted by their targets. So a link to a folder comes before the
        # links to paths in that folder.
        for link in sorted(links, key=lambda path: (reached[path].path or b"", path)):
            inner += self._add_link(link, reached[link])
        return inner

    def _add_link(self, link: bytes, reached: Resolved) -> List[bytes]:
        outputs = self._outputs
        outputs.paths.add(link)
        if not reached.kind:
            outputs.nowhere.append(link)
            return []
        if reached.path is None:
            if link not in reached.links:
                # An ancestor of this path is a link that leads out of the work folder.
                # The path is fetched as a link to its real target.
                target = os.path.realpath(os.path.join(self._work, link))
                outputs.targets[link] = target
            return []
        place = self._place(reached.path)
        if place is None and not self._holds_outputs(reached.path):
            outputs.places[reached.path] = link
            outputs.through.add(link)
            return self._walk(link, follow=True) if reached.kind == "d" else []
        if place is None:
            place = reached.path
        if not self._works_unchanged(link, place, reached):
            above = os.path.dirname(link)
            outputs.targets[link] = os.path.relpath(
                os.path.join(b"/", place), os.path.join(b"/", above)
            )
        return []

    def _place(self, path: bytes) -> Optional[bytes]:
        """
        Return the path at which the client has *path*, or gets it in this fetch.

        Return None if the client neither has *path* nor gets it.
        """
        rest: List[bytes] = []
        above = path
        while True:
            if above in self._outputs.places:
                return b"/".join([self._outputs.places[above], *reversed(rest)])
            if not above:
                break
            above, _, name = above.rpartition(b"/")
            rest.append(name)
        return path if self._on_client(path) else None

    def _holds_outputs(self, path: bytes) -> bool:
        top = path + b"/" if path else b""
        places = self._outputs.places.items()
        return any(path == place and path.startswith(top) for path, place in places)

    def _works_unchanged(self, link: bytes, place: bytes, reached: Resolved) -> bool:
        """
        Return whether *link*, if it is left unchanged, leads to *place* on the client.
        """
        if place != reached.path or reached.links[:1] != [link]:
            return False
        text = os.readlink(os.path.join(self._work, link))
        if text.startswith(b"/") or climbs_after_name(text):
            return False
        return all(self._place(other) == other for other in reached.links[1:])

    def _walk(self, path: bytes, *, follow: bool = False) -> List[bytes]:
        try:
            walked = manifest.walk(self._work, path, follow=follow)
        except (FileNotFoundError, NotADirectoryError):
            # A running job has just removed the folder.
            return []
        self._outputs.paths.update(walked.paths)
        return walked.links


def resolve(work: bytes, path: bytes, bases: Iterable[bytes]) -> Resolved:
    """
    Follow the links in *path* as the kernel does, and return where it leads.

    Args:
        path: A path in the folder *work*.

        bases: The absolute paths by which the work folder can be named.

    Raises:
        OSError: A folder on the way to the target cannot be read.
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
        kind = _kind_of(mode)
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


def climbs_after_name(target: bytes) -> bool:
    """
    Return whether a link's target has `..` after a name, as in a/../b.

    Where such a target leads depends on what that name is: if it becomes a link, `..`
    is the folder above the place that the link leads to.
    """
    names = [part for part in target.split(b"/") if part not in (b"", b".")]
    return b".." in itertools.dropwhile(lambda part: part == b"..", names)


def retargeted(entries: List[Entry], targets: Dict[bytes, bytes]) -> List[Entry]:
    """
    Return *entries* with a link at each path in *targets*.

    *targets* maps the path of a link to the link's target. The link replaces the entry
    at its path, if there is one.
    """
    if not targets:
        return entries
    fresh = {path: Entry(path, "l", 0o777, target=targets[path]) for path in targets}
    return sorted([e for e in entries if e.path not in fresh] + [*fresh.values()])


def root_path(name: str) -> bytes:
    """
    Return the path in the work folder that the client has requested as *name*.

    The path of the work folder itself is b"". Raises `Hostile` if *name* is not inside
    the work folder.
    """
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


def _kind(work: bytes, path: bytes) -> str:
    """
    Return "d" if *path* leads to a folder, "f" if it leads to a file, else "".

    The folder or file may be outside of the work folder.
    """
    try:
        return _kind_of(os.stat(os.path.join(work, path)).st_mode)
    except OSError:
        return ""


def _kind_of(mode: int) -> str:
    return "d" if stat.S_ISDIR(mode) else "f" if stat.S_ISREG(mode) else ""
