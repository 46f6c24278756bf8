"""Serve an account over HTTP on loopback, with the faults that a test requests."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.fakes.digitalocean import schema
from tests.fakes.digitalocean.account import Account, Behavior, Json, RefusedError
from tests.fakes.http_server import Handler, HttpServer

TOKEN = "dop_v1_" + "0123456789abcdef" * 4
READ_ONLY = "dop_v1_" + "fedcba9876543210" * 4
ENDING = "dop_v1_" + "0f1e2d3c4b5a6978" * 4


@dataclass
class Fault:
    """
    A fault of the next *times* requests that match.

    *kind* is "500", "html", "cut" or "hang", each with " before" (the request has no
    effect) or " after" (it takes effect); or "half" (half of the response), "429",
    "redirect", or "late" (it takes effect after the client has given up).
    """

    method: str
    path: str
    kind: str
    times: int = 1
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class ReceivedRequest:
    """One request that the server has received."""

    method: str
    path: str
    query: Json
    body: Any
    token: str
    agent: str


class Server:
    """
    The server of one account.

    Attributes:
        changes: The number of changing requests so far.

        killing: Called with the number of a changing request and "before" or "after"
            its effect; if it has killed the client it returns True, and the server
            sends no response.

        hang: The seconds for which a "hang" fault waits.

        late: The longest time until a "late" request takes effect.

        now: Ends the wait of "late" requests.

        scopes: The scopes of each valid token.
    """

    def __init__(self, behavior: Behavior | None = None) -> None:
        self.account = Account(behavior)
        self.faults: list[Fault] = []
        self.requests: list[ReceivedRequest] = []
        self.hang = 30.0
        self.late = 0.0
        self.now = threading.Event()
        self.changes = 0
        self.killing: Callable[[int, str], bool] = lambda number, when: False
        self.scopes: dict[str, re.Pattern[str]] = {
            TOKEN: re.compile(".*"),
            READ_ONLY: re.compile(r".*:read"),
            ENDING: re.compile(r"droplet:delete"),
        }
        self._stopped = threading.Event()
        self._http = HttpServer(_Handler, self)

    @property
    def address(self) -> str:
        """Return the value for DIGITALOCEAN_END_POINT."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v2/"

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        """Serve as long as the context is open."""
        with self._http.running():
            try:
                yield self
            finally:
                self._stopped.set()
                self.now.set()

    def fail(
        self, method: str, path: str, kind: str, times: int = 1, **headers: str
    ) -> None:
        """Let the next requests that match fail."""
        pairs = tuple(
            (name.replace("_", "-"), value) for name, value in headers.items()
        )
        self.faults.append(Fault(method, path, kind, times, pairs))

    def count(self, method: str, path: str) -> int:
        """Count the requests whose method and path match."""
        return sum(
            request.method == method and re.fullmatch(path, request.path) is not None
            for request in self.requests
        )

    def fault(self, method: str, path: str) -> Fault | None:
        """Return the fault of this request, None without one."""
        for fault in self.faults:
            if (
                fault.times > 0
                and method == fault.method
                and re.fullmatch(fault.path, path)
            ):
                fault.times -= 1
                return fault
        return None

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until the server stops."""
        self._stopped.wait(seconds)


class _CutError(Exception):
    """The connection is cut without a response."""


class _AnsweredError(Exception):
    """The fault has sent the response."""


class _Handler(Handler):
    server_of: Server

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Return the time of DigitalOcean's clock."""
        return super().date_time_string(
            time.time() + self.server_of.account.behavior.clock
        )

    def serve(self) -> None:
        server = self.server_of
        url = urllib.parse.urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        path = urllib.parse.unquote(url.path).strip("/").removeprefix("v2/")
        fault = server.fault(self.command, path)
        number = 0
        if self.command != "GET":
            server.changes += 1
            number = server.changes
        try:
            if number and server.killing(number, "before"):
                raise _CutError
            self._before(fault)
            try:
                query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
                status, answer = self._answer(path, query, raw)
            except RefusedError as refused:
                status = refused.status
                answer = {
                    "id": refused.code,
                    "message": refused.message,
                    "request_id": "4d9d8375-3c56-4925-a3e7-eb137fed17e9",
                }
            if number and server.killing(number, "after"):
                raise _CutError
            self._after(fault)
            self._send(status, answer, half=fault is not None and "half" in fault.kind)
        except _AnsweredError:
            return
        except _CutError:
            self.cut()

    def _before(self, fault: Fault | None) -> None:
        if fault is None:
            return
        if fault.kind == "429":
            answer = {"id": "too_many_requests", "message": "API Rate limit exceeded."}
            self._send(429, answer, headers=fault.headers)
            raise _AnsweredError
        if fault.kind == "redirect":
            self._send(302, {}, headers=fault.headers)
            raise _AnsweredError
        if fault.kind == "late":
            self.server_of.now.wait(self.server_of.late)
        if fault.kind.endswith("before"):
            self._break(fault.kind)

    def _after(self, fault: Fault | None) -> None:
        if fault is not None and fault.kind.endswith(("after", "late")):
            self._break(fault.kind)

    def _break(self, kind: str) -> None:
        if kind.startswith("half"):
            return
        if kind.startswith("500"):
            answer = {
                "id": "server_error",
                "message": "Server was unable to give you a",
            }
            self._send(500, answer)
            raise _AnsweredError
        if kind.startswith("html"):
            self._send(502, "<html><title>502 Bad Gateway</title></html>")
            raise _AnsweredError
        if kind.startswith("hang"):
            self.server_of.sleep(self.server_of.hang)
        raise _CutError

    def _send(
        self,
        status: int,
        answer: Any,
        *,
        half: bool = False,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        data = (
            answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        )
        data = b"" if status == 204 else data
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("ratelimit-limit", "5000")
        self.send_header("ratelimit-remaining", "4999")
        given = {name.lower() for name, _ in headers}
        if "ratelimit-reset" not in given and status != 429:
            self.send_header("ratelimit-reset", str(int(time.time()) + 3600))
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if half else data)
        self.wfile.flush()
        if half:
            raise _CutError

    def _answer(self, path: str, query: Json, raw: bytes) -> tuple[int, Any]:
        server, account = self.server_of, self.server_of.account
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = raw
        with account.lock:
            account.tick()
            server.requests.append(
                ReceivedRequest(
                    self.command,
                    path,
                    query,
                    body,
                    token,
                    self.headers.get("User-Agent", ""),
                )
            )
            if token not in server.scopes:
                raise RefusedError(401, "unauthorized", "Unable to authenticate you")
            answer = _route(
                account, server.scopes[token], self.command, path, query, body
            )
            account.tick()
            # A copy: the objects may change as soon as the lock is free.
            return answer[0], json.loads(json.dumps(answer[1]))


