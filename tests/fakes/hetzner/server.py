"""Hetzner's API over HTTP on loopback, as strict as its description."""

from __future__ import annotations

import contextlib
import json
import re
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.fakes.hetzner.account import (
    LOCATIONS,
    Behavior,
    Json,
    Project,
    RefusedError,
    matches,
)
from tests.fakes.http_server import Handler, HttpServer

TOKEN = "Aa0" * 21 + "x"
READ_ONLY = "Bb1" * 21 + "x"
ENDING = "Cc2" * 21 + "x"

_KINDS = ("servers", "images", "firewalls", "ssh_keys", "primary_ips", "volumes")
# The required and the optional fields of each body.
_BODIES: dict[str, tuple[set[str], set[str]]] = {
    "POST servers": (
        {"name", "server_type", "image"},
        {
            *("location", "ssh_keys", "firewalls", "user_data", "labels"),
            *("start_after_create", "public_net"),
        },
    ),
    "POST firewalls": ({"name"}, {"rules", "labels"}),
    "POST ssh_keys": ({"name", "public_key"}, {"labels"}),
    "POST servers/*/actions/create_image": (set(), {"description", "type", "labels"}),
    "POST firewalls/*/actions/set_rules": ({"rules"}, set()),
    **{f"PUT {kind}/*": (set(), {"labels", "name"}) for kind in _KINDS},
}
_PUT_IMAGE = {"labels", "description", "type"}
_PAGED = {"page", "per_page", "sort", "label_selector", "name"}
_QUERIES = {
    "images": {*_PAGED, "type", "architecture", "status", "include_deprecated"},
    "ssh_keys": {*_PAGED, "fingerprint"},
    "servers": {*_PAGED, "status"},
}


@dataclass
class Fault:
    """
    A fault of the next *times* requests with this method and path (a pattern).

    *kind* is "cut before", "cut after", "500 before", "503 after", "html after" or
    "429". After a fault with "after" the request has taken effect.
    """

    method: str
    path: str
    kind: str
    times: int = 1


class Server:
    """
    The HTTP server of one project.

    Attributes:
        requests: The method and path of each request.

        changes: The number of requests that have changed something.

        killing: Called with the number of each change that has taken effect. It returns
            whether it has killed the client, which then gets no response.
    """

    def __init__(self, behavior: Behavior | None = None) -> None:
        self.project = Project(behavior)
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.tokens = {TOKEN, READ_ONLY, ENDING}
        self.changes = 0
        self.killing: Any = lambda number: False
        self._http = HttpServer(_Handler, self)

    @property
    def address(self) -> str:
        """Return the value for HCLOUD_ENDPOINT."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Serve until the context ends."""
        with self._http.running():
            yield self

    def fail(self, method: str, path: str, kind: str, times: int = 1) -> None:
        """Make the next matching requests fail; see `Fault`."""
        self.faults.append(Fault(method, path, kind, times))

    def fault(self, method: str, path: str) -> str:
        """Return the fault of a request, "" if it has none."""
        for fault in self.faults:
            fits = method == fault.method and re.fullmatch(fault.path, path)
            if fault.times > 0 and fits:
                fault.times -= 1
                return fault.kind
        return ""

    def count(self, method: str, path: str) -> int:
        """Return the number of requests with this method and path (a pattern)."""
        return sum(
            m == method and bool(re.fullmatch(path, p)) for m, p in self.requests
        )


class _CutError(Exception):
    """The server cuts the connection."""


class _Handler(Handler):
    server_of: Server

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the time of the cloud's clock for the Date header."""
        clock = self.server_of.project.behavior.clock
        return super().date_time_string(time.time() + clock)

    def serve(self) -> None:
        server = self.server_of
        url = urllib.parse.urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = url.path.removeprefix("/v1/")
        fault = server.fault(self.command, path)
        server.requests.append((self.command, path))
        try:
            try:
                self._break(fault, "before")
                with server.project.lock:
                    answer = self._answer(path, urllib.parse.parse_qs(url.query), raw)
                if self.command != "GET":
                    server.changes += 1
                    if server.killing(server.changes):
                        raise _CutError
                self._break(fault, "after")
            except RefusedError as refused:
                error = {"code": refused.code, "message": refused.message}
                answer = refused.status, {"error": {**error, "details": None}}
            self._send(*answer)
        except _CutError:
            self.cut()

    def _break(self, fault: str, when: str) -> None:
        kind, _, moment = fault.partition(" ")
        if kind == "429" and when == "before":
            raise RefusedError(429, "rate_limit_exceeded", "limit of 3600 requests")
        if moment != when:
            return
        if kind == "html":
            self._send(502, "<html>Bad Gateway</html>")
        if kind in ("cut", "html"):
            raise _CutError
        raise RefusedError(int(kind), "server_error", "something went wrong")

    def _send(self, status: int, answer: Any) -> None:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        data = b"" if status == 204 else text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("RateLimit-Limit", "3600")
        self.send_header("RateLimit-Remaining", "0" if status == 429 else "3599")
        self.send_header("RateLimit-Reset", str(int(time.time()) + 3600))
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def _answer(self, path: str, query: Any, raw: bytes) -> tuple[int, Any]:
        server, project = self.server_of, self.server_of.project
        project.tick()
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in server.tokens:
            raise RefusedError(401, "unauthorized", "unable to authenticate")
        if token == READ_ONLY and self.command != "GET":
            raise RefusedError(403, "token_readonly", "token is only allowed to read")
        parts = path.split("/")
        pattern = "/".join("*" if at == 1 else part for at, part in enumerate(parts))
        call = f"{self.command} {pattern}"
        try:
            body = json.loads(raw) if raw else {}
        except ValueError as error:
            raise RefusedError(400, "json_error", "invalid JSON") from error
        _check(call, parts[0], body, query)
        answer = _route(project, call, parts, body, query)
        project.tick()
        # A copy: the state may change as soon as the lock is released.
        return answer[0], json.loads(json.dumps(answer[1]))


