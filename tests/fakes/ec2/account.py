"""
An AWS account that lives in this process and is reached over HTTP alone.

moto keeps what there is; what it is kinder about than EC2 is here: states that
take their time, tokens, quotas and capacity, what goes together and what does not,
spot requests, kept disks, and all that is made to go wrong (see `faults`).
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    create_backend_app,
)
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.fakes.ec2 import catalog, instances, schema
from tests.fakes.ec2.faults import Faults, Kind
from tests.fakes.ec2.schema import ApiRequest, Refusal

ACCOUNT = "123456789012"
ARN = f"arn:aws:iam::{ACCOUNT}:user/tester"
REGIONS = ("us-east-1", "us-west-2", "eu-west-1")


@dataclass(frozen=True)
class Call:
    """A call that the account accepted, and the objects that it names."""

    service: str
    action: str
    region: str
    parameters: Mapping[str, Any]
    resources: tuple[tuple[str, Mapping[str, str]], ...] = ()


@dataclass
class Delays:
    """How many seconds a machine takes from one state to the next."""

    pending: float = 0.15
    stopping: float = 0.15
    ending: float = 0.15
    saving: float = 0.15


@dataclass
class Kill:
    """A client that will not survive one of its calls, nor hear the answer."""

    pid: int
    calls: int
    after: bool

    def is_due(self) -> bool:
        """Count a call; return whether it is the last one."""
        self.calls -= 1
        return self.calls == 0


@dataclass
class Account:
    """
    The account, and the server that it is reached by.

    Attributes:
        boot: Called, with an instance, once it runs; *off* before it no longer does.

        saved: Called with an instance and the image that its disk is saved as.

        address: What gives an instance its public address.
    """

    faults: Faults = field(default_factory=Faults)
    delays: Delays = field(default_factory=Delays)
    calls: list[Call] = field(default_factory=list)
    boot: Callable[[Any], None] = lambda instance: None
    off: Callable[[Any], None] = lambda instance: None
    saved: Callable[[Any, Any], None] = lambda instance, image: None
    address: Callable[[Any], str] | None = None
    console: dict[str, str] = field(default_factory=dict)
    expired: bool = False
    hang_seconds: float = 30.0
    broken: list[Exception] = field(default_factory=list)
    skew: float = 0.0
    kill: Kill | None = None

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.lives: dict[str, instances.Life] = {}
        self.tokens: dict[tuple[str, str], tuple[str, str]] = {}
        self.born: dict[str, float] = {}
        self.spot_requests: dict[str, dict[str, Any]] = {}
        self.stocked: set[str] = set()
        self.released = threading.Event()
        self._moto = DomainDispatcherApplication(create_backend_app)

    # -- the server ----------------------------------------------------------------

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on loopback; yield the address."""
        handler = type("_OfAccount", (_Quiet,), {"account": self})
        server: Any = make_server(
            "127.0.0.1", 0, self._application, threaded=True, request_handler=handler
        )
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.released.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def _application(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        try:
            request = schema.read(environ)
            kind = self.faults.take(request.action)
            kill = self.kill if self.kill and self.kill.is_due() else None
            if kill is not None and not kill.after:
                os.kill(kill.pid, signal.SIGKILL)
                raise _Cut
            status, headers, body = self._answer(request, environ, kind)
            if kill is not None:
                os.kill(kill.pid, signal.SIGKILL)
                raise _Cut
        except Exception as error:
            if not isinstance(error, _Cut):
                # A server that breaks is a test that fails.
                self.broken.append(error)
            connection = environ["werkzeug.socket"]
            connection.shutdown(socket.SHUT_RDWR)
            start("200 x", [])
            return []
        headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
        start(f"{status} x", [*headers.items(), ("Content-Length", str(len(body)))])
        return [body]

    def _answer(
        self, request: ApiRequest, environ: dict[str, Any], kind: Kind | None
    ) -> tuple[int, dict[str, str], bytes]:
        if kind in ("cut", "hang"):
            self._hang(kind)
        if kind == "html":
            page = b"<html><body>Bad gateway</body></html>"
            return 502, {"Content-Type": "text/html"}, page
        if kind in _REFUSALS:
            return request.refusal(_REFUSALS[kind])
        answer = self._real(request, environ)
        if kind in ("cut after", "hang after"):
            self._hang(kind)
        if kind == "broken after":
            return request.refusal(_REFUSALS["broken"])
        return answer

    def _hang(self, kind: Kind) -> None:
        if kind.startswith("hang"):
            self.released.wait(self.hang_seconds)
        raise _Cut

    def _real(
        self, request: ApiRequest, environ: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        try:
            if self.expired:
                raise _REFUSALS["expired"]
            parameters = request.parameters()
            with self.lock:
                self._permit(request)
                self.tick()
                call = Call(
                    request.service,
                    request.action,
                    request.region,
                    parameters,
                    instances.resources(self, request, parameters),
                )
                handler = instances.HANDLERS.get((request.service, request.action))
                handler = handler or _HANDLERS.get((request.service, request.action))
                self.calls.append(call)
                if handler is None:
                    return self.forward(request, environ)
                result = handler(self, request, parameters, environ)
                if isinstance(result, tuple):
                    return result
                return request.answer(result)
        except Refusal as no:
            return request.refusal(no)

    def _permit(self, request: ApiRequest) -> None:
        name = request.service
        action = (
            f"{'servicequotas' if name == 'service-quotas' else name}:{request.action}"
        )
        if {action, f"{action} {request.region}"} & self.faults.denied:
            raise Refusal(
                "UnauthorizedOperation",
                "You are not authorized to perform this operation. User: "
                f"{ARN} is not authorized to perform: {action} on resource: "
                f"arn:aws:ec2:{request.region}:{ACCOUNT}:instance/* because no "
                "identity-based policy allows it. Encoded authorization failure "
                "message: 4GIOHlTkIaWHQD0Q0m6XSnuMMCm",
                403 if name == "ec2" else 400,
            )

    def forward(
        self, request: ApiRequest, environ: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        """Have moto answer, as it does by itself."""
        self.backend(request.region)
        response: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], exc: Any = None) -> None:
            response.update(status=int(status.split()[0]), headers=dict(headers))

        environ["wsgi.input"] = BytesIO(request.body)
        application: Any = self._moto.get_application(environ)
        body = b"".join(application(environ, start))
        return response["status"], response["headers"], body

    # -- the world -------------------------------------------------------------------

    def backend(self, region: str) -> Any:
        """Return what moto knows of a region."""
        found = ec2_backends[ACCOUNT][region]
        if region not in self.stocked:
            self.stocked.add(region)
            catalog.stock(found)
        return found

    def tick(self) -> None:
        """Let happen what is due by now."""
        for life in list(self.lives.values()):
            life.tick(self)

    def instances(self, box: str = "") -> list[Any]:
        """Return the instances there are, or ever were, of a box."""
        with self.lock:
            self.tick()
            return [
                one
                for region in self.stocked
                for one in self.backend(region).all_instances()
                if not box or _tag(one, "onebox:box") == box
            ]

    def alive(self, box: str = "") -> list[Any]:
        """Return the instances that have not ended."""
        return [one for one in self.instances(box) if one.state != "terminated"]

    def volumes(self, box: str) -> list[Any]:
        """Return the volumes there are of a box."""
        with self.lock:
            self.tick()
            return [
                one
                for region in self.stocked
                for one in self.backend(region).volumes.values()
                if _tag(one, "onebox:box") == box
            ]

    def forget_ended(self) -> None:
        """Forget the machines that have ended, as EC2 does within the hour."""
        with self.lock:
            for region in self.stocked:
                reservations = self.backend(region).reservations
                for key, one in list(reservations.items()):
                    if all(
                        instance.state == "terminated" for instance in one.instances
                    ):
                        del reservations[key]
                        for instance in one.instances:
                            self.lives.pop(instance.id, None)

    def counted(self) -> dict[str, int]:
        """Return how often each call was made."""
        found: dict[str, int] = {}
        for call in self.calls:
            found[call.action] = found.get(call.action, 0) + 1
        return found

    def preempt(self, box: str) -> None:
        """Take a spot box back, as the cloud does."""
        with self.lock:
            for one in self.alive(box):
                self.lives[one.id].end(
                    self, "Server.SpotInstanceTermination", "Spot instance termination"
                )

    def ring(self, box: str) -> None:
        """Have a box's alarm do what it was set to do."""
        (alarm,) = [
            call.parameters
            for call in self.calls
            if call.action == "PutMetricAlarm"
            and call.parameters["AlarmName"] == f"onebox-{box}"
        ]
        with self.lock:
            life = self.lives[alarm["Dimensions"][0]["Value"]]
            stops = alarm["AlarmActions"][0].endswith(":ec2:stop")
            how = life.stop if stops else life.end
            how(self, "Client.UserInitiatedShutdown", "User initiated shutdown")

    def power_off(self, instance: str) -> None:
        """Have a machine switched off from within, unless it is forgotten by now."""
        with self.lock:
            if instance in self.lives:
                self.lives[instance].power_off(self)

    def wait(self, box: str, *states: str) -> None:
        """Wait until the machines of a box are in one of these states."""
        until = time.monotonic() + 120
        while {one.state for one in self.instances(box)} - set(states):
            assert time.monotonic() < until, self.instances(box)
            time.sleep(0.02)


class _Cut(Exception):
    """The connection ends here."""


class _Quiet(WSGIRequestHandler):
    """A request handler without a log."""

    account: Account

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Tell AWS's time, which need not be ours."""
        there = time.time() + self.account.skew
        return str(super().date_time_string(int(there)))

    def log(self, *args: Any) -> None:
        """Say nothing."""


_REFUSALS: dict[str, Refusal] = {
    "throttle": Refusal("RequestLimitExceeded", "Request limit exceeded.", 503),
    "broken": Refusal("InternalError", "An internal error has occurred", 500),
    "expired": Refusal("RequestExpired", "Request has expired."),
    "bad key": Refusal(
        "AuthFailure",
        "AWS was not able to validate the provided access credentials",
        401,
    ),
}


def _tag(resource: Any, key: str) -> str:
    return next((str(t["value"]) for t in resource.get_tags() if t["key"] == key), "")


def _parameters(
    account: Account, request: ApiRequest, wanted: dict[str, Any], environ: Any
) -> dict[str, Any]:
    known = catalog.parameters(request.region)
    names = wanted["Names"]
    return {
        "Parameters": [
            {"Name": name, "Type": "String", "Value": known[name]}
            for name in names
            if name in known
        ],
        "InvalidParameters": [name for name in names if name not in known],
    }


def _products(
    account: Account, request: ApiRequest, wanted: dict[str, Any], environ: Any
) -> dict[str, Any]:
    if request.region not in ("us-east-1", "eu-central-1", "ap-south-1"):
        raise AssertionError(f"there is no price list in {request.region}")
    rows = catalog.products(wanted["Filters"])
    return {"FormatVersion": "aws_v1", "PriceList": rows[: wanted["MaxResults"]]}


def _quota(
    account: Account, request: ApiRequest, wanted: dict[str, Any], environ: Any
) -> dict[str, Any]:
    value = {
        "L-1216C47A": account.faults.cpus,
        "L-34B43A08": account.faults.spot_cpus,
    }[wanted["QuotaCode"]]
    return {"Quota": {"QuotaCode": wanted["QuotaCode"], "Value": value}}


def _identity(
    account: Account, request: ApiRequest, wanted: dict[str, Any], environ: Any
) -> dict[str, Any]:
    return {"UserId": "AIDATESTER", "Account": ACCOUNT, "Arn": ARN}


_HANDLERS: dict[tuple[str, str], instances.Handler] = {
    ("ssm", "GetParameters"): _parameters,
    ("pricing", "GetProducts"): _products,
    ("service-quotas", "GetServiceQuota"): _quota,
    ("sts", "GetCallerIdentity"): _identity,
}
