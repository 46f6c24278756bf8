"""A box reads its deadline from its disk, and gets a new one from a client."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onebox.providers.hetzner import deadline
from onebox.providers.kernel import user_data
from onebox.providers.values import Box

from ..kernel.test_user_data import request

LATER = 2e9 + 5000.5


class Machine:
    """The directories of a box below a test's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "systemctl").write_text(f"#!/bin/sh\necho $* >>{root}/did\n")
        (root / "systemctl").chmod(0o755)
        (root / "timer").write_text("OnActiveSec=100\nOnCalendar=@5\nAccuracySec=1\n")

    def boot(self, created: float) -> int:
        """Return the deadline at a boot of a box that was created with *created*."""
        template = request()
        config = dataclasses.replace(template.boot_config, deadline=created)
        script = deadline.at_boot(dataclasses.replace(template, boot_config=config))
        armed = int(self.run(["sh"], f"{script}echo $deadline"))
        (self.root / "box.json").write_text(json.dumps({"deadline": armed}))
        return armed

    def deliver(self, moment: float) -> None:
        """Run the post-boot script with a deadline."""
        template = request()
        box = Box(
            id=template.box,
            tags=template.tags,
            state="running",
            offer=template.offer,
            image="",
            place="",
            host="",
            port=22,
            user="",
            host_key="",
            created=0.0,
            deadline=moment,
            agent="",
        )
        program = deadline.post_boot_script(box).decode("ascii")
        self.run([sys.executable, "-I", "-S", "-"], program)

    def run(self, argv: list[str], program: str) -> str:
        """Run a program in these directories."""
        program = program.replace(deadline.TIMER, str(self.root / "timer"))
        return subprocess.run(
            argv,
            input=program.replace(user_data.ROOT, str(self.root)),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
            env={"PATH": f"{self.root}:{os.environ['PATH']}"},
        ).stdout


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """The directories of a box."""
    return Machine(tmp_path)


def test_the_first_boot_takes_the_deadline_of_the_create_call(machine: Machine) -> None:
    """A post-boot script with the same deadline changes nothing."""
    assert machine.boot(2e9 + 0.5) == 2000000001
    machine.deliver(2e9 + 0.5)
    assert not (machine.root / "did").exists()
    assert machine.boot(2e9 + 0.5) == 2000000001


def test_a_box_that_boots_too_late_waits_for_a_client(machine: Machine) -> None:
    """It waits for some minutes."""
    began = time.time()
    armed = machine.boot(began - 5)
    assert began + deadline.GRACE - 2 < armed < time.time() + deadline.GRACE + 1


def test_a_delivered_deadline_holds_now_and_at_every_later_boot(
    machine: Machine,
) -> None:
    """The watchdog and the timer both use it."""
    machine.boot(time.time() - 5)
    machine.deliver(LATER)
    moment = 2000005001
    assert json.loads((machine.root / "box.json").read_text()) == {"deadline": moment}
    timer = (machine.root / "timer").read_text()
    assert f"OnCalendar=@{moment + 100}\nAccuracySec=1\n" in timer
    assert "restart onebox-deadline.timer" in (machine.root / "did").read_text()
    assert machine.boot(time.time() - 5) == moment
    machine.deliver(LATER + 60)
    assert machine.boot(time.time() - 5) == moment + 60


def test_the_user_data_reads_the_deadline_from_the_disk() -> None:
    """The script is valid for sh, and holds no other deadline."""
    until = deadline.at_boot(request())
    text = user_data.user_data(request(), notice="", until=until).decode()
    [script] = json.loads(text.partition("\n")[2])["bootcmd"]
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert "2000000000.12" not in script
    assert len(text) < 32 << 10
