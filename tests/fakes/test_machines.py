"""Machines boot, reboot and power off as machines do, and leave nothing behind."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.fakes.machines import Machine, Machines
from tests.fakes.machines.boxes import UP, BoxMaker, until
from tests.fakes.machines.boxes import machines as machines
from tests.fakes.machines.boxes import maker as maker
from tests.fakes.machines.metadata import EC2
from tests.fakes.machines.network import Network, Relay, random_address

USER_DATA = b"#cloud-config\nbootcmd: [echo ran >/root/ran]\n"


def boot(machines: Machines, **options: object) -> Machine:
    """Boot a machine without a box."""
    return machines.boot(
        "plain",
        address=random_address(),
        user_data=USER_DATA,
        kind=EC2,
        instance_id="i-1",
        **options,  # type: ignore[arg-type] # by name
    )


def up(machine: Machine) -> None:
    """Wait until a machine has finished its boot."""
    target = "cloud-init.target"
    until(
        lambda: machine.run("systemctl", "is-active", target, check=False) == "active\n"
    )


def test_machines_leave_nothing_on_the_host(maker: BoxMaker) -> None:
    """Mounts, control groups, processes and files are gone at the end."""
    with Machines() as machines:
        machine = boot(machines)
        up(machine)
        assert machine.running
        place, group = machines.place, machine.group
    assert not machine.running
    assert not place.exists()
    assert str(place) not in Path("/proc/mounts").read_text()
    words = ["findmnt", "-n", "-o", "TARGET", "-t", "cgroup2"]
    for target in subprocess.run(words, stdout=-1, text=True).stdout.split():
        assert not list(Path(target).glob(f"{group}*"))


def test_only_a_power_off_from_inside_is_reported(machines: Machines) -> None:
    """`off` calls no callback; the disk stays in both cases."""
    calls: list[int] = []
    first = boot(machines, on_off=lambda: calls.append(1))
    up(first)
    first.off()
    assert not calls
    called = threading.Event()
    again = boot(machines, disk=first.disk, on_off=called.set)
    up(again)
    assert again.run("cat", "/root/ran") == "ran\n"
    # The machine may be off before the command returns.
    again.run("poweroff", check=False)
    assert again.wait_off(UP)
    assert called.wait(UP)
    assert "Reached target" in again.console()


def test_a_machine_has_no_network_and_cannot_change_the_kernel(
    machines: Machines,
) -> None:
    """Its only interface is `lo`, and it lacks the capabilities."""
    machine = boot(machines)
    up(machine)
    links = machine.run("ls", "/sys/class/net").split()
    assert links == ["lo"]
    assert "Read-only" in machine.run(
        "sh", "-c", "echo 1 >/proc/sys/kernel/panic", check=False
    )
    # CAP_SYS_TIME, CAP_SYS_MODULE, CAP_MKNOD.
    for status in ("/proc/1/status", "/proc/self/status"):
        capabilities = machine.run("cat", status).partition("CapEff:")[2].split()[0]
        assert not int(capabilities, 16) & (1 << 25 | 1 << 16 | 1 << 27)
    assert not Path("/root/ran").exists()
    machine.off()


def test_a_machine_that_loses_power_during_a_reboot_stays_off(
    machines: Machines,
) -> None:
    """It does not boot again."""
    machine = boot(machines)
    up(machine)
    # The steps of `off`, between the reboot and its handling in `_watch`.
    with machine._changing:
        machine.run("systemctl", "reboot", check=False)
        machine._process.wait()
        machine._unplugged = True
    assert machine.wait_off(UP)
    assert machine.boots == 1


def test_a_connection_to_a_machine_that_is_going_off_is_reset(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The relay raises no error."""
    network, address = Network(), random_address()
    relay = Relay(network, address)
    socket_inside = network.socket

    def going_off() -> socket.socket:
        network.close()
        return socket_inside()

    monkeypatch.setattr(network, "socket", going_off)
    with socket.create_connection((address, 22)) as caller:
        with pytest.raises(ConnectionResetError):
            caller.recv(1)
    relay.close()
