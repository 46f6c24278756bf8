"""
The folder of a job on a node of the cluster, and the plan that it was given.

Ray unpacks a package once on each node, and shares it among all jobs that use it. So a
job runs in a copy of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import tempfile
import time
from typing import Any, Dict, Iterator, NamedTuple

from .. import bytecode
from ..box import BoxConfig
from ..box import read as read_file
from ..jobs import durable, exec, stored_plan
from ..units import plan as unit_plan
from . import archive, package

READY = "ready"


class GivenPlan(NamedTuple):
    """
    What the client has given to a job.

    *folder* is where its package is on this node. *fields* are those that
    `engine.prepare` has written.
    """

    folder: str
    fields: Dict[str, Any]

    @property
    def box(self) -> str:
        """The id of the box."""
        return str(self.fields["box"])

    @property
    def job(self) -> str:
        """The id of the job."""
        return str(self.fields["job"])

    @property
    def storage(self) -> str:
        """The folder that all nodes and the client see, "" without one."""
        return str(self.fields["storage"])

    def job_plan(self) -> exec.JobPlan:
        """Return the plan of the job, with the variables of this node."""
        plan = stored_plan.decode(json.dumps(self.fields["plan"]).encode("ascii"))
        return plan._replace(environment={**self._variables(), **plan.environment})

    def units(self) -> bytes:
        """Return the contents of the file of the job's units, b"" if it has none."""
        return read_file(os.path.join(self.folder, package.UNITS))

    def forget(self) -> None:
        """Remove the file of the plan from the node."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.folder, package.PLAN))

    def _variables(self) -> Dict[bytes, bytes]:
        """Return the variables of this node, without the folders of the packages."""
        found = dict(os.environb)
        ours = {os.fsencode(self.folder), os.fsencode(os.getcwd())}
        paths = [
            path
            for path in found.pop(b"PYTHONPATH", b"").split(b":")
            if path and path not in ours
        ]
        if paths:
            found[b"PYTHONPATH"] = b":".join(paths)
        return found


def given(folder: str = "") -> GivenPlan:
    """
    Return the plan of the job. Raises OSError, ValueError if there is none.

    Args:
        folder: Where its package is; "" means one of those that Ray names.
    """
    for one in [folder, *os.environ.get("PYTHONPATH", "").split(":")]:
        data = read_file(os.path.join(one, package.PLAN)) if one else b""
        if data:
            return GivenPlan(one, json.loads(data))
    raise FileNotFoundError(2, "the package of the job is not here", package.PLAN)


class Scratch:
    """The folder of a job on this node; its name is that of the box and the job."""

    def __init__(self, plan: GivenPlan) -> None:
        self._plan = plan
        name = "onebox-ray-%d" % os.getuid()
        self._parent = os.path.join(tempfile.gettempdir(), name)
        self.path = os.path.join(self._parent, "%s-%s" % (plan.box, plan.job))
        self.work = os.path.join(self.path, "work")
        self.directory = os.path.join(self.path, "jobs", plan.job)
        # Its folder is the root of the box, for the modes that need one.
        self.agent = os.path.join(self.path, package.AGENT)

    def prepare(self) -> BoxConfig:
        """
        Create the folder, unless another process of this node has; return its box.

        Raises OSError, for example if another user has made the folder above it.
        """
        os.makedirs(self._parent, mode=0o700, exist_ok=True)
        st = os.lstat(self._parent)
        if (
            not stat.S_ISDIR(st.st_mode)
            or st.st_uid != os.getuid()
            or st.st_mode & 0o22
        ):
            raise PermissionError(1, "it belongs to another user", self._parent)
        with self._locked():
            if not os.path.exists(os.path.join(self.path, READY)):
                shutil.rmtree(self.path, ignore_errors=True)
                self._make()
        return BoxConfig.load(self.path)

    def remove(self) -> None:
        """Remove the folder, and the plan; what cannot be removed is left."""
        self._plan.forget()
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.unlink(self.path + ".lock")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(self.path + ".lock", flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make(self) -> None:
        for folder in (self.path, self.work, os.path.join(self.path, "jobs")):
            os.mkdir(folder, 0o700)
        os.mkdir(self.directory, 0o700)
        shutil.copyfile(os.path.abspath(package.AGENT), self.agent)
        compiled = bytecode.compiled()
        if compiled:
            name = os.path.basename(compiled)
            shutil.copyfile(compiled, os.path.join(self.path, name))
        with open(self._code(), "rb") as file:
            archive.Reader(file, os.fsencode(self.work)).read()
        fields = self._plan.fields
        for root in fields["outputs"]:
            os.makedirs(os.path.join(self.work, root), exist_ok=True)
        config = {
            "box": self._plan.box,
            "work": self.work,
            "home": os.environ.get("HOME", self.path),
            "armed": time.time(),
            "deadline": 0.0,
            "setup_grace": 0.0,
            "idle_grace": 0.0,
            "poweroff": [],
            "boot_id": "",
        }
        durable.save_json(self.path, "box.json", config)
        units = self._plan.units()
        if units:
            durable.save(self.directory, unit_plan.NAME, units)
        durable.save(self.path, READY, b"")

    def _code(self) -> str:
        """Return the path of the archive of the code."""
        if not self._plan.storage:
            return os.path.abspath(package.WORK)
        path = os.path.join(self._plan.storage, package.WORK)
        if not os.path.exists(path):
            raise FileNotFoundError(
                2, "this node does not see [ray] storage", self._plan.storage
            )
        return path