def _route(
    account: Account,
    scopes: re.Pattern[str],
    method: str,
    path: str,
    query: Json,
    body: Any,
) -> tuple[int, Any]:
    parts = path.split("/")
    if parts[:2] == ["account", "keys"]:
        # The only path with two words before the id.
        parts = ["account/keys", *parts[2:]]
    pattern = "/".join("*" if at == 1 or at == 3 else p for at, p in enumerate(parts))
    if not scopes.fullmatch(_scope(method, pattern)):
        raise RefusedError(
            403, "forbidden", "You are not authorized to perform this operation"
        )
    problem = schema.wrong_query(pattern, query) if method == "GET" else ""
    if method != "GET" and query:
        problem = "query parameters are not accepted"
    check = schema.BODIES.get((method, pattern))
    if check is not None:
        problem = problem or check(body)
    elif body is not None:
        problem = problem or "a body is not accepted"
    if problem:
        raise RefusedError(422, "unprocessable_entity", problem)
    name = parts[1] if len(parts) > 1 else ""
    found = _GETS.get(pattern) if method == "GET" else None
    if found is not None:
        return 200, found(account, name, query, parts)
    done = _CHANGES.get((method, pattern))
    if done is None:
        raise RefusedError(404, "not_found", "The resource you requested could not")
    answer = done(account, name, body)
    return (204, None) if answer is None else (_STATUS[(method, pattern)], answer)


