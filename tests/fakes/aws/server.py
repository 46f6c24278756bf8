"""
Serve an AWS account over HTTP on loopback.

The server checks each request against AWS's service models (`schema`), applies the
requested faults, and passes the call to a handler of ours or to moto.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from werkzeug.serving import WSGIRequestHandler, make_server

from tests.fakes.aws import images, instances, profiles, schema, services
from tests.fakes.aws.account import ACCOUNT, ARN, Account, Call
from tests.fakes.aws.faults import Kind
from tests.fakes.aws.iam import CREATED_KINDS
from tests.fakes.aws.schema import ApiRequest, Refusal

_HANDLERS = {**instances.HANDLERS, **images.HANDLERS, **services.HANDLERS}


class Server:
    """The HTTP server of one account."""

    def __init__(self, account: Account) -> None:
        self.account = account

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve as long as the context is open; yield the address."""
        handler = type("_OfAccount", (_Quiet,), {"account": self.account})
        server: Any = make_server(
            "127.0.0.1", 0, self._application, threaded=True, request_handler=handler
        )
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.account.released.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def _application(self, environ: dict[str, Any], start: Any) -> list[bytes]:
        try:
            request = schema.read(environ)
            kind = self.account.faults.take(request.action)
            kill = (
                self.account.kill
                if self.account.kill and self.account.kill.is_due()
                else None
            )
            if kill is not None and not kill.after:
                os.kill(kill.pid, signal.SIGKILL)
                raise _Cut
            status, headers, body = self._answer(request, environ, kind)
            if kill is not None:
                os.kill(kill.pid, signal.SIGKILL)
                raise _Cut
        except Exception as error:
            if not isinstance(error, _Cut):
                # The account fixture raises it: a defect of the fake fails the test.
                self.account.broken.append(error)
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
            self.account.released.wait(self.account.hang_seconds)
        raise _Cut

    def _real(
        self, request: ApiRequest, environ: dict[str, Any]
    ) -> tuple[int, dict[str, str], bytes]:
        try:
            if self.account.expired:
                raise _REFUSALS["expired"]
            parameters = request.parameters()
            with self.account.lock:
                self._permit(request)
                self._require_tag(request, parameters)
                self.account.tick()
                call = Call(
                    request.service,
                    request.action,
                    request.region,
                    parameters,
                    instances.resources(self.account, request, parameters),
                    profiles.passed_roles(parameters),
                )
                handler = _HANDLERS.get((request.service, request.action))
                self.account.calls.append(call)
                if handler is None:
                    return self.account.forward(request, environ)
                result = handler(self.account, request, parameters, environ)
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
        if {action, f"{action} {request.region}"} & self.account.faults.denied:
            where = f"arn:aws:ec2:{request.region}:{ACCOUNT}:instance/*"
            no = self.account.faults.unauthorized(ARN, action, where)
            no.status = 403 if name == "ec2" else 400
            raise no

    def _require_tag(self, request: ApiRequest, parameters: dict[str, Any]) -> None:
        """Refuse a call that creates an object without the tag of a company."""
        key = self.account.faults.required_tag
        created = list(CREATED_KINDS.get(request.action, ()))
        if not key or not (created or request.action == "PutMetricAlarm"):
            return
        found = {
            one["ResourceType"]: one["Tags"]
            for one in parameters.get("TagSpecifications", ())
        }
        if request.action == "PutMetricAlarm":
            created, found = ["alarm"], {"alarm": parameters.get("Tags", ())}
        if parameters.get("InstanceMarketOptions"):
            created.append("spot-instances-request")
        for kind in created:
            if key not in [tag["Key"] for tag in found.get(kind, ())]:
                raise Refusal(
                    "UnauthorizedOperation",
                    f"explicit deny: a new {kind} needs the tag {key}",
                    403,
                )


class _Cut(Exception):
    """The connection is cut without a response."""


class _Quiet(WSGIRequestHandler):
    """A request handler without a log."""

    account: Account

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the time of AWS's clock, which may differ from ours."""
        now = time.time() + self.account.skew
        return str(super().date_time_string(int(now)))

    def log(self, *args: Any) -> None:
        """Log nothing."""


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
