"""The provider `slurm`: boxes that are folders on a cluster, whose jobs Slurm runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from onebox import formatting
from onebox.agent.file_names import printable
from onebox.errors import ConfigError, OneboxError, ProviderError, UsageError
from onebox.providers.base import Provider
from onebox.providers.kernel.images import newest_first
from onebox.providers.slurm import doctor, partitions, records
from onebox.providers.slurm.login_node import LoginNode
from onebox.providers.slurm.settings import SlurmSettings
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

T = TypeVar("T")
_DEFAULT = "default partition"


class Slurm(Provider):
    """
    A provider of folders on a cluster, which its user reaches by ssh.

    Nothing is created but folders and jobs of the user, and nothing is billed by
    onebox: what a job costs is between the user and the cluster.

    Raises:
        ConfigError: The settings do not name a login node.
    """

    name = "slurm"
    own_system = False
    image_rate = 0.0
    powers_off = False

    def __init__(self, settings: SlurmSettings, root: Path) -> None:
        if not settings.host:
            raise ConfigError(
                "[slurm] host is missing: the login node of the cluster",
                next='onebox.toml: [slurm] host = "login.example.edu"',
            )
        self._settings = settings
        self._login = LoginNode(settings)
        self._facts: Mapping[str, Any] | None = None

    def log_in(self) -> None:
        """Open the shared connection; ssh may ask for a password in the terminal."""
        self._login.log_in()

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """
        Return one offer: what a job asks the cluster for.

        Raises:
            UsageError: All nodes of the partition together are too small.
        """
        if not requirements.cpus:
            raise UsageError(
                f"the size {requirements.name} names machine types only",
                next="on Slurm a size needs cpus and memory",
            )
        offer = Offer(
            name=requirements.name,
            type=self._settings.partition or _DEFAULT,
            cpus=requirements.cpus,
            memory=requirements.memory,
            machine_price=0.0,
            machine_on_demand=0.0,
            place=self._login.host,
            arch=printable(str(self.facts().get("arch", ""))[:40]),
        )
        partitions.check(self.facts(), self._settings.partition)
        total = partitions.total(self.facts(), self._settings.partition)
        if total and (offer.cpus > total.cpus or offer.memory > total.memory):
            raise UsageError(
                f"{self._settings.partition or _DEFAULT} has less than "
                f"{_amount(offer.cpus, offer.memory)} in all: {self._has}",
                next="another --vm, or [slurm] partition",
            )
        return [offer]

    def check_task(self, cpus: int, memory: int, *, of_map: bool) -> None:
        """Raise UsageError if no node is large enough for a job, or a task of one."""
        partitions.check(self.facts(), self._settings.partition)
        if not of_map:
            missing = self._missing(cpus, memory)
            if missing:
                raise UsageError(missing, next="another --vm, or [slurm] partition")
            return
        for key, need in (
            ("cpus", (cpus, 0)),
            ("memory", (1, memory)),
            ("cpus and memory", (cpus, memory)),
        ):
            missing = self._missing(*need)
            if missing:
                raise UsageError(
                    f"[map] {key}: {missing}",
                    next=f"less [map] {key} for a unit, or [slurm] partition",
                )

    def _missing(self, cpus: int, memory: int) -> str:
        """Return that no node has so much, "" if one has."""
        facts, partition = self.facts(), self._settings.partition
        if partitions.can_run(facts, partition, cpus, memory):
            return ""
        needs = _amount(cpus, memory)
        return f"no node of {partition or _DEFAULT} has {needs}: {self._has}"

    @property
    def _has(self) -> str:
        """What the cluster has, as a phrase."""
        return f"{self._login.host} has {partitions.describe(self.facts())}"

    def longest_job(self, seconds: float) -> float:
        """Return the time limit of a job: `time`, or that of the partition."""
        if self._settings.time:
            return partitions.seconds_of(self._settings.time)
        limit = partitions.time_limit(self.facts(), self._settings.partition)
        # Slurm would accept a job with a longer limit, and never start it.
        return seconds if limit is None else min(seconds, limit.minutes * 60)

    def job_limit(self, seconds: float) -> tuple[str, str]:
        """Return what limits the time of a job, and the setting that can change it."""
        if self._settings.time:
            return f'[slurm] time = "{self._settings.time}"', "[slurm] time"
        limit = partitions.time_limit(self.facts(), self._settings.partition)
        if limit is None or limit.minutes * 60 >= seconds:
            return super().job_limit(seconds)
        what = f"{limit.text}, the limit of partition {limit.partition}"
        return what, "[slurm] partition"

    def egress_rate(self, place: str) -> float | None:
        """Return 0, because a cluster does not bill for traffic."""
        return 0.0

    def base(self, name: str = "", arch: str = "") -> str:
        """Return the system of the login node, to which an environment is bound."""
        facts = self.facts()
        return printable(f"{facts.get('system')} {facts.get('arch')}"[:100])

    def now(self) -> float:
        """Return the time (epoch seconds) of this machine."""
        return time.time()

    def create(self, request: Request) -> Box:
        """Create the folder of a box; see `Provider.create`."""
        seconds = max(request.boot_config.deadline - self.now(), 60)
        minutes = math.ceil(self.longest_job(seconds) / 60)
        notes = []
        if minutes < math.floor(seconds / 60) and not self._settings.time:
            limit = partitions.time_limit(self.facts(), self._settings.partition)
            assert limit is not None
            notes = [f"a job has at most {limit.text}, the limit of {limit.partition}"]
        record = {
            "tags": asdict(request.tags),
            "offer": asdict(request.offer),
            "image": request.image.id if request.image else "",
            "notes": notes,
        }
        cpus, memory = request.offer.cpus, request.offer.memory
        if request.tags.kind == "builder":
            # It is made for a map too, which may be larger than a node.
            facts, partition = self.facts(), self._settings.partition
            cpus, memory = partitions.of_one_node(facts, partition, cpus, memory)
        scheduler = {
            "cpus": cpus,
            "memory": memory,
            "minutes": minutes,
            "options": list(self._settings.sbatch_options),
        }
        on_login_node = self._settings.build == "login"
        answer = self._login.call(
            "create",
            box=request.box,
            record=record,
            scheduler=scheduler,
            on_login_node=request.tags.kind == "builder" and on_login_node,
        )
        return self._box(answer)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return the owner's boxes and builders on the cluster."""
        answer = self._login.call("find", owner=owner)
        return self._readable(answer, "boxes", self._box)

    def get(self, box: str, place: str = "") -> Box | None:
        """Return the present state of the box *box*, None if it does not exist."""
        answer = self._login.call("get", box=box).get("box")
        return None if answer is None else self._box(answer)

    def start(self, box: Box, deadline: float) -> Box:
        """Mark a stopped box as running."""
        return self._power(box, stopped=False)

    def stop(self, box: Box) -> None:
        """End the jobs of a box, and mark it as stopped."""
        self._power(box, stopped=True)

    def delete(self, box: Box) -> None:
        """End the jobs of a box, and remove its folder."""
        self._login.call("delete", box=box.id, tags=asdict(box.tags))

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Return the jobs in the queue and the folders that still exist of a box."""
        found = self._list(self._login.call("leftovers", box=box), "leftovers")
        return [
            Leftover(printable(str(one[0])), printable(str(one[-1])), 0.0)
            for one in found
            if isinstance(one, list) and one
        ]

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images on the cluster, newest first."""
        answer = self._login.call("images", owner=owner)
        host = self._login.host
        return newest_first(
            self._readable(answer, "images", lambda one: records.image(one, host))
        )

    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """Make a copy of the home of a stopped box an image."""
        answer = self._login.call(
            "save", box=box.id, tags=asdict(box.tags), image=_fields(image)
        )
        return records.image(answer, self._login.host)

    def delete_image(self, image: Image) -> None:
        """Delete an image. Its files stay as long as a box uses them."""
        self._login.call("delete_image", image=_fields(image))

    def console(self, box: Box) -> str:
        """Return "": a folder has no console."""
        return ""

    def checks(self) -> Sequence[Check]:
        """Check the login, Slurm, and the folder of the boxes."""
        try:
            facts = self.facts()
        except OneboxError as error:
            return [Check("login", False, error.message, error.next)]
        return doctor.checks(self._login.host, facts, self._settings)

    def facts(self) -> Mapping[str, Any]:
        """Return what the login node reports about the cluster; it is asked once."""
        if self._facts is None:
            self._facts = self._login.call("facts")
        return self._facts

    def _readable(
        self, answer: Mapping[str, Any], name: str, read: Callable[[Any], T]
    ) -> list[T]:
        """
        Return what can be read of the list *name* in an answer.

        What cannot be read is named in `unreadable`, and hides nothing else. What could
        not be removed is named in `undeletable`.
        """
        found, unreadable = [], records.unreadable(answer, self._login.host)
        for one in self._list(answer, name):
            try:
                found.append(read(one))
            except ProviderError as error:
                unreadable[records.name_of(one)] = error.message
        self.unreadable = unreadable
        self.undeletable = records.undeletable(answer, self._login.host)
        return found

    def _list(self, answer: Mapping[str, Any], name: str) -> Sequence[Any]:
        """Return the list *name* in an answer."""
        found = answer.get(name)
        if not isinstance(found, list):
            raise ProviderError(
                f"{self._login.host} sent an answer that is not valid",
                next="inv doctor",
            )
        return found

    def _power(self, box: Box, *, stopped: bool) -> Box:
        answer = self._login.call(
            "power", box=box.id, tags=asdict(box.tags), stopped=stopped
        )
        return self._box(answer)

    def _box(self, answer: Mapping[str, Any]) -> Box:
        """Return the box in an answer. Raises ProviderError if it is invalid."""
        return records.box(answer, self._login.host, self._login.options())


def _amount(cpus: int, memory: int) -> str:
    """Return CPUs, and memory unless it is 0, as a phrase."""
    text = formatting.count(cpus, "CPU")
    return f"{text} and {formatting.byte_count(memory)}" if memory else text


def _fields(image: Image) -> dict[str, Any]:
    return asdict(image)
