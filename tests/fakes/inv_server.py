"""
`inv` lines in processes that are forked from one that has imported onebox already.

A line needs 0.3 s of CPU for its imports, and the tests type hundreds of lines. Each
line is still a process of its own, with its own environment, folder, umask and pipes.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Not imported by a line that uses local boxes.
LEFT_OUT = ("agent.", "providers.")

_started = threading.Lock()
_servers: dict[int, tuple[subprocess.Popen[bytes], str]] = {}


def run(
    words: Sequence[str], cwd: Path, environ: Mapping[str, str], timeout: float
) -> tuple[int, bytes, bytes]:
    """Run an `inv` line; return its exit code, its stdout and its stderr."""
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(timeout)
        server.connect(_address())
        ours, theirs = zip(os.pipe(), os.pipe())
        request = [list(words), str(cwd), dict(environ), _umask()]
        data = json.dumps(request).encode() + b"\n"
        socket.send_fds(server, [data[:1]], list(theirs))
        server.sendall(data[1:])
        for fd in theirs:
            os.close(fd)
        with server.makefile("rb") as answers:
            pid = int(answers.readline())
            try:
                out, err = _read_all(ours, timeout)
                return int(answers.readline()), out, err
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            finally:
                for fd in ours:
                    os.close(fd)


def usable(environ: Mapping[str, str]) -> bool:
    """Return whether a forked process behaves as a new one with this environment."""
    new = [name for name in environ if name.startswith(("PYTHON", "LC_", "LD_"))]
    return not new and environ.get("LANG") == "C.UTF-8"


def _read_all(fds: Sequence[int], timeout: float) -> tuple[bytes, bytes]:
    """Return what is written to two pipes until every writer has closed them."""
    texts = dict.fromkeys(fds, b"")
    is_open = set(fds)
    while is_open:
        ready, _, _ = select.select(list(is_open), [], [], timeout)
        if not ready:
            raise TimeoutError("the line takes too long")
        for fd in ready:
            data = os.read(fd, 1 << 16)
            texts[fd] += data
            if not data:
                is_open.remove(fd)
    out, err = fds
    return texts[out], texts[err]


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _address() -> str:
    """Return the socket of this process's server, which ends with this process."""
    with _started:
        if os.getpid() not in _servers:
            path = tempfile.mktemp(prefix="inv-", dir="/tmp")
            environ = {k: v for k, v in os.environ.items() if k in ("PATH", "TERM")}
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.fakes.inv_server", path],
                cwd=ROOT,
                env={**environ, "LANG": "C.UTF-8"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            _servers[os.getpid()] = server, path
        return _servers[os.getpid()][1]


def serve(path: str) -> None:
    """Fork a process for each line, until stdin is closed."""
    importlib.import_module("invoke.main")
    package = importlib.import_module("onebox")
    for module in pkgutil.walk_packages(package.__path__, "onebox."):
        if not module.name.partition(".")[2].startswith((*LEFT_OUT, "__main__")):
            importlib.import_module(module.name)
    importlib.import_module("onebox.providers.local.provider")
    # The handlers of lines are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            Path(path).unlink()
            return
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.detach()
            _handle(client)
        client.close()


def _handle(client: socket.socket) -> None:
    """Run the requested line in a child of this process; report its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    first, fds, _, _ = socket.recv_fds(client, 1, 2)
    with client.makefile("rb") as requests:
        words, cwd, environ, umask = json.loads(first + requests.readline())
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        client.sendall(b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        with contextlib.suppress(BrokenPipeError):
            client.sendall(b"%d\n" % code)
        os._exit(0)
    for number, fd in enumerate([os.open(os.devnull, os.O_RDONLY), *fds]):
        os.dup2(fd, number)
    os.closerange(3, 1024)
    client.detach()
    os.umask(umask)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    sys.path[0] = cwd
    sys.argv = ["invoke", *words]
    runpy.run_module("invoke", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    serve(sys.argv[1])
