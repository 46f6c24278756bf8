"""The agent notices that the cloud announces a preemption, and is not delayed."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from onebox.agent import preemption_notice
from onebox.agent.box import Box
from tests.fakes.agent_box import AgentBox, until

ACTION = "/latest/meta-data/spot/instance-action"
PREEMPTED = "/computeMetadata/v1/instance/preempted"


@dataclass
class Service:
    """A metadata service that checks requests as strictly as the clouds do."""

    address: tuple[str, int] = ("", 0)
    responses: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    """A metadata service on loopback without an announcement."""
    metadata = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            head = self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            good = self.path == "/latest/api/token" and head
            self.reply(200 if good else 400, "a-token")

        def do_GET(self) -> None:
            metadata.asked.append(self.path)
            ec2 = self.headers["X-aws-ec2-metadata-token"] == "a-token"
            if not ec2 and self.headers["Metadata-Flavor"] != "Google":
                self.reply(401, "")
            elif self.path in metadata.responses:
                self.reply(200, metadata.responses[self.path])
            else:
                self.reply(404, "no")

        def reply(self, code: int, text: str) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        metadata.address = ("127.0.0.1", server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield metadata
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def query_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Query often: the real intervals are meant for minutes of notice."""
    asking = {kind: (ask, 0.05) for kind, (ask, _) in preemption_notice.QUERIES.items()}
    monkeypatch.setattr(preemption_notice, "QUERIES", asking)


def start_polling(agent_box: AgentBox, kind: str, address: tuple[str, int]) -> Path:
    """Start the polling; return the path of the notice file."""
    agent_box.describe(notice=kind)
    preemption_notice.listen(Box.load(str(agent_box.root)), address)
    return agent_box.root / "notice"


def test_ec2_announces_the_moment_of_a_preemption(
    agent_box: AgentBox, service: Service
) -> None:
    """
    EC2's announcement, requested with a token, contains the moment of the preemption.
    """
    notice = start_polling(agent_box, "ec2", service.address)
    until(lambda: len(service.asked) >= 3)
    assert set(service.asked) == {ACTION}
    assert not notice.exists()
    action = {"action": "terminate", "time": "2033-05-18T03:33:20Z"}
    service.responses[ACTION] = json.dumps(action)
    until(notice.exists)
    assert json.loads(notice.read_text()) == {"at": 2_000_000_000.0}
    assert notice.stat().st_mode & 0o777 == 0o644


def test_gce_announces_a_preemption_within_30_seconds(
    agent_box: AgentBox, service: Service
) -> None:
    """
    Google announces only that a preemption has begun: at most 30 seconds are left.
    """
    service.responses[PREEMPTED] = "FALSE"
    notice = start_polling(agent_box, "gce", service.address)
    until(lambda: len(service.asked) >= 3)
    assert not notice.exists()
    before = time.time()
    service.responses[PREEMPTED] = "TRUE"
    until(notice.exists)
    assert before + 30 <= json.loads(notice.read_text())["at"] <= time.time() + 30


def test_an_invalid_answer_is_no_notice(agent_box: AgentBox, service: Service) -> None:
    """An invalid answer is ignored, and the query is repeated until one is valid."""
    service.responses[ACTION] = "<html>"
    notice = start_polling(agent_box, "ec2", service.address)
    until(lambda: len(service.asked) >= 2)
    service.responses[ACTION] = '["list"]'
    count = len(service.asked)
    until(lambda: len(service.asked) >= count + 3)
    assert not notice.exists()
    service.responses[ACTION] = '{"time": "2033-05-18T03:33:20Z"}'
    until(notice.exists)


def test_no_thread_runs_without_a_metadata_service(agent_box: AgentBox) -> None:
    """On a box without such a cloud no thread is started."""
    before = set(threading.enumerate())
    start_polling(agent_box, "", ("127.0.0.1", 9))
    assert not set(threading.enumerate()) - before


def test_a_hanging_service_delays_nothing(
    agent_box: AgentBox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A service that accepts a connection and sends nothing blocks only its own thread.
    """
    monkeypatch.setattr(
        preemption_notice,
        "QUERIES",
        {"ec2": (preemption_notice.QUERIES["ec2"][0], 3600.0)},
    )
    with contextlib.closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        caller = threading.Thread(
            target=start_polling,
            args=(agent_box, "ec2", silent.getsockname()),
            daemon=True,
        )
        caller.start()
        caller.join(60)
        # If it waited for the answer, it would query again and never return.
        assert not caller.is_alive()
