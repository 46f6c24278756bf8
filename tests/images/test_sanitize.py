"""Data of one machine do not get into its image."""

from __future__ import annotations

import dataclasses
import random
import subprocess

import pytest

from onebox.errors import BoxFailed
from onebox.images import sanitize
from onebox.providers.kernel import user_data
from onebox.remote import keys
from onebox.remote.connection import SSHConnection
from tests.fakes.machines.boxes import BoxMaker, MachineBox, machines, maker, until
from tests.fakes.machines.metadata import EC2

__all__ = ["machines", "maker"]

FILL = """\
mkdir -p /home/onebox/.aws /home/onebox/work/results /home/onebox/.cache/pip
echo 'aws_secret_access_key = x' >/home/onebox/.aws/credentials
echo TOKEN=x >/home/onebox/work/.env
echo 'rm -rf /' | tee /root/.bash_history >/home/onebox/.bash_history
echo x | tee /home/onebox/.cache/pip/x /home/onebox/work/results/x /home/onebox/kept \\
/tmp/x /var/tmp/x >/var/lib/apt/lists/x
mkdir -p /root/.ssh && echo 'ssh-ed25519 AAAA colleague' >/root/.ssh/authorized_keys
mkdir -p /var/lib/onebox/jobs/one && echo x >/var/lib/onebox/jobs/one/log
chown -R onebox: /home/onebox /var/lib/onebox
"""


def connect(made: MachineBox) -> SSHConnection:
    """Return a connection to the box, once ssh accepts us."""
    with made.link():
        return SSHConnection(made.box(), made.folder / "own", made.folder / "identity")


def existing_files(made: MachineBox, *names: str) -> list[str]:
    """Return those of the files that exist on the machine."""
    script = 'for it; do [ -e "$it" ] && echo "$it"; done; true'
    return made.machine.run("sh", "-c", script, "sh", *names).split()


def boot_copy(maker: BoxMaker, made: MachineBox, name: str) -> MachineBox:
    """Boot a new box from a copy of the machine's disk."""
    made.machine.off()
    request = dataclasses.replace(
        made.request, box=name, host_key=keys.new_host_key(maker.folder)
    )
    instance = f"i-{random.randrange(10**9)}"
    return maker.boot(request, EC2, instance, disk=made.machine.disk.copy())


def test_live_box_keeps_its_data_and_its_image_has_none(maker: BoxMaker) -> None:
    """A box that is saved keeps what it needs; a box from its image gets none of it."""
    made = maker.make()
    way = connect(made)
    made.machine.run("sh", "-ec", FILL)
    before = made.scan()

    sanitize.prepare(way, system=True)
    found = sanitize.find_secrets(way, system=True)
    sanitize.clean(way, system=True, keep_box=True)
    way.forget()

    assert ["/home/onebox/.aws/credentials", "/home/onebox/work/.env"] == found
    assert before == made.scan()
    kept = [
        "/home/onebox/kept",
        "/home/onebox/work/results/x",
        "/var/lib/onebox/box.json",
        "/var/lib/onebox/jobs/one/log",
        "/etc/apt/apt.conf.d/90onebox",
        user_data.HOST_KEY,
    ]
    assert kept == existing_files(made, *kept)
    gone = [
        "/root/.bash_history",
        "/home/onebox/.bash_history",
        "/home/onebox/.cache/pip",
        "/root/.ssh/authorized_keys",
        "/var/lib/apt/lists/x",
        "/tmp/x",
        "/var/tmp/x",
    ]
    assert [] == existing_files(made, *gone)
    assert "" == made.machine.run("cat", "/etc/machine-id")

    fresh = boot_copy(maker, made, "ob-anotherone1")
    with fresh.link() as link:
        assert fresh.request.box == link.request("hello")["box"]
    assert {fresh.host_key}.isdisjoint(before)
    assert {fresh.host_key} == fresh.scan()
    assert ["/home/onebox/kept"] == existing_files(fresh, *kept[:2], kept[3])
    fresh.machine.off()


def test_builder_image_boots_and_has_nothing_of_the_builder(maker: BoxMaker) -> None:
    """
    A box from a builder's image boots without help. A machine that lacks the box's
    own record is left unchanged.
    """
    made = maker.make()
    way = connect(made)
    made.machine.run("sh", "-ec", FILL)
    other = SSHConnection(
        dataclasses.replace(way.box, agent="/var/lib/other/agent.pyz"),
        made.folder / "other",
        made.folder / "identity",
    )
    with pytest.raises(BoxFailed, match="this machine is not the box"):
        sanitize.clean(other, system=True, keep_box=False)
    other.forget()
    assert made.machine.run("cat", "/etc/machine-id")

    sanitize.prepare(way, system=True)
    sanitize.clean(way, system=True, keep_box=False)
    way.forget()

    gone = [
        "/var/lib/onebox",
        "/home/onebox/work",
        user_data.HOST_KEY,
        "/var/lib/cloud/i",
    ]
    assert [] == existing_files(made, *gone)
    masked = made.machine.run("readlink", "/etc/systemd/system/apt-daily.timer")
    assert "/dev/null\n" == masked

    fresh = boot_copy(maker, made, "ob-anotherone2")
    with fresh.link() as link:
        assert fresh.request.box == link.request("hello")["box"]
    assert ["/home/onebox/kept", "/home/onebox/work"] == existing_files(
        fresh, "/home/onebox/kept", "/home/onebox/work", "/home/onebox/work/results"
    )
    until(lambda: fresh.machine.run("cat", "/etc/machine-id"))
    fresh.machine.off()


def test_scripts_are_plain_shell() -> None:
    """The system's own shell can parse every script."""
    for name in ("_PREPARE", "_HOME", "_SYSTEM", "_MACHINE", "_FIND_SECRETS"):
        script = getattr(sanitize, name).replace("{{", "{").replace("}}", "}")
        subprocess.run(["sh", "-n"], input=script.encode(), check=True)
