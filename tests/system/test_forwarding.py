"""Ports of the box that are reached from here: `inv ssh --forward`, `[run] ports`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import pytest

from tests.conftest import Project

# A program on the box that answers on the port $PORT until the file `end` is there.
SERVE = (
    "python3 -m http.server $PORT --bind 127.0.0.1 >served 2>&1 & "
    "while [ ! -e end ]; do sleep 0.1; done; kill $!"
)


def free_ports(count: int) -> list[int]:
    """Return ports that are free, each with a free one after it."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            after = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError, OverflowError):
                after.bind(("127.0.0.1", port + 1))
                found.append(port)
        return found


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """Let another program of this machine use a port."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def page(port: int, host: str = "127.0.0.1") -> str:
    """Return the page at a port of this machine, once something answers there."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://{host}:{port}/", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.1)


def tunnels(project: Project) -> list[int]:
    """Return the pids of the ssh processes of this project that forward ports."""
    found = subprocess.run(
        ["pgrep", "-f", f"^ssh -F {project.home}.* -L "],
        stdout=subprocess.PIPE,
        check=False,
    )
    return [int(pid) for pid in found.stdout.split()]


def test_ports_are_forwarded_while_a_command_runs(project: Project) -> None:
    """They lead from 127.0.0.1 to the box, and end with the command."""
    here, there, other = free_ports(3)
    project.inv("push")
    flags = [f"--forward={here}:{there}", f"--forward={other}:{there}"]
    line = project.start("ssh", *flags, "--", SERVE.replace("$PORT", str(there)))

    assert "job.sh" in page(here)
    assert "job.sh" in page(other)
    assert f"port {there} → http://127.0.0.1:{here}\n" in project.err
    # Other addresses of this machine do not lead to the box.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", here), timeout=5)
    assert tunnels(project)
    project.inv("ssh", "--", "touch end")
    assert 0 == line.wait(60)
    assert not tunnels(project)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", here), timeout=5)


def test_next_free_port_stands_in_for_a_busy_one(project: Project) -> None:
    """One line names both."""
    here, there = free_ports(2)
    project.inv("push")
    with listening(here):
        line = project.start(
            "ssh",
            f"--forward={here}:{there}",
            "--",
            SERVE.replace("$PORT", str(there)),
        )
        assert "job.sh" in page(here + 1)
    said = f"→ http://127.0.0.1:{here + 1}, because port {here} here is not free"
    assert said in project.err
    project.inv("ssh", "--", "touch end")
    assert 0 == line.wait(60)


def test_tunnel_ends_with_a_killed_command(project: Project) -> None:
    """Nothing forwards ports once the command that asked for them is gone."""
    here, there = free_ports(2)
    project.inv("push")
    line = project.start(
        "ssh", f"--forward={here}:{there}", "--", SERVE.replace("$PORT", str(there))
    )
    page(here)
    line.kill()
    line.wait()
    end = time.monotonic() + 60
    while tunnels(project):
        assert time.monotonic() < end
        time.sleep(0.1)


def test_ports_of_a_job_are_forwarded_across_a_broken_connection(
    project: Project,
) -> None:
    """`inv run` and `inv logs` forward them while they show the job."""
    here, there = free_ports(2)
    project.write(
        "onebox.toml",
        f'[run]\ncommand = "sh job.sh"\nports = ["{here}:{there}"]\n',
    )
    project.write("job.sh", SERVE.replace("$PORT", str(there)))
    line = project.start("run", "--keep")
    said = f"port {there} → http://127.0.0.1:{here}, once the job listens there"
    project.until(said)
    assert "job.sh" in page(here)
    (tunnel,) = tunnels(project)
    os.kill(tunnel, signal.SIGKILL)
    while tunnel in tunnels(project):
        time.sleep(0.05)
    assert "job.sh" in page(here)
    line.kill()
    line.wait()
    line = project.start("logs")
    project.until(said)
    assert "job.sh" in page(here)
    project.inv("ssh", "--", "touch end")
    assert 0 == line.wait(60)


def test_port_of_a_local_box_that_is_taken_here_is_named(project: Project) -> None:
    """A local box has the ports of this machine, so it needs no forwarding."""
    (port,) = free_ports(1)
    project.write("onebox.toml", f'[run]\ncommand = "sh job.sh"\nports = [{port}]\n')
    with listening(port):
        done = project.inv("run")
    assert 0 == done.code
    assert f"in use on this machine: port {port}" in done.err
    free = project.inv("run")
    assert "in use" not in free.err
    shared = "because a local box has the ports of this machine"
    assert f"port {port} → http://127.0.0.1:{port}, {shared}" in free.err


@pytest.mark.parametrize("value", ["x", "0", "70000", "80:", "1:2:3", "--dry"])
def test_wrong_port_is_refused_with_an_example(project: Project, value: str) -> None:
    """Before anything else happens."""
    done = project.inv("ssh", f"--forward={value}")

    assert 64 == done.code
    assert f'--forward: "{value}" is no port' in done.err
    assert "next: inv ssh --forward=8888" in done.err