def _scope(method: str, pattern: str) -> str:
    kinds = {
        "account/keys": "ssh_key",
        "droplets": "droplet",
        "firewalls": "firewall",
        "images": "image",
        "tags": "tag",
        "volumes": "block_storage",
    }
    verbs = {"GET": "read", "POST": "create", "PUT": "update", "DELETE": "delete"}
    verb = verbs.get(method, "admin")
    if pattern.endswith("/actions") and method == "POST":
        verb = "update"
    first = pattern.split("/")[0]
    if pattern.startswith("account/keys"):
        first = "account/keys"
    return f"{kinds.get(first, first)}:{verb}"


def _page(path: str, key: str, items: list[Json], query: Json) -> Json:
    number, size = int(query.get("page", 1)), int(query.get("per_page", 20))
    begin = (number - 1) * size
    pages = {}
    if begin + size < len(items):
        # The link names another host, as the API does behind a proxy.
        pages["next"] = f"https://api.example.com/v2/{path}?page={number + 1}"
    return {
        key: items[begin : begin + size],
        "links": {"pages": pages},
        "meta": {"total": len(items)},
    }


def _droplets(account: Account, name: str, query: Json, parts: list[str]) -> Json:
    return _page("droplets", "droplets", account.listed(query.get("tag_name")), query)


def _droplet_actions(
    account: Account, name: str, query: Json, parts: list[str]
) -> Json:
    actions = [account.action(number) for number in account.droplet(_int(name)).actions]
    return _page(f"droplets/{name}/actions", "actions", actions, query)


def _image(account: Account, name: str, query: Json, parts: list[str]) -> Json:
    for image in account.images.values():
        if name in (str(image["id"]), image["slug"]):
            return {"image": image}
    raise RefusedError(404, "not_found", "The resource you requested could not")


def _images(account: Account, name: str, query: Json, parts: list[str]) -> Json:
    own = query.get("private") == "true"
    found = account.snapshots() if own else list(account.images.values())
    return _page("images", "images", found, query)


def _firewall(account: Account, name: str, query: Json, parts: list[str]) -> Json:
    if name not in account.firewalls:
        raise RefusedError(404, "not_found", "firewall not found")
    return {"firewall": account.firewalls[name]}


def _tag(account: Account, name: str, query: Json, parts: list[str]) -> Json:
    if name.lower() not in account.tags:
        raise RefusedError(404, "not_found", "tag not found")
    resources = {"count": account.count_tagged(name)}
    return {"tag": {"name": account.tags[name.lower()], "resources": resources}}


def _key(account: Account, name: str, query: Json, parts: list[str]) -> Json:
    return {"ssh_key": account.key(name)}


def _account(account: Account, name: str, query: Json, parts: list[str]) -> Json:
    return {
        "account": {
            "droplet_limit": account.behavior.droplet_limit,
            "floating_ip_limit": 3,
            "email": "somebody@example.com",
            "uuid": "b6fr89dbf6d9156cace5f3c78dc9851d957381ef",
            "email_verified": True,
            "status": account.behavior.status,
            "status_message": "",
            "team": {"uuid": "5df3e3004a17e242b7c20ca6c9fc25b701a47ece", "name": "Us"},
        }
    }


