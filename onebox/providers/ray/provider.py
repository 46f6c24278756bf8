"""The provider `ray`: boxes that are folders here, whose jobs a Ray cluster runs."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onebox import agent_bundle, formatting
from onebox.agent.folders import lifecycle
from onebox.agent.folders.removal import remove
from onebox.agent.folders.root import RECORDS, Refusal, Root, check_owner, write_json
from onebox.errors import (
    ConfigError,
    NoCredentials,
    NotAllowed,
    OneboxError,
    ProviderError,
    UsageError,
)
from onebox.providers.base import Provider
from onebox.providers.kernel.user_ssh import LoginFailed, UserSSH
from onebox.providers.ray import records
from onebox.providers.ray.cluster import Cluster, largest, reach, title
from onebox.providers.ray.settings import RaySettings
from onebox.providers.values import (
    Box,
    Check,
    Image,
    Leftover,
    Offer,
    Request,
    Requirements,
    SaveProgress,
    ignore_progress,
)

# A job whose submission was interrupted may appear on the cluster so much later (s).
ARRIVING = 20.0


class Ray(Provider):
    """
    A provider of folders on this machine, whose jobs a Ray cluster runs.

    Nothing is created on the cluster but jobs, and nothing is billed by onebox.

    Args:
        root: The folder of the local boxes; those of this provider are beside it.

    Raises:
        ConfigError: The settings do not name a cluster.
    """

    name = "ray"
    own_system = False
    image_rate = 0.0
    powers_off = False
    downloads_data = False

    def __init__(self, settings: RaySettings, root: Path) -> None:
        if not settings.host and not settings.address:
            raise ConfigError(
                "[ray] host is missing: the head of the cluster, as your ssh knows it",
                next="export ONEBOX_RAY_HOST=head.example.edu; on this machine: export "
                "ONEBOX_RAY_ADDRESS=http://127.0.0.1:8265",
            )
        self._settings = settings
        self._root = Root(f"{root}-ray")
        self._cluster = Cluster(reach(settings), title(settings))

    def log_in(self) -> None:
        """Open the shared connection; ssh may ask for a password in the terminal."""
        if self._settings.host:
            try:
                UserSSH(self._settings.host, self._settings.ssh_config).log_in()
            except LoginFailed as error:
                host = self._settings.host
                raise NotAllowed(
                    f"{host} cannot be reached: {error}", next=f"ssh {host} true"
                ) from error

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """
        Return one offer: what a job asks the cluster for.

        Raises:
            UsageError: All nodes of the cluster together are too small.
        """
        if not requirements.cpus:
            raise UsageError(
                f"the size {requirements.name} names machine types only",
                next="on Ray a size needs cpus and memory",
            )
        storage = self._settings.storage
        if storage and not Path(storage).is_dir():
            raise ConfigError(
                f"[ray] storage: {storage} is not a folder of this machine",
                next="a folder that this machine and all nodes see",
            )
        nodes = self._cluster.nodes()
        cpus, memory = requirements.cpus, requirements.memory
        if sum(one.cpus for one in nodes) < cpus or (
            sum(one.memory for one in nodes) < memory
        ):
            raise UsageError(
                f"{self._cluster.name} has less than {_amount(cpus, memory)} in all: "
                f"{largest(nodes)}",
                next="a smaller --vm",
            )
        return [
            Offer(
                name=requirements.name,
                type="Ray",
                cpus=requirements.cpus,
                memory=requirements.memory,
                machine_price=0.0,
                machine_on_demand=0.0,
                place=self._cluster.name,
            )
        ]

    def check_task(self, cpus: int, memory: int, *, of_map: bool) -> None:
        """
        Raise UsageError if no node is large enough for a job or a unit.

        Ray itself would let it wait without an end.
        """
        nodes = self._cluster.nodes()
        if any(node.cpus >= cpus and node.memory >= memory for node in nodes):
            return
        raise UsageError(
            f"{'[map] cpus and memory: ' if of_map else ''}no node has "
            f"{_amount(cpus, memory)}: {self._cluster.name} has {largest(nodes)}",
            next="less [map] cpus or memory for a unit" if of_map else "a smaller --vm",
        )

    def egress_rate(self, place: str) -> float | None:
        """Return 0, because a cluster does not bill for traffic."""
        return 0.0

    def base(self, name: str = "", arch: str = "") -> str:
        """Return the version of Ray, to which an environment is bound."""
        return f"Ray {self._cluster.version()}"

    def create(self, request: Request) -> Box:
        """Create the folder of a box; see `Provider.create`."""
        with self._refusals():
            self._root.claim()
            if not Path(self._root.box(request.box)).is_dir():
                self._make(request)
            record = self._root.existing(request.box)
            check_owner(request.box, record, asdict(request.tags))
            return self._box(request.box, record)

    def _make(self, request: Request) -> None:
        """Create the folder of a box, which has another name until it is complete."""
        fresh = Path(lifecycle.begin(self._root, "boxes", request.box))
        cluster = {"where": reach(self._settings), "name": self._cluster.name}
        try:
            # The record comes first, so that the owner of the folder is always known.
            record = records.new(request, cluster, self._settings)
            write_json(str(fresh / RECORDS["boxes"]), record)
            for folder in ("jobs", "files", "work", "home"):
                (fresh / folder).mkdir(mode=0o700)
            (fresh / "agent.pyz").write_bytes(agent_bundle.bundle())
            name, bytecode = agent_bundle.bytecode()
            (fresh / name).write_bytes(bytecode)
            config = records.box_json(request, self._root, cluster, self._settings)
            write_json(str(fresh / "box.json"), config)
            lifecycle.complete(str(fresh), self._root.box(request.box))
        except BaseException:
            remove(str(fresh))
            raise

    def other_place(self, box: Box) -> str:
        """Return the name of the box's cluster if [ray] names another one."""
        return "" if box.host == self._cluster.name else box.host

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return the owner's boxes; each names the cluster that it was made for."""
        found, unreadable = [], {}
        with self._refusals():
            left = lifecycle.sweep(self._root, "boxes", owner)
            for name in self._root.names("boxes"):
                if name.startswith("."):
                    continue
                record = self._root.record(name)
                if record is None:
                    folder = self._root.box(name)
                    unreadable[name] = f"{folder} has no valid record"
                elif record["tags"].get("owner") == owner:
                    found.append(self._box(name, record))
        self.unreadable = unreadable
        self.undeletable = [f"{one['folder']}: {one['why']}" for one in left]
        return found

    def get(self, box: str, place: str = "") -> Box | None:
        """Return the present state of the box *box*, None if it does not exist."""
        if not os.path.lexists(self._root.box(box)):
            return None
        with self._refusals():
            return self._box(box, self._root.existing(box))

    def start(self, box: Box, deadline: float) -> Box:
        """Mark a stopped box as running."""
        return self._power(box, stopped=False)

    def stop(self, box: Box) -> None:
        """End the jobs of a box, and mark it as stopped."""
        with self._refusals():
            record = self._root.existing(box.id)
            check_owner(box.id, record, asdict(box.tags))
            self._end_jobs(box.id, record)
        self._power(box, stopped=True)

    def _power(self, box: Box, *, stopped: bool) -> Box:
        with self._refusals():
            record = self._root.existing(box.id)
            check_owner(box.id, record, asdict(box.tags))
            record["stopped"] = stopped
            path = Path(self._root.box(box.id), RECORDS["boxes"])
            write_json(str(path), record)
            return self._box(box.id, record)

    def delete(self, box: Box) -> None:
        """
        End the jobs of a box, remove what they have left, and remove its folder.

        Raises:
            ProviderError: The cluster does not answer, so a job may still run.
        """
        with self._refusals():
            for name in (box.id, lifecycle.DELETED + box.id):
                record = self._root.record(name)
                if record is None:
                    continue
                check_owner(box.id, record, asdict(box.tags))
                if self._jobs(name):
                    self._end_jobs(name, record)
                    self._remove_traces(name, box.id, record)
            lifecycle.delete(self._root, "boxes", box.id)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Return the folders that still exist of a box."""
        return [
            Leftover("folder", self._root.box(name), 0.0)
            for name in (box, lifecycle.DELETED + box)
            if os.path.lexists(self._root.box(name))
        ]

    def images(self, owner: str) -> Sequence[Image]:
        """Return []: the environment of a job is the cluster's."""
        return []

    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """Raise UsageError: a Ray cluster saves no images."""
        raise UsageError(
            "a Ray cluster saves no images",
            next="[image] requirements: Ray installs them for each job",
        )

    def delete_image(self, image: Image) -> None:
        """Do nothing: there are no images."""

    def console(self, box: Box) -> str:
        """Return "": a folder has no console."""
        return ""

    def checks(self) -> Sequence[Check]:
        """Check the way to the cluster, its nodes, and the storage."""
        try:
            version, nodes = self._cluster.version(), self._cluster.nodes()
        except OneboxError as error:
            return [Check("cluster", False, error.message, error.next)]
        found = [
            Check("cluster", True, f"{self._cluster.name}, Ray {version}"),
            Check("nodes", bool(nodes), largest(nodes)),
        ]
        storage = self._settings.storage
        if storage:
            there = Path(storage).is_dir() and os.access(storage, os.W_OK)
            detail = storage if there else f"{storage} is not a folder you can write to"
            found.append(Check("storage", there, detail, "[ray] storage"))
        return found

    def _jobs(self, name: str) -> list[str]:
        """Return the jobs in the folder *name* of a box."""
        try:
            found = list(Path(self._root.box(name), "jobs").iterdir())
        except FileNotFoundError:
            return []
        return [path.name for path in found if not path.name.startswith(".")]

    def _end_jobs(self, name: str, record: Mapping[str, Any]) -> None:
        id = name.removeprefix(lifecycle.DELETED)
        unclear = False
        for job in self._jobs(name):
            # A process that watches the job does not submit it again.
            path = Path(self._root.box(name), "jobs", job, "cancel")
            if path.parent.is_dir() and not path.exists():
                path.write_text('{"cause": "cancel"}')
            tried, submitted = path.with_name("tried"), path.with_name("submitted")
            unclear = unclear or (tried.exists() and not submitted.exists())
        try:
            # An agent that submits a job holds this lock.
            with _start_lock(Path(self._root.box(name), "jobs", ".lock")):
                self._cluster_of(record).end_jobs(id, ARRIVING if unclear else 0.0)
        except NoCredentials:
            raise
        except OneboxError as error:
            folder = self._root.box(name)
            error.next = (
                f"the same command again; if the cluster is gone for good: rm -r "
                f"{formatting.path(folder)}"
            )
            raise

    def _remove_traces(self, name: str, id: str, record: Mapping[str, Any]) -> None:
        jobs = Path(self._root.box(name), "jobs")
        everywhere = any(jobs.glob("*/units.json"))
        self._cluster_of(record).clean(id, everywhere=everywhere)
        storage = str(record.get("storage") or "")
        if storage:
            for job in self._jobs(name):
                shutil.rmtree(Path(storage, f"{id}-{job}"), ignore_errors=True)

    def _cluster_of(self, record: Mapping[str, Any]) -> Cluster:
        """Return the cluster that a box was made for."""
        cluster = record["cluster"]
        where = dict(cluster["where"])
        if cluster["name"] == self._cluster.name:
            # The way may have changed, such as the name of the token's variable.
            where = reach(self._settings)
        return Cluster(where, str(cluster["name"]))

    def _box(self, id: str, record: Mapping[str, Any]) -> Box:
        return records.box(id, self._root.box(id), record)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raise the errors of onebox for those of the folders."""
        try:
            yield
        except Refusal as refusal:
            if refusal.kind == "owner":
                raise NotAllowed(
                    str(refusal), next="inv status; inv cleanup lists what is yours"
                ) from refusal
            raise ProviderError(str(refusal), next="inv doctor") from refusal
        except OSError as error:
            where = error.filename or self._root.path
            raise ProviderError(
                f"{where}: {error.strerror}", next="inv doctor"
            ) from error


@contextmanager
def _start_lock(path: Path) -> Iterator[None]:
    """Hold the lock on starting jobs; wait for it, but not without an end."""
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        yield
        return
    with file:
        end = time.monotonic() + ARRIVING
        while time.monotonic() < end:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.1)
        yield


def _amount(cpus: int, memory: int) -> str:
    """Return CPUs, and memory unless it is 0, as a phrase."""
    text = formatting.count(cpus, "CPU")
    return f"{text} and {formatting.byte_count(memory)}" if memory else text
