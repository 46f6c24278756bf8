"""
A process that reads parts of objects, with several threads.

The agent sends tasks, and gets results and counts of bytes, as lines of JSON over a
socket. When the agent closes the socket or dies, the process ends at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import threading
import time
from typing import Any, Dict, List, Tuple

from ..box import BoxConfig, cpus
from .http_source import BUFFER, Failed, Part, Reader, md5

THREADS = 4
# The processes, and so the connections, that a download has at most.
MOST_PROCESSES = 16
LEAST_PROCESSES = 2
# A thread reports the bytes that it has written at this interval, in seconds.
REPORT_SECONDS = 0.2


class Worker:
    """
    The agent's end of a worker process.

    Attributes:
        tasks: The ids of the tasks that it works on, or that wait there.
    """

    def __init__(self, folder: int) -> None:
        mine, its = socket.socketpair()
        self.tasks: Dict[int, int] = {}
        self.socket = mine
        self._rest = b""
        self.pid = os.fork()
        if not self.pid:
            try:
                # With a copy of the agent's end of a socket, no process would notice
                # that the agent is gone. With one of its lock, no other agent could
                # take it.
                _close_all_but(its.fileno(), folder)
                _run(its, folder)
            finally:
                os._exit(1)
        its.close()

    def send(self, task: Dict[str, Any]) -> None:
        """Give a task to the process."""
        self.tasks[task["id"]] = 0
        self.socket.sendall(json.dumps(task).encode("ascii") + b"\n")

    def receive(self) -> List[Dict[str, Any]]:
        """
        Return the messages that have arrived; some may have.

        Raises:
            EOFError: The process has died.
        """
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End the process."""
        self.socket.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def count_for(box: BoxConfig) -> int:
    """
    Return how many processes a download has.

    On a cluster, it is the login node that downloads, and others use it too.
    """
    return (
        LEAST_PROCESSES
        if box.engine
        else min(max(cpus(), LEAST_PROCESSES), MOST_PROCESSES)
    )


def _close_all_but(*kept: int) -> None:
    """Close all descriptors except these, and the standard ones."""
    for name in os.listdir("/dev/fd"):
        if int(name) > 2 and int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _run(its: socket.socket, folder: int) -> None:
    # The agent's connection to the client belongs to the agent alone.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)
    # One that is forked has the agent's handlers.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    tasks: queue.Queue[Dict[str, Any]] = queue.Queue()
    output = _Output(its)
    for _ in range(THREADS):
        thread = _Thread(tasks, output, folder)
        threading.Thread(target=thread.run, daemon=True).start()
    for line in its.makefile("rb"):
        tasks.put(json.loads(line))
    os._exit(0)


class _Output:
    """Sends messages to the agent, from any thread."""

    def __init__(self, its: socket.socket) -> None:
        self._socket = its
        self._lock = threading.Lock()

    def send(self, message: Dict[str, Any]) -> None:
        try:
            with self._lock:
                self._socket.sendall(json.dumps(message).encode("ascii") + b"\n")
        except OSError:
            os._exit(0)


class _Thread:
    """Carries out one task after the other."""

    def __init__(
        self, tasks: queue.Queue[Dict[str, Any]], output: _Output, folder: int
    ) -> None:
        self._tasks = tasks
        self._output = output
        self._folder = folder
        self._reader = Reader(self._moved)
        self._task = 0
        self._count = 0
        self._reported = 0.0

    def run(self) -> None:
        while True:
            task = self._tasks.get()
            self._task, self._count = task["id"], 0
            answer: Dict[str, Any] = {"id": self._task}
            try:
                sums, comparable = self._carry_out(task)
                answer.update(sums=sums, comparable=comparable)
            except Failed as error:
                answer.update(kind=error.kind, message=error.message)
            except Exception as error:
                answer.update(kind="mistake", message=repr(error))
            self._output.send({**answer, "moved": self._count})

    def _carry_out(self, task: Dict[str, Any]) -> Tuple[List[str], bool]:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(task["name"], flags, dir_fd=self._folder)
        try:
            if "part" in task:
                return self._reader.read(Part(*task["part"]), fd)
            return [_sum_of(fd, task["size"])], True
        finally:
            os.close(fd)

    def _moved(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now > self._reported + REPORT_SECONDS:
            self._reported = now
            self._output.send({"id": self._task, "so_far": self._count})


def _sum_of(fd: int, size: int) -> str:
    """Return the MD5 sum of a file, "" if this Python has no MD5."""
    total = md5()
    if total is None:
        return ""
    buffer = memoryview(bytearray(BUFFER))
    at = 0
    while at < size:
        count = os.preadv(fd, [buffer], at)
        if not count:
            return "short"
        total.update(buffer[:count])
        at += count
    return str(total.hexdigest())
