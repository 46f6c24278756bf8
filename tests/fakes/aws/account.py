"""
The state of an AWS account: moto's, and what EC2 has beyond moto.

moto stores the objects. Ours are the states that take time, client tokens, quotas,
capacity, spot requests, and the hooks for real machines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    create_backend_app,
)

from tests.fakes.aws import catalog, instances
from tests.fakes.aws.faults import Faults
from tests.fakes.aws.schema import ApiRequest

ACCOUNT = "123456789012"
ARN = f"arn:aws:iam::{ACCOUNT}:user/tester"


@dataclass(frozen=True)
class Call:
    """A call that the account accepted, with the objects and roles that it names."""

    service: str
    action: str
    region: str
    parameters: Mapping[str, Any]
    resources: tuple[tuple[str, Mapping[str, str]], ...] = ()
    passed_roles: tuple[str, ...] = ()


@dataclass
class Delays:
    """
    The seconds that an instance or image takes from one state to the next.

    If *stands_still* is true, the progress of a snapshot stays at 0%.
    """

    pending: float = 0.15
    stopping: float = 0.15
    ending: float = 0.15
    saving: float = 0.15
    stands_still: bool = False


@dataclass
class Kill:
    """The call at which a client process is killed: before or *after* its effect."""

    pid: int
    calls: int
    after: bool

    def is_due(self) -> bool:
        """Count a call; return whether the client dies at it."""
        self.calls -= 1
        return self.calls == 0


@dataclass
class Account:
    """
    The account's state, for handlers to change and for tests to read.

    Attributes:
        boot: Called with an instance when it starts to run.

        off: Called with an instance before it stops or terminates.

        saved: Called with an instance and the image that was created of its disk.

        address: Returns the public address of an instance.

        calls: All calls that were accepted.

        endpoints: The EC2 Instance Connect Endpoints.

        broken: The exceptions of the fake itself.

        skew: The seconds by which AWS's clock is ahead of this machine's.
    """

    faults: Faults = field(default_factory=Faults)
    delays: Delays = field(default_factory=Delays)
    calls: list[Call] = field(default_factory=list)
    boot: Callable[[Any], None] = lambda instance: None
    off: Callable[[Any], None] = lambda instance: None
    saved: Callable[[Any, Any], None] = lambda instance, image: None
    address: Callable[[Any], str] | None = None
    console: dict[str, str] = field(default_factory=dict)
    endpoints: list[dict[str, Any]] = field(default_factory=list)
    expired: bool = False
    hang_seconds: float = 30.0
    broken: list[Exception] = field(default_factory=list)
    skew: float = 0.0
    kill: Kill | None = None

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.lifecycles: dict[str, instances.Lifecycle] = {}
        self.tokens: dict[tuple[str, str], tuple[str, str]] = {}
        self.created_at: dict[str, float] = {}
        self.spot_requests: dict[str, dict[str, Any]] = {}
        self.used_regions: set[str] = set()
        self.released = threading.Event()
        self._moto = DomainDispatcherApplication(create_backend_app)

    def forward(
        self, request: ApiRequest, environ: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        """Return moto's own response to a request."""
        self.backend(request.region)
        response: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], exc: Any = None) -> None:
            response.update(status=int(status.split()[0]), headers=dict(headers))

        environ["wsgi.input"] = BytesIO(request.body)
        application: Any = self._moto.get_application(environ)
        body = b"".join(application(environ, start))
        return response["status"], response["headers"], body

    def backend(self, region: str) -> Any:
        """Return moto's backend of a region, with the public images."""
        found = ec2_backends[ACCOUNT][region]
        if region not in self.used_regions:
            self.used_regions.add(region)
            catalog.add_public_images(found)
        return found

    def tick(self) -> None:
        """Enter the states that are due."""
        for life in list(self.lifecycles.values()):
            life.tick(self)

    def instances(self, box: str = "") -> list[Any]:
        """Return all instances of a box, also terminated ones."""
        with self.lock:
            self.tick()
            return [
                one
                for region in self.used_regions
                for one in self.backend(region).all_instances()
                if not box or _tag(one, "onebox:box") == box
            ]

    def alive(self, box: str = "") -> list[Any]:
        """Return the instances that are not terminated."""
        return [one for one in self.instances(box) if one.state != "terminated"]

    def volumes(self, box: str) -> list[Any]:
        """Return the volumes of a box."""
        with self.lock:
            self.tick()
            return [
                one
                for region in self.used_regions
                for one in self.backend(region).volumes.values()
                if _tag(one, "onebox:box") == box
            ]

    def forget_ended(self) -> None:
        """Forget the terminated instances, as EC2 does within the hour."""
        with self.lock:
            for region in self.used_regions:
                reservations = self.backend(region).reservations
                for key, one in list(reservations.items()):
                    if all(
                        instance.state == "terminated" for instance in one.instances
                    ):
                        del reservations[key]
                        for instance in one.instances:
                            self.lifecycles.pop(instance.id, None)

    def counted(self) -> dict[str, int]:
        """Return the number of calls of each action."""
        found: dict[str, int] = {}
        for call in self.calls:
            found[call.action] = found.get(call.action, 0) + 1
        return found

    def preempt(self, box: str) -> None:
        """Interrupt the spot instance of a box."""
        with self.lock:
            for one in self.alive(box):
                self.lifecycles[one.id].end(
                    self, "Server.SpotInstanceTermination", "Spot instance termination"
                )

    def fire_alarm(self, box: str) -> None:
        """Perform the action of a box's alarm."""
        (alarm,) = [
            call.parameters
            for call in self.calls
            if call.action == "PutMetricAlarm"
            and call.parameters["AlarmName"] == f"onebox-{box}"
        ]
        with self.lock:
            life = self.lifecycles[alarm["Dimensions"][0]["Value"]]
            stops = alarm["AlarmActions"][0].endswith(":ec2:stop")
            how = life.stop if stops else life.end
            how(self, "Client.UserInitiatedShutdown", "User initiated shutdown")

    def power_off(self, instance: str) -> None:
        """Power an instance off from inside, unless it is forgotten already."""
        with self.lock:
            if instance in self.lifecycles:
                self.lifecycles[instance].power_off(self)

    def wait(self, box: str, *states: str) -> None:
        """Wait until the instances of a box are in one of these states."""
        until = time.monotonic() + 120
        while {one.state for one in self.instances(box)} - set(states):
            assert time.monotonic() < until, self.instances(box)
            time.sleep(0.02)


def _tag(resource: Any, key: str) -> str:
    return next((str(t["value"]) for t in resource.get_tags() if t["key"] == key), "")
