"""
Speak Ray's Jobs REST API, and read files of a node's log folder.

The addresses and fields are those of Ray 2.60 (docs.ray.io, "Ray Jobs REST API" and
"State API"). What a cluster answers is not trusted: it has a limited length, and its
fields are checked where they are used.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import tempfile
import threading
from typing import IO, Any, Dict, List, Optional, Tuple
from urllib.parse import quote, urlencode, urlsplit

# Seconds that the cluster may take for an answer, for a package, and for a file.
TIMEOUT, UPLOAD_TIMEOUT, DOWNLOAD_TIMEOUT = 60.0, 3600.0, 300.0
# An answer in JSON has at most this many bytes. A list of jobs is the longest one.
LONGEST = 64 << 20
# The ids of jobs and nodes that are used; others are not onebox's.
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,250}")
# A message of the cluster is shortened to this length.
BRIEF = 300
# A package has at most this many bytes (`DASHBOARD_CLIENT_MAX_SIZE` in Ray).
LARGEST_PACKAGE = 100 << 20
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
DROP = "onebox-drop-"
# A job that has not started is an actor that waits. These are the names that Ray 2.60
# gives to it (`ray.dashboard.modules.job.common`).
ACTORS = "SUPERVISOR_ACTOR_RAY_NAMESPACE"
_DROP = (
    "python -c \"import ray; ray.init(address='auto', log_to_driver=False); "
    "ray.kill(ray.get_actor('_ray_internal_job_actor_%s', namespace='%s'))\""
)


class RayError(Exception):
    """The cluster refuses a request."""


class Unreachable(RayError):
    """The cluster does not answer, or not as Ray does; it may have got the request."""


class Forbidden(Unreachable):
    """The cluster wants another token."""


class RayCluster:
    """
    A Ray cluster, reached at its head.

    Args:
        reach: How the head is reached: its `url`; `ssh`, a command that connects its
            input and output to the head's address, [] without one; and `token`, the
            name of the environment variable with the token.
    """

    def __init__(self, reach: Dict[str, Any]) -> None:
        self._url = urlsplit(str(reach["url"]))
        self._ssh = [str(word) for word in reach.get("ssh", [])]
        self._token_name = str(reach.get("token", ""))
        self._connection: Optional[http.client.HTTPConnection] = None

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def version(self) -> str:
        """Return the version of Ray."""
        return self._about("ray_version")[:40]

    def session(self) -> str:
        """Return the name of the head's session, another one after each start."""
        return self._about("session_name")[:200]

    def _about(self, name: str) -> str:
        text = self._json("GET", "/api/version").get(name)
        if not isinstance(text, str):
            raise Unreachable("its answer has no %s: is it Ray's dashboard?" % name)
        return text

    def nodes(self) -> List[Dict[str, Any]]:
        """Return the nodes that are alive."""
        query = urlencode({"detail": "1", "limit": "10000"})
        found = self._json("GET", "/api/v0/nodes?" + query)
        try:
            nodes = found["data"]["result"]["result"]
            return [one for one in nodes if one.get("state") == "ALIVE"]
        except (KeyError, TypeError, AttributeError) as error:
            raise Unreachable("its list of nodes is not valid") from error

    def has_package(self, name: str) -> bool:
        """Return whether the cluster has a package, which then stays for a while."""
        status, answer = self._call("GET", "/api/packages/gcs/" + quote(name))
        if status not in (200, 404):
            raise _refusal(status, answer)
        return status == 200

    def put_package(self, name: str, data: IO[bytes], size: int) -> None:
        """Store a package of *size* bytes."""
        path = "/api/packages/gcs/" + quote(name)
        status, answer = self._call("PUT", path, data, size, UPLOAD_TIMEOUT)
        if status != 200:
            raise _refusal(status, answer)

    def submit(self, body: Dict[str, Any]) -> None:
        """
        Submit a job, unless the cluster has a job with its `submission_id`.

        Raises:
            RayError: The cluster refuses the job; it does not run.

            Unreachable: The cluster may have the job, or may not.
        """
        data = json.dumps(body).encode("ascii")
        status, answer = self._call("POST", "/api/jobs/", data)
        text = answer.decode("utf-8", "replace")
        if status == 200 or "already exists" in text:
            return
        # The head passes on what a node answers as an error of its own.
        if status == 400 or "failed with status code 400" in text:
            raise _refusal(status, answer)
        raise Unreachable(str(_refusal(status, answer)))

    def job(self, id: str) -> Optional[Dict[str, Any]]:
        """Return the details of a job, None if the cluster does not know it."""
        status, answer = self._call("GET", "/api/jobs/" + quote(id))
        if status == 404:
            return None
        if status != 200:
            raise Unreachable(str(_refusal(status, answer)))
        return _object(answer)

    def jobs(self) -> List[Dict[str, Any]]:
        """Return the details of all jobs that were submitted through this API."""
        status, answer = self._call("GET", "/api/jobs/")
        if status != 200:
            raise Unreachable(str(_refusal(status, answer)))
        found = _value(answer)
        if not isinstance(found, list):
            raise Unreachable("its list of jobs is not valid")
        return [
            one
            for one in found
            if isinstance(one, dict)
            and isinstance(one.get("submission_id"), str)
            and ID.fullmatch(one["submission_id"])
        ]

    def stop(self, id: str) -> None:
        """Stop a job; a job that has ended or is unknown is no error."""
        status, answer = self._call("POST", "/api/jobs/%s/stop" % quote(id))
        if status not in (200, 404):
            raise Unreachable(str(_refusal(status, answer)))

    def drop(self, id: str) -> None:
        """
        Drop a job that waits for resources; `stop` ends it only after its start.

        Another job does that, whose id is that of the job after `DROP`.
        """
        self.submit({"entrypoint": _DROP % (id, ACTORS), "submission_id": DROP + id})

    def delete(self, id: str) -> None:
        """Delete the record of a job that has ended; it may be unknown."""
        status, answer = self._call("DELETE", "/api/jobs/" + quote(id))
        if status not in (200, 404):
            raise Unreachable(str(_refusal(status, answer)))

    def log_file(self, node: str, path: str, most: int) -> Optional[bytes]:
        """
        Return a file in the log folder of a node, None if it is missing.

        Raises:
            Unreachable: It has more than *most* bytes, or cannot be read now.
        """
        query = urlencode({"node_id": node, "filename": path, "lines": "-1"})
        path = "/api/v0/logs/file?" + query
        status, answer = self._call("GET", path, timeout=DOWNLOAD_TIMEOUT, most=most)
        if status == 200:
            return answer
        # A missing file is an error of the server, with this text.
        if b"not found" in answer and b"file" in answer.lower():
            return None
        raise Unreachable(str(_refusal(status, answer)))

    def _json(self, method: str, path: str) -> Dict[str, Any]:
        status, answer = self._call(method, path)
        if status != 200:
            raise Unreachable(str(_refusal(status, answer)))
        return _object(answer)

    def _call(
        self,
        method: str,
        path: str,
        data: Any = None,
        size: Optional[int] = None,
        timeout: float = 0.0,
        most: int = LONGEST,
    ) -> Tuple[int, bytes]:
        """
        Send a request; return the status and the body of the answer.

        Each request can be sent twice, so it is repeated once if a connection that was
        open breaks.
        """
        headers = {
            "Content-Type": "application/octet-stream" if size else "application/json"
        }
        token = os.environ.get(self._token_name, "") if self._token_name else ""
        if token:
            headers["Authorization"] = "Bearer " + token
        if size is not None:
            headers["Content-Length"] = str(size)
        timeout = timeout or TIMEOUT
        was_open = self._connection is not None
        try:
            return self._send(
                method, self._url.path.rstrip("/") + path, data, headers, timeout, most
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = self._why(error)
            self.close()
            if not was_open or size is not None:
                raise Unreachable(why) from error
        return self._call(method, path, data, size, timeout, most)

    def _send(
        self,
        method: str,
        path: str,
        data: Any,
        headers: Dict[str, str],
        timeout: float,
        most: int,
    ) -> Tuple[int, bytes]:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        if connection.sock is None:
            connection.timeout = timeout
            connection.connect()
        # A head that sends a byte now and then would never exceed a timeout.
        limit = threading.Timer(timeout, _shut, [connection.sock])
        limit.daemon = True
        limit.start()
        try:
            connection.sock.settimeout(timeout)
            connection.request(method, path, body=data, headers=headers)
            response = connection.getresponse()
            answer = response.read(most + 1)
        finally:
            limit.cancel()
        if len(answer) > most:
            self.close()
            raise Unreachable("its answer is too long")
        if response.status in (401, 403):
            raise Forbidden(self._about_token(response.status))
        return response.status, answer

    def _connect(self) -> http.client.HTTPConnection:
        host = self._url.hostname or "127.0.0.1"
        if self._ssh:
            return _SSHConnection(host, self._ssh)
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, self._url.port, context=context)
        return http.client.HTTPConnection(host, self._url.port)

    def _about_token(self, status: int) -> str:
        name = self._token_name or "RAY_AUTH_TOKEN"
        if os.environ.get(name):
            return "it refuses the token in %s (HTTP %d)" % (name, status)
        return "it wants a token, and %s is not set (HTTP %d)" % (name, status)

    def _why(self, error: Exception) -> str:
        """Return the reason of a missing answer: the message of ssh, if it is used."""
        if isinstance(self._connection, _SSHConnection):
            message = self._connection.message()
            if message:
                return message
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return _brief(str(text)).strip()