def _check(call: str, kind: str, body: Json, query: Any) -> None:
    required, optional = _BODIES.get(call, (set(), set()))
    if call == "PUT images/*":
        optional = _PUT_IMAGE
    wrong = sorted((required - body.keys()) | (body.keys() - required - optional))
    allowed = _QUERIES.get(kind, _PAGED)
    wrong += sorted(query.keys() - allowed)
    if int(query.get("per_page", ["25"])[0]) > 50:
        wrong.append("per_page")
    if wrong:
        raise RefusedError(422, "invalid_input", f"invalid input in field '{wrong[0]}'")


def _route(
    project: Project, call: str, parts: list[str], body: Json, query: Any
) -> tuple[int, Any]:
    method, kind = call.split()[0], parts[0]
    single = kind[:-1]
    if call == "GET pricing":
        return 200, {"pricing": project.pricing()}
    if call == "GET locations":
        rows = [{"id": at + 1, "name": name} for at, name in enumerate(LOCATIONS)]
        return 200, _page(kind, rows, query)
    if call == "GET server_types":
        return 200, _page(kind, project.types, query)
    if call == "GET actions/*":
        return 200, {"action": project.show_action(parts[1])}
    if kind not in _KINDS:
        raise RefusedError(404, "not_found", "not found")
    if len(parts) == 1:
        if method == "GET":
            return 200, _page(kind, [*map(project.show, _listed(project, kind))], query)
        create = {
            "POST servers": project.create_server,
            "POST firewalls": project.create_firewall,
            "POST ssh_keys": project.create_key,
        }.get(call)
        if create is None:
            raise RefusedError(404, "not_found", "not found")
        return 201, create(body)
    one = project.one(kind, parts[1])
    if len(parts) == 2 and method == "GET":
        return 200, {single: project.show(one)}
    if len(parts) == 2 and method == "PUT":
        return 200, {single: project.update(one, body)}
    if call == "DELETE servers/*":
        return 200, project.delete_server(one)
    if len(parts) == 2 and method == "DELETE":
        project.delete(one)
        return 204, None
    if call == "GET servers/*/actions":
        found = [a.id for a in project.actions.values() if a.resource == one.id]
        return 200, _page("actions", [*map(project.show_action, found)], query)
    if call == "POST firewalls/*/actions/set_rules":
        return 201, project.set_rules(one, body)
    if call == "POST servers/*/actions/create_image":
        return 201, project.snapshot(one, body)
    if call.removeprefix("POST servers/*/actions/") in (
        *("poweron", "poweroff", "shutdown"),
    ):
        return 201, project.switch(one, parts[3])
    raise RefusedError(404, "not_found", "not found")


def _listed(project: Project, kind: str) -> list[Any]:
    return sorted(project.all(kind), key=lambda one: one.id)


def _page(kind: str, rows: list[Json], query: Any) -> Json:
    for key in ("name", "fingerprint", "architecture", "type", "status"):
        if key in query:
            rows = [row for row in rows if row.get(key) in query[key]]
    if "label_selector" in query:
        wanted = query["label_selector"][0]
        rows = [row for row in rows if matches(row["labels"], wanted)]
    number = int(query.get("page", ["1"])[0])
    size = int(query.get("per_page", ["25"])[0])
    last = max(-(-len(rows) // size), 1)
    pagination = {
        "page": number,
        "per_page": size,
        "previous_page": number - 1 if number > 1 else None,
        "next_page": number + 1 if number < last else None,
        "last_page": last,
        "total_entries": len(rows),
    }
    shown = rows[(number - 1) * size : number * size]
    return {kind: shown, "meta": {"pagination": pagination}}
