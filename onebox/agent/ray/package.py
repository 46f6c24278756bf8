"""
Make the two packages of a job: what all jobs of the same code share, and its plan.

Ray stores packages under their names and keeps one that is used. So the package of the
code has a name that is made of its contents, and is sent once. A package is a zip
archive, whose files lose their modes and links, so the code is in an archive of ours.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
import zipfile
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Tuple

from ..box import BoxConfig
from ..box import read as read_file
from ..file_names import show
from . import archive, jobs_api

AGENT, WORK = "agent.pyz", "work"
PLAN, UNITS = "onebox-plan.json", "onebox-units.json"
# So many of the largest files are named if a package is too large.
NAMED = 3
CHUNK = 1 << 20


class TooLarge(Exception):
    """The cluster would refuse a package, because it is too large."""


class Package(NamedTuple):
    """A package in a file of this machine; *uri* is its name on the cluster."""

    name: str
    path: str

    @property
    def uri(self) -> str:
        """The name as a job's runtime environment has it."""
        return "gcs://" + self.name


def make_code(box: BoxConfig, directory: str, outputs: Iterable[str]) -> Package:
    """
    Make the package of the agent and of all files of the box but *outputs*.

    Args:
        directory: The job's directory, where its file is.

    Raises:
        TooLarge: The cluster would refuse it.
    """
    path = os.path.join(directory, "code.zip")
    work = os.fsencode(box.work)
    without = [os.path.normpath(os.fsencode(name)) for name in outputs]

    def paths() -> Iterator[bytes]:
        for one in archive.walk(work, [b""], without):
            if os.path.getsize(path) > jobs_api.LARGEST_PACKAGE:
                raise TooLarge(_largest(work, without))
            yield one

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zip:
        _add(zip, AGENT, read_file(os.path.abspath(sys.argv[0])))
        if not box.scheduler.get("storage"):
            with zip.open(_info(WORK), "w", force_zip64=True) as file:
                _all(archive.write(file, work, paths()))
    if os.path.getsize(path) > jobs_api.LARGEST_PACKAGE:
        raise TooLarge(_largest(work, without))
    return _named(path)


def store_code(box: BoxConfig, folder: str, outputs: Iterable[str]) -> None:
    """Write the files of the box but *outputs* to a folder that all nodes see."""
    work = os.fsencode(box.work)
    without = [os.path.normpath(os.fsencode(name)) for name in outputs]
    with open(os.path.join(folder, WORK), "wb") as file:
        _all(archive.write(file, work, archive.walk(work, [b""], without)))


def make_plan(directory: str, plan: Dict[str, Any], units: bytes) -> Package:
    """Make the package of what only this job has."""
    path = os.path.join(directory, "plan.zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zip:
        _add(zip, PLAN, json.dumps(plan).encode("ascii"))
        if units:
            _add(zip, UNITS, units)
    return _named(path)


def send(cluster: jobs_api.RayCluster, package: Package) -> None:
    """Send a package, unless the cluster has it. Raises `jobs_api.RayError`."""
    if not cluster.has_package(package.name):
        with open(package.path, "rb") as file:
            cluster.put_package(package.name, file, os.path.getsize(package.path))


def _all(unreadable: List[bytes]) -> None:
    """Raise OSError if a file of the box cannot be read, so that it is not sent."""
    if unreadable:
        raise PermissionError(errno.EACCES, "it cannot be read", show(unreadable[0]))


def _largest(work: bytes, without: Iterable[bytes]) -> str:
    """Return the sentence that names the largest files of a package."""
    sizes: List[Tuple[int, bytes]] = []
    for path in archive.walk(work, [b""], without):
        st = os.lstat(os.path.join(work, path))
        if stat.S_ISREG(st.st_mode):
            sizes.append((st.st_size, path))
    largest = sorted(sizes, reverse=True)[:NAMED]
    names = ", ".join("%s (%d MB)" % (show(name), size >> 20) for size, name in largest)
    return (
        "code and data have %d MB, and Ray takes at most %d MB when they are packed; "
        "the largest files: %s"
        % (sum(size for size, _ in sizes) >> 20, jobs_api.LARGEST_PACKAGE >> 20, names)
    )


def _named(path: str) -> Package:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for data in iter(lambda: file.read(CHUNK), b""):
            digest.update(data)
    return Package("_ray_pkg_%s.zip" % digest.hexdigest()[:32], path)


def _add(zip: zipfile.ZipFile, name: str, data: bytes) -> None:
    with zip.open(_info(name), "w") as file:
        file.write(data)


def _info(name: str) -> zipfile.ZipInfo:
    # With a fixed time, the same contents make the same package.
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    return info