class _SSHConnection(http.client.HTTPConnection):
    """A connection over the input and output of ssh, which connects to the head."""

    def __init__(self, host: str, words: List[str]) -> None:
        super().__init__(host)
        self._words = words
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._errors: Optional[IO[bytes]] = None
        self._last_message = ""

    def connect(self) -> None:
        """Start ssh."""
        ours, its = socket.socketpair()
        with its:
            # A shared connection that ssh leaves running may keep this file open.
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with ssh
            self._process = subprocess.Popen(
                self._words,
                stdin=its.fileno(),
                stdout=its.fileno(),
                stderr=self._errors,
            )
        ours.settimeout(self.timeout)
        self.sock = ours

    def message(self) -> str:
        """Return the last message of ssh, "" if there is none."""
        if self._errors is None or self._process is None:
            # http.client may have closed the connection already.
            return self._last_message
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(self._errors.tell() - 4096, 0))
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        # Its own messages say more than those of the protocol.
        own = [line for line in lines if line.startswith("ssh: ")]
        return _brief((own or lines)[-1]) if lines else ""

    def close(self) -> None:
        """Close the connection, and end ssh."""
        super().close()
        self._last_message = self.message()
        if self._process is not None:
            try:
                self._process.wait(1.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _refusal(status: int, answer: bytes) -> RayError:
    """Return the error for an answer; the last line of a traceback says it best."""
    text = answer.decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip(" .\t\r")]
    why = _brief(lines[-1]) if lines else ""
    for prefix in ("ValueError: ", "RuntimeError: ", "TypeError: "):
        if why.startswith(prefix):
            why = why[len(prefix) :]
    return RayError(why or "HTTP %d" % status)


def _brief(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:BRIEF]


def _value(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise Unreachable("its answer is not JSON: is it Ray's dashboard?") from error


def _object(answer: bytes) -> Dict[str, Any]:
    value = _value(answer)
    if not isinstance(value, dict):
        raise Unreachable("its answer is not valid: is it Ray's dashboard?")
    return value
