"""
Processes of onebox that are forked from one that has imported everything already.

An `inv` line needs 0.3 s of CPU for its imports, and so does each local box for its ssh
server. The tests type hundreds of lines and start hundreds of boxes. Each process is
still one of its own, with its own command line, environment, folder, umask and files.
Lines with variables of Python start as for a user, except those that only load start
files of these tests (`load_late`). Boxes of such lines start as for a user.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
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
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import SocketIO
from types import ModuleType, SimpleNamespace
from typing import IO, Any

from tests.fakes import forked_process, warm_agents

ROOT = Path(__file__).parents[2]
# Not imported by a line that uses local boxes.
LEFT_OUT = ("agent.", "providers.")
# The server has a command line and an environment of this many bytes, so that those of
# the processes that it forks can be written there, for /proc to show their beginning.
# Every search for the processes of a box reads this much from each of them.
WORDS_BYTES = ENVIRON_BYTES = 8_000

# Values of PYTHONPATH whose start files may be loaded after onebox's own modules.
_late: set[str] = set()
_started = threading.Lock()
# The socket of the server that this process uses, by the id of this process.
_addresses: dict[int, str] = {}
_own: list[subprocess.Popen[bytes]] = []


def usable(environ: Mapping[str, str]) -> bool:
    """Return whether a forked process behaves as a new one with this environment."""
    new = [name for name in environ if name.startswith(("PYTHON", "LC_", "LD_"))]
    late = new == ["PYTHONPATH"] and environ["PYTHONPATH"] in _late
    return (late or not new) and environ.get("LANG") == "C.UTF-8"


def load_late(path: str) -> str:
    """Note that lines with this PYTHONPATH need not start as for a user; return it."""
    _late.add(path)
    return path


def run(
    words: Sequence[str],
    cwd: Path,
    environ: Mapping[str, str],
    timeout: float,
    *,
    program: str = "invoke",
) -> tuple[int, bytes, bytes]:
    """Run a line or code (see `Line`); return its exit code, its stdout and stderr."""
    ours, theirs = zip(os.pipe(), os.pipe())
    try:
        line = Line(words, cwd, environ, theirs, program=program)
    finally:
        for fd in theirs:
            os.close(fd)
    try:
        out, err = _read_all(ours, timeout)
        return line.wait(timeout), out, err
    except TimeoutError:
        line.kill()
        raise
    finally:
        line.close()
        for fd in ours:
            os.close(fd)


class Line(subprocess.Popen[bytes]):
    """
    A line of `inv` or `onebox`, or Python code, that runs.

    Args:
        files: The descriptors of its stdout and stderr, and of its stdin if it has one.

        program: The module that is run, "invoke" or "onebox"; or "-c", and the first
            word is the code.

        new_session: Whether it is the leader of a session of its own.
    """

    def __init__(
        self,
        words: Sequence[str],
        cwd: Path,
        environ: Mapping[str, str],
        files: Sequence[int],
        *,
        program: str = "invoke",
        new_session: bool = False,
    ) -> None:
        # The constructor of Popen would start a process.
        self.args = _command(program, words)
        self.stdin = self.stdout = self.stderr = None
        self.returncode = None
        request = {
            "line": [program, *words],
            "cwd": str(cwd),
            "environ": dict(environ),
            "umask": _umask(),
            "new_session": new_session,
            "fds": [0] if len(files) > 2 else [],
        }
        self._answers = _ask(request, files)
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        """Return the exit code, None as long as the line runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the line; return its exit code."""
        if self.returncode is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._answers.readline())
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the line has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def close(self) -> None:
        """Close the connection to the server."""
        self._answers.close()

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.close()

    def __del__(self, *_: object) -> None:
        self.close()


def warm_boxes() -> None:
    """Let the provider of local boxes start the supervisors of boxes as forks."""
    power: Any = importlib.import_module("onebox.providers.local.power")
    power.subprocess = SimpleNamespace(DEVNULL=subprocess.DEVNULL, run=_supervise)


def _supervise(
    command: Sequence[str],
    *,
    pass_fds: Sequence[int],
    stdout: IO[bytes],
    cwd: Path,
    env: Mapping[str, str],
    **_: Any,
) -> None:
    """Start the supervisor of a box, as `subprocess.run` would."""
    request = {
        "box": list(command),
        "cwd": str(cwd),
        "environ": dict(env),
        "umask": _umask(),
        "fds": list(pass_fds),
    }
    files = [stdout.fileno(), stdout.fileno(), *pass_fds]
    with _ask(request, files) as answers:
        # The first line is the process id, the second one the exit code.
        assert answers.readline()
        assert answers.readline()


def _ask(request: Mapping[str, Any], files: Sequence[int]) -> SocketIO:
    """Send a request to the server; return what it answers."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(_address())
        data = json.dumps(request).encode() + b"\n"
        socket.send_fds(server, [data[:1]], list(files))
        server.sendall(data[1:])
        return server.makefile("rb", buffering=0)


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
        if os.getpid() not in _addresses:
            path = tempfile.mktemp(prefix="inv-", dir="/tmp")
            environ = {k: v for k, v in os.environ.items() if k in ("PATH", "TERM")}
            room = {"ROOM": "." * ENVIRON_BYTES}
            server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.fakes.warm_processes", path),
                    "." * WORDS_BYTES,
                ],
                cwd=ROOT,
                env={**environ, **room, "LANG": "C.UTF-8"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            _own.append(server)
            _addresses[os.getpid()] = path
        return _addresses[os.getpid()]


# The server


def serve(path: str) -> None:
    """Fork a process for each request, until stdin is closed."""
    importlib.import_module("invoke.main")
    package = importlib.import_module("onebox")
    for module in pkgutil.walk_packages(package.__path__, "onebox."):
        if not module.name.partition(".")[2].startswith((*LEFT_OUT, "__main__")):
            importlib.import_module(module.name)
    for name in ("provider", "box_supervisor", "machine"):
        importlib.import_module(f"onebox.providers.local.{name}")
    # The settings of all providers.
    importlib.import_module("onebox.settings.schema").keys()
    warm_agents.import_agent()
    agent_bundle = importlib.import_module("onebox.agent_bundle")
    for pack in (agent_bundle.bundle, agent_bundle.seed, agent_bundle.bytecode):
        pack()
    # A forked process would otherwise copy the memory of all these objects.
    gc.collect()
    gc.freeze()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    print("ready", flush=True)
    # Who waits for the end of a child, by a descriptor that is ready then.
    waiting: dict[int, tuple[int, socket.socket]] = {}
    while True:
        ready, _, _ = select.select([listener, sys.stdin, *waiting], [], [])
        if sys.stdin in ready:
            Path(path).unlink()
            return
        for ended in waiting.keys() & set(ready):
            _report_end(*waiting.pop(ended))
            os.close(ended)
        if listener in ready:
            client, _ = listener.accept()
            pid = _start(client, path)
            waiting[os.pidfd_open(pid)] = pid, client


def _report_end(pid: int, client: socket.socket) -> None:
    _, status = os.waitpid(pid, 0)
    with client, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        client.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _start(client: socket.socket, address: str) -> int:
    """Run what is requested in a child of this process; return its process id."""
    first, fds, _, _ = socket.recv_fds(client, 1, 16)
    with client.makefile("rb") as requests:
        request = json.loads(first + requests.readline())
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(b"%d\n" % pid)
        return pid
    if request.get("new_session"):
        os.setsid()
    _take_files(fds, request.get("fds", []))
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    if "box" in request:
        _run_box_process(request["box"], request["environ"])
    program, *words = request["line"]
    command = _command(program, words)
    code = words.pop(0) if program == "-c" else None
    forked_process.become(command, [program, *words], request["environ"])
    sys.path[0] = request["cwd"] if code is None else ""
    if not _load_start_files(request["environ"]):
        # The boxes of this process are forked from the server too.
        _addresses[os.getpid()] = address
        warm_boxes()
    _run(program, code)
    # The parent goes on after the fork; this process ends here.
    sys.exit()


def _command(program: str, words: Sequence[str]) -> list[str]:
    """Return the command line that Python would start with."""
    module = [] if program == "-c" else ["-m"]
    return [sys.executable, *module, program, *words]


def _load_start_files(environ: Mapping[str, str]) -> bool:
    """
    Do what Python does at its start with the variables that `usable` or code allows.

    Return whether there are start files.
    """
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    if environ.get("PYTHONWARNINGS"):
        sys.warnoptions.append(environ["PYTHONWARNINGS"])
        warnings.simplefilter("error")
    path = [folder for folder in environ.get("PYTHONPATH", "").split(":") if folder]
    sys.path[1:1] = path
    found = any(Path(folder, "sitecustomize.py").exists() for folder in path)
    if found:
        sys.modules.pop("sitecustomize", None)
        importlib.import_module("sitecustomize")
    return found


def _run(program: str, code: str | None) -> None:
    """Run a module or code as Python does; end this process if that ends as usual."""
    result = 0
    try:
        if code is None:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(code, "<string>", "exec"), vars(main))
    except SystemExit as end:
        if not isinstance(end.code, (int, type(None))):
            raise
        result = end.code or 0
    except Exception as error:
        if code is None:
            raise
        # The frame of this function is none of the code's.
        trace = error.__traceback__
        error.with_traceback(trace and trace.tb_next)
        sys.excepthook(type(error), error, error.__traceback__)
        result = 1
    if sys.warnoptions:
        # Files that were not closed are warnings.
        vars(sys.modules["__main__"]).clear()
        gc.collect()
    forked_process.end(result)


