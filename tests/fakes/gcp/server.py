"""Serve a project over HTTP on loopback, with the faults that a test requests."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.fakes.gcp import catalog, faults, schema
from tests.fakes.gcp.account import Account
from tests.fakes.gcp.faults import Answer, Fault
from tests.fakes.gcp.schema import Call
from tests.fakes.http_server import Handler, HttpServer

_TEST_PERMISSIONS = re.compile(
    r"/v1/projects/-/serviceAccounts/(?P<email>[^/:]+):testIamPermissions"
)


@dataclass
class ReceivedRequest:
    """One request: the name of its API method, its parameters and its body."""

    method: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any


@dataclass
class Server:
    """
    The server of one project.

    Attributes:
        refused: The errors of requests that do not match Google's description.

        tokens: The access tokens of all requests.

        catalogue: Whether the price catalogue may be read.

        iam: The response of the IAM API, None for its usual one.

        victim: The process to kill at a changing call, the number of changing calls
            before that one, and whether the call takes effect.
    """

    account: Account
    address: str = ""
    requests: list[ReceivedRequest] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    catalogue: bool = True
    iam: Answer | None = None
    over: threading.Event = field(default_factory=threading.Event)
    victim: tuple[int, int, bool] | None = None

    def fail(self, method: str, kind: str, **more: Any) -> Fault:
        """Let the next call of a method, such as "instances.insert", fail."""
        fault = Fault(f"compute.{method}", kind, **more)
        self.faults.append(fault)
        return fault

    def calls(self, method: str) -> list[ReceivedRequest]:
        """Return the requests of one method, in order."""
        return [one for one in self.requests if one.method == f"compute.{method}"]

    def take(self, method: str) -> Fault | None:
        """Return the fault of this call, None without one."""
        for fault in self.faults:
            if fault.method == method and fault.times > 0:
                if fault.after > 0:
                    fault.after -= 1
                    return None
                fault.times -= 1
                return fault
        return None


@contextmanager
def serving(account: Account) -> Iterator[Server]:
    """Serve as long as the context is open."""
    server = Server(account)
    http_server = HttpServer(_Handler, server)
    server.address = f"http://127.0.0.1:{http_server.server_address[1]}"
    with http_server.running():
        try:
            yield server
        finally:
            server.over.set()


class _Handler(Handler):
    server_of: Server

    def serve(self) -> None:
        """Answer the request."""
        parts = urlsplit(self.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.server_of.tokens.add(token)
        if not token:
            self._respond(faults.ANSWERS["401"])
        elif parts.path.startswith("/v1/services/"):
            self._catalogue(query)
        elif parts.path.startswith("/v1/projects/"):
            self._iam(parts.path, _body(raw))
        else:
            try:
                call = schema.read(self.command, parts.path, query, _body(raw))
            except schema.RefusedError as refused:
                self.server_of.refused.append(str(refused))
                self._respond(faults.refusal(400, str(refused), "badRequest"))
            else:
                self._call(call)

    def _call(self, call: Call) -> None:
        fake = self.server_of
        fake.requests.append(
            ReceivedRequest(call.method, call.path, call.query, call.body)
        )
        if self.command != "GET" and self._kill(call):
            return
        fault = fake.take(call.method)
        kind, _, when = (fault.kind if fault else "").partition("-")
        if fault is None or kind.startswith("op:"):
            code = kind.removeprefix("op:")
            message = fault.message if fault else ""
            self._respond(fake.account.answer(call, code, message))
            return
        answer = fake.account.answer(call) if when == "after" else None
        if kind == "cut":
            self.cut()
        elif kind == "hang":
            fake.over.wait(60)
            self.cut()
        elif kind == "garbage":
            self._send(200, faults.page(), "text/html")
        elif kind == "page":
            self._send(502, faults.page(), "text/html")
        elif kind == "truncated":
            self._truncated(json.dumps(answer or {"kind": "compute#x"}).encode())
        else:
            self._respond(faults.ANSWERS[kind], fault.retry_after)

    def _kill(self, call: Call) -> bool:
        """Kill the client if this is the chosen call; return whether it was."""
        fake = self.server_of
        if fake.victim is None:
            return False
        process, left, after = fake.victim
        if left > 0:
            fake.victim = process, left - 1, after
            return False
        if after:
            fake.account.answer(call)
        fake.victim = None
        os.kill(process, signal.SIGKILL)
        self.cut()
        return True

    def _iam(self, path: str, body: Any) -> None:
        """Answer `projects.serviceAccounts.testIamPermissions`, the only method."""
        fake = self.server_of
        found = _TEST_PERMISSIONS.fullmatch(path)
        fields = body if isinstance(body, dict) else {}
        asked = fields.get("permissions")
        is_valid = isinstance(asked, list) and set(fields) == {"permissions"}
        if self.command != "POST" or not found or not is_valid:
            fake.refused.append(f"{self.command} {path} {body}")
            self._respond(faults.refusal(400, "not as the API describes", "badRequest"))
            return
        email, known = found["email"], fake.account.service_accounts
        if fake.iam is not None:
            self._respond(fake.iam)
        elif email not in known:
            text = f"Unknown service account: projects/-/serviceAccounts/{email}"
            self._respond(faults.refusal(404, text, "notFound"))
        else:
            # Without any of the permissions, the response is empty.
            self._respond({"permissions": asked} if known[email] else {})

    def _catalogue(self, query: Mapping[str, list[str]]) -> None:
        if not self.server_of.catalogue:
            self._respond(faults.ANSWERS["disabled"])
            return
        skus, size = catalog.skus(), 7
        first = int(query.get("pageToken", ["0"])[0])
        page: dict[str, Any] = {"skus": skus[first : first + size]}
        page["nextPageToken"] = str(first + size) if first + size < len(skus) else ""
        self._respond(page)

    def _respond(self, answer: Any, retry_after: int | None = None) -> None:
        status = 200
        if isinstance(answer, Answer):
            status, answer = answer.status, answer.body
        with self.server_of.account.lock:
            body = json.dumps(answer).encode()
        self._send(status, body, "application/json; charset=UTF-8", retry_after)

    def _send(
        self, status: int, body: bytes, kind: str, retry_after: int | None = None
    ) -> None:
        packs = "gzip" in self.headers.get("Accept-Encoding", "")
        body = gzip.compress(body, 1) if packs else body
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if packs:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def _truncated(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.cut()


def _body(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return json.loads(raw)
    except ValueError as error:
        raise schema.RefusedError("the body is not JSON") from error
