"""The client of Ray's Jobs REST API, against heads that answer wrongly or never."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.agent.ray import jobs_api, submission
from onebox.agent.ray.jobs_api import Forbidden, RayCluster, RayError, Unreachable

Answer = Callable[[socket.socket, bytes], None]


class Head:
    """A head that answers each request with what *answer* writes."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.clients: list[RayCluster] = []
        self.answer: Answer = reply(200, {"ray_version": "2.60", "session_name": "s"})
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Close the listening socket, and wait for all answers."""
        # A call of accept does not notice that its socket is closed.
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for client in self.clients:
            client.close()
        for thread in self._threads:
            thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                words = (connection,)
                thread = threading.Thread(target=self._talk, args=words, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            data = connection.recv(1 << 16)
            self.requests.append(data)
            self.answer(connection, data)


def reply(status: int, body: object) -> Answer:
    """Return an answer with a status and a body."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer(connection: socket.socket, request: bytes) -> None:
        connection.sendall(
            b"HTTP/1.1 %d X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (status, len(text), text)
        )

    return answer


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    """A head; an answer may take two seconds."""
    monkeypatch.setattr(jobs_api, "TIMEOUT", 2.0)
    monkeypatch.setattr(jobs_api, "DOWNLOAD_TIMEOUT", 2.0)
    monkeypatch.setenv("TOKEN", "tiger")
    head = Head()
    yield head
    head.close()


def api(head: Head) -> RayCluster:
    """Return the client of a head, which closes it."""
    url = f"http://127.0.0.1:{head.port}"
    found = RayCluster({"url": url, "ssh": [], "token": "TOKEN"})
    head.clients.append(found)
    return found


def test_the_token_is_sent(head: Head) -> None:
    """It is that of the variable, and without one there is no header."""
    assert "2.60" == api(head).version()
    assert b"Authorization: Bearer tiger\r\n" in head.requests[0]


def slow(connection: socket.socket, request: bytes) -> None:
    """Answer a byte now and then."""
    connection.sendall(b"HTTP/1.1 200 X\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(40):
        connection.sendall(b" ")
        time.sleep(0.1)


def forever(connection: socket.socket, request: bytes) -> None:
    """Promise an answer again and again."""
    for _ in range(4_000):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.001)


def silent(connection: socket.socket, request: bytes) -> None:
    """Answer nothing."""
    time.sleep(3)


@pytest.mark.parametrize(
    "answer",
    [
        slow,
        forever,
        silent,
        reply(200, b"<html>"),
        reply(200, b"[" * 100_000),
        reply(200, []),
        reply(200, {"ray_version": 7}),
        reply(302, b""),
        reply(500, b"\xff\xfe"),
        lambda connection, request: connection.sendall(b"SSH-2.0-x\r\n" * 1000),
        lambda connection, request: None,
    ],
)
def test_head_that_answers_wrongly_is_named_in_time(head: Head, answer: Answer) -> None:
    """No answer makes the client wait without an end, or fail otherwise."""
    head.answer = answer
    began = time.monotonic()
    with pytest.raises(Unreachable) as raised:
        api(head).version()
    assert time.monotonic() - began < 10
    assert str(raised.value).isprintable()


def test_token_that_is_refused_is_named(
    head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is in no message."""
    head.answer = reply(403, b"no")
    with pytest.raises(Forbidden, match="refuses the token in TOKEN"):
        api(head).version()
    monkeypatch.delenv("TOKEN")
    with pytest.raises(Forbidden, match="TOKEN is not set"):
        api(head).version()


def test_answer_has_a_limit(head: Head) -> None:
    """A file of a log that is longer is not read to its end."""
    head.answer = reply(200, bytes(1 << 20))
    with pytest.raises(Unreachable, match="too long"):
        api(head).log_file("node", "x", 1000)
    head.answer = reply(500, b"A file is not found at: /tmp/x")
    assert None is api(head).log_file("node", "x", 1000)


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (200, b"{}", None),
        (
            500,
            b"... status code 400: ... Job with submission_id x already exists.",
            None,
        ),
        (400, b"Traceback\nValueError: bad runtime_env", RayError),
        (500, b"failed with status code 400: x\nValueError: bad", RayError),
        (500, b"No available agent to submit job", Unreachable),
        (502, b"", Unreachable),
    ],
)
def test_submission_is_refused_only_if_that_is_certain(
    head: Head, status: int, text: bytes, error: type[RayError] | None
) -> None:
    """After any other answer the job may be there, and it is asked for again."""
    head.answer = reply(status, text)
    if error is None:
        api(head).submit({"submission_id": "x"})
        return
    with pytest.raises(RayError) as raised:
        api(head).submit({"submission_id": "x"})
    assert error is type(raised.value)


def test_head_that_was_started_again_has_forgotten_the_job(
    head: Head, tmp_path: Path
) -> None:
    """The job may have run, so it is not submitted to the new head."""
    (tmp_path / submission.TRIED).write_text("s")
    assert not submission.is_forgotten(str(tmp_path), api(head))
    head.answer = reply(200, {"session_name": "another"})
    assert submission.is_forgotten(str(tmp_path), api(head))
    (tmp_path / submission.TRIED).unlink()
    assert not submission.is_forgotten(str(tmp_path), api(head))


def test_ids_that_are_not_plain_are_left_out(head: Head) -> None:
    """They are not onebox's."""
    ids = ["onebox-1", "\ud800", "../x", "", None, 7]
    head.answer = reply(200, [{"submission_id": one} for one in ids] + [3])
    assert ["onebox-1"] == [one["submission_id"] for one in api(head).jobs()]


def test_package_is_sent_whole(head: Head) -> None:
    """Its length is known to the head."""
    head.answer = reply(200, b"")
    api(head).put_package("p.zip", io.BytesIO(b"x" * 100), 100)
    assert b"PUT /api/packages/gcs/p.zip HTTP" in head.requests[0]
    assert b"Content-Length: 100\r\n" in head.requests[0]