def _take_files(received: Sequence[int], numbers: Sequence[int]) -> None:
    """Give the received files the numbers 1, 2 and *numbers*, and close all others."""
    high = [os.dup(fd) for fd in received]
    while max(high) <= max(numbers, default=2) or min(high) <= 2:
        high = [os.dup(fd) for fd in high]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    wanted = [1, 2, *numbers]
    for fd, number in zip(high, wanted):
        os.dup2(fd, number, inheritable=True)
    forked_process.close_all_but({0, *wanted})


def _run_box_process(command: Sequence[str], environ: Mapping[str, str]) -> None:
    """Run the supervisor or the machine of a box in this process, to its end."""
    _, _, _, _, _, module, _, *arguments = command
    code = 0
    try:
        forked_process.become(command, ["-c", *command[5:]], environ)
        process: Any = importlib.import_module(f"onebox.providers.local.{module}")
        if module == "box_supervisor":
            process.subprocess = SimpleNamespace(
                DEVNULL=subprocess.DEVNULL, Popen=_start_machine
            )
        else:
            warm_agents.fork_agents()
        process.main(arguments)
    except SystemExit as end:
        code = 1 if end.code else 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _start_machine(
    command: Sequence[str],
    *,
    pass_fds: Sequence[int],
    env: Mapping[str, str],
    **_: Any,
) -> None:
    """Start the machine of a box as a child of this process, its supervisor."""
    if os.fork():
        return
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    forked_process.close_all_but({0, 1, 2, *pass_fds})
    _run_box_process(command, env)


if __name__ == "__main__":
    serve(sys.argv[1])
