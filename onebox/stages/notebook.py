"""Run Jupyter on the box, reachable from this machine while the command runs."""

from __future__ import annotations

import contextlib
import http
import http.client
import os
import secrets
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from onebox.agent.file_names import printable
from onebox.boxes import bring_up
from onebox.errors import BoxFailed, ConnectionLost, OneboxError
from onebox.images import jupyter_env
from onebox.jobs import ports
from onebox.remote import forwarding
from onebox.remote.forwarding import HERE
from onebox.settings.ports import PortPair
from onebox.signals import Interrupted, signals_delayed
from onebox.stages import notebook_files, ssh

if TYPE_CHECKING:
    from onebox.context import BoxContext

PORT = 8888
# How long the installation and the start may take, in seconds.
INSTALL_SECONDS = 900.0
START_SECONDS = 180.0
# The server on the box ends if this machine is silent for longer than
# `agent.jobs.session.SILENCE`.
SIGN_OF_LIFE_SECONDS = 10.0
# After the end of its input, the server has this many seconds to end.
END_SECONDS = 30.0
# This machine keeps only this many of the last bytes that the box prints, and reads
# them for at most this many seconds after the process has ended.
TAIL = 1 << 16
TAIL_SECONDS = 2.0
LAST_LINES = 5


def perform(context: BoxContext) -> None:
    """
    Run Jupyter until Ctrl-C or until it ends by itself, then fetch its files.

    It runs in the job's folder and environment, and listens on the box's 127.0.0.1
    only. It ends with this command or with its connection. The box stays.

    Raises:
        BoxFailed: Jupyter could not be installed or started.

        ConnectionLost: The connection broke, so Jupyter has ended.
        OutputsHeld: Some files of the session are not here; the box has them.
    """
    context.lock()
    box = bring_up.wait_until_reachable(context)
    python, remote = _find_jupyter(context)
    notebook_files.bring_back(context)
    # A file system may round times down, so the session begins a little earlier.
    began = time.time() + context.ssh(box).clock_ahead - 1.0
    # The box is kept from now on, until all files of the session are here.
    context.store.update(session=began)
    token = secrets.token_hex(16)
    (port,) = forwarding.choose(
        [PortPair(PORT, remote)], shared=context.provider.shares_ports
    )
    command = _command(python, remote)
    answer = ssh.prepare(
        context,
        context.ssh(box),
        f"exec {shlex.join(command)}",
        env={"JUPYTER_TOKEN": token},
        guard=True,
    )
    with contextlib.ExitStack() as stack:
        connection = context.ssh(box)
        argv = [*connection.argv("-T"), answer]
        server = _Server(argv, connection.environment())
        stack.callback(server.end)
        stack.enter_context(forwarding.forwarding(context.ssh(box), [port]))
        stack.enter_context(ports.forwarded(context, box, ports.of_job(context)))
        interrupted = None
        try:
            with context.screen.stage("notebook") as stage_line:
                stage_line.doing("starting")
                _wait_until_up(server, port.local, token)
                stage_line.end("", "Ctrl-C stops it and fetches the notebooks")
            context.screen.print(f"{port.url}/lab?token={token}")
            _stay(context, server)
        except Interrupted as error:
            interrupted = error
        with signals_delayed():
            server.end()
    with signals_delayed():
        # Until the box notices that the connection is gone, Jupyter may write. What it
        # writes then is fetched by the next command.
        notebook_files.bring_back(context, during=server.lost_connection)
    if interrupted is not None and interrupted.number != signal.SIGINT:
        raise interrupted
    if server.lost_connection:
        raise ConnectionLost(
            "the connection broke, so Jupyter ends; what it has written is here",
            next="inv notebook, or inv fetch for what it has written since",
        )