def _regions(account: Account, name: str, query: Json, parts: list[str]) -> Json:
    slugs = {"nyc3": True, "fra1": True, "sfo3": True, "ams2": False}
    found = [
        {"slug": slug, "name": slug, "available": there, "features": [], "sizes": []}
        for slug, there in slugs.items()
    ]
    return _page("regions", "regions", found, query)


def _delete_from(table: str) -> Any:
    def delete(account: Account, name: str, body: Any) -> None:
        found = getattr(account, table)
        key = _int(name) if table == "images" else name
        if key not in found:
            raise RefusedError(404, "not_found", "The resource you requested could not")
        del found[key]

    return delete


def _make_tag(account: Account, name: str, body: Json) -> Json:
    if body["name"].lower() in account.tags:
        raise RefusedError(422, "unprocessable_entity", "Tag has already been taken")
    return {"tag": {"name": account.tag(body["name"]), "resources": {"count": 0}}}


def _int(text: str) -> int:
    if not text.isdigit():
        raise RefusedError(404, "not_found", "The resource you requested could not")
    return int(text)


_GETS: dict[str, Any] = {
    "account": _account,
    "account/keys": lambda w, n, q, p: _page(
        "account/keys", "ssh_keys", list(w.keys.values()), q
    ),
    "account/keys/*": _key,
    "sizes": lambda w, n, q, p: _page("sizes", "sizes", w.sizes, q),
    "regions": _regions,
    "droplets": _droplets,
    "droplets/*": lambda w, n, q, p: {"droplet": w.show(w.droplet(_int(n)))},
    "droplets/*/actions": _droplet_actions,
    "droplets/*/actions/*": lambda w, n, q, p: {"action": w.action(_int(p[3]))},
    "firewalls": lambda w, n, q, p: _page(
        "firewalls", "firewalls", list(w.firewalls.values()), q
    ),
    "firewalls/*": _firewall,
    "images": _images,
    "images/*": _image,
    "images/*/actions/*": lambda w, n, q, p: {"action": w.action(_int(p[3]))},
    "tags": lambda w, n, q, p: _page(
        "tags", "tags", [{"name": name} for name in w.tags.values()], q
    ),
    "tags/*": _tag,
    "volumes": lambda w, n, q, p: _page(
        "volumes", "volumes", list(w.volumes.values()), q
    ),
}
_CHANGES: dict[tuple[str, str], Any] = {
    ("POST", "account/keys"): lambda w, n, b: w.add_key(b),
    ("DELETE", "account/keys/*"): lambda w, n, b: w.delete_key(n),
    ("POST", "droplets"): lambda w, n, b: w.create(b),
    ("DELETE", "droplets/*"): lambda w, n, b: w.destroy(_int(n)),
    ("POST", "droplets/*/actions"): lambda w, n, b: w.start_action(_int(n), b),
    ("POST", "firewalls"): lambda w, n, b: w.put_firewall(b),
    ("PUT", "firewalls/*"): lambda w, n, b: w.put_firewall(b, n),
    ("DELETE", "firewalls/*"): _delete_from("firewalls"),
    ("DELETE", "images/*"): _delete_from("images"),
    ("POST", "images/*/actions"): lambda w, n, b: w.transfer(_int(n), b["region"]),
    ("POST", "tags"): _make_tag,
    ("DELETE", "tags/*"): lambda w, n, b: w.delete_tag(n),
    ("POST", "tags/*/resources"): lambda w, n, b: w.set_tag(n, b["resources"], True),
    ("DELETE", "tags/*/resources"): lambda w, n, b: w.set_tag(n, b["resources"], False),
    ("DELETE", "volumes/*"): _delete_from("volumes"),
}
_STATUS = {
    ("POST", "account/keys"): 201,
    ("POST", "droplets"): 202,
    ("POST", "droplets/*/actions"): 201,
    ("POST", "firewalls"): 202,
    ("PUT", "firewalls/*"): 200,
    ("POST", "images/*/actions"): 201,
    ("POST", "tags"): 201,
}