def _find_jupyter(context: BoxContext) -> tuple[str, int]:
    """
    Return the interpreter of the box that has Jupyter, and a free port of the box.

    Raises:
        BoxFailed: Jupyter is missing and cannot be installed.
    """
    connection, context.chain.stage = context.ssh(), "jupyter"
    with context.screen.stage("jupyter") as stage_line:
        stage_line.doing("looking for Jupyter, or installing it")
        env = dict(context.settings.image.env)
        command = ssh.prepare(
            context, connection, shlex.join(jupyter_env.argv()), env=env
        )
        process = subprocess.Popen(
            [*connection.argv("-T"), command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=connection.environment(),
            start_new_session=True,
        )
        output, errors = Tail(process.stdout), Tail(process.stderr)
        try:
            process.wait(INSTALL_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise BoxFailed(
                f"Jupyter is not installed on the box after {INSTALL_SECONDS:.0f} s",
                next="add jupyterlab to [image] requirements, then inv image provision",
            ) from error
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        lines = output.text().strip().splitlines()
        found = jupyter_env.FOUND.fullmatch(lines[-1]) if lines else None
        if process.returncode or found is None or not 0 < int(found["port"]) < 65536:
            raise BoxFailed(
                f"Jupyter cannot be installed on the box:{_quoted(errors.text())}",
                next="add jupyterlab to [image] requirements, then inv image provision",
            )
        stage_line.end("", "installed")
    context.chain.stage = "notebook"
    return found["python"], int(found["port"])


def _command(python: str, port: int) -> list[str]:
    """Return the words that start Jupyter; the token is in the environment."""
    return [
        python,
        "-m",
        "jupyterlab",
        "--no-browser",
        # On a cloud the job may run as root, and the box has no other use.
        "--allow-root",
        f"--ServerApp.ip={HERE}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        "--ServerApp.open_browser=False",
    ]


class Tail:
    """The last bytes that a process on the box prints."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._stream, self._end = stream, b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Return the end; if the process has ended, the end of all it has printed."""
        self._thread.join(TAIL_SECONDS)
        return self._end.decode("utf-8", "replace")

    def _read(self) -> None:
        with self._stream:
            while data := os.read(self._stream.fileno(), TAIL):
                self._end = (self._end + data)[-TAIL:]


class _Server:
    """Jupyter on the box, which ends when the input of its ssh process ends."""

    def __init__(self, argv: list[str], env: Mapping[str, str]) -> None:
        self._ended_by_us = False
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )
        self._log = Tail(self._process.stdout)

    @property
    def lost_connection(self) -> bool:
        """Return whether ssh has failed; it exits with 255 then."""
        return self._process.returncode == 255 and not self._ended_by_us

    def runs(self, seconds: float) -> bool:
        """Wait this long; return whether the server still runs."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def sign_of_life(self) -> None:
        """Tell the box that this machine is still connected."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """End the server, and wait until it has ended."""
        if self._process.poll() is not None:
            return
        self._ended_by_us = True
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if self.runs(END_SECONDS):
            self._process.terminate()
            self._process.wait()

    def last_lines(self) -> str:
        """Return the end of what the server has printed."""
        return _quoted(self._log.text())


def _wait_until_up(server: _Server, port: int, token: str) -> None:
    """Wait until Jupyter answers. Raises BoxFailed if it ends or is too slow."""
    end = time.monotonic() + START_SECONDS
    while server.runs(0.2) and time.monotonic() < end:
        server.sign_of_life()
        # The program of another user must not get the token.
        if not forwarding.is_ours(port):
            continue
        # Only the status of the answer is read, and a redirect is not followed.
        request = http.client.HTTPConnection(HERE, port, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException):
            request.request(
                "GET", "/api/status", headers={"Authorization": f"token {token}"}
            )
            if request.getresponse().status == http.HTTPStatus.OK:
                return
    raise BoxFailed(
        f"Jupyter did not start on the box:{server.last_lines()}",
        next="inv ssh to look",
    )


def _stay(context: BoxContext, server: _Server) -> None:
    """Wait until the server ends; fetch changed files at intervals."""
    every = context.settings.fetch.every
    fetched = time.monotonic()
    while server.runs(SIGN_OF_LIFE_SECONDS):
        server.sign_of_life()
        # The open channel renews the lease.
        with contextlib.suppress(OneboxError):
            context.ssh().channel()
            if time.monotonic() - fetched >= every:
                fetched = time.monotonic()
                notebook_files.bring_back(context, during=True)


def _quoted(output: str) -> str:
    lines = output.strip().splitlines()[-LAST_LINES:] or ["it printed nothing"]
    return "".join(f"\n    {printable(line[:400])}" for line in lines)
