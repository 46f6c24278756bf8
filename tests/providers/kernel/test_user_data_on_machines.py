"""The user data of a box, on a machine that boots it: ssh, jobs, deadline, notice."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from onebox.agent_bundle import version
from onebox.errors import HostKeyMismatch
from onebox.remote.channel import AgentChannel
from tests.fakes.digitalocean.real_machines import DIGITALOCEAN
from tests.fakes.machines import Disk
from tests.fakes.machines.boxes import UP, BoxMaker, MachineBox, until
from tests.fakes.machines.boxes import machines as machines
from tests.fakes.machines.boxes import maker as maker
from tests.fakes.machines.metadata import GCE, Kind

BROKEN_CFG = "runcmd: [{\n  this is: no yaml\n"
# A program that changes the version of the agent.
OF_OLD = """\
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "a") as archive:
    archive.writestr("agent/of_old.py", "")
"""
JOB = "trap 'echo saved; exit 0' TERM; echo on; while :; do sleep 0.1; done"


class EndingBoxes:
    """
    Boxes that power off by themselves, each for another reason, at the same time.

    Attributes:
        first: A box that the tests may use; it stays on.

        job: A box whose job runs at its deadline.

        agent: A box whose agent is no program.

        init: A box whose cloud-init fails.

        unused: A box without a job and with a short setup grace.
    """

    def __init__(self, maker: BoxMaker) -> None:
        broken = Disk(maker.machines.place / "broken")
        cfg = broken.file("/etc/cloud/cloud.cfg.d/95_broken.cfg")
        cfg.parent.mkdir(parents=True)
        cfg.write_text(BROKEN_CFG)
        shells = broken.file("/usr/sbin/useradd")
        shells.parent.mkdir(parents=True)
        shells.write_text("#!/bin/sh\nexit 1\n")
        shells.chmod(0o755)
        # The deadline of a box that is used depends on the speed of this host.
        began = time.monotonic()
        self.first = maker.make()
        with self.first.link():
            self.lives = max(45, 12 * (time.monotonic() - began))
        with ThreadPoolExecutor(4) as pool:
            job = pool.submit(maker.make, seconds=self.lives)
            agent = pool.submit(maker.make, seconds=20, seed=b"no agent", late=4)
            init = pool.submit(maker.make, seconds=20, disk=broken, late=60)
            unused = pool.submit(maker.make, setup_grace=5)
        self.job, self.agent = job.result(), agent.result()
        self.init, self.unused = init.result(), unused.result()
        with self.job.link() as link:
            link.request("start", job="last", shell=JOB)

    def off_before_deadline(self, box: MachineBox) -> bool:
        """Wait until a box is off; return whether that was before its deadline."""
        assert box.machine.wait_off(self.lives + UP), box.machine.console()[-2000:]
        # systemd's timers are up to a second early.
        return box.machine.ended < box.request.boot_config.deadline - 1


@pytest.fixture(scope="module")
def ending_boxes(maker: BoxMaker) -> Iterator[EndingBoxes]:
    """The ending boxes, booted at once; they power off while other tests run."""
    yield EndingBoxes(maker)


@pytest.fixture(scope="module")
def machine_box(ending_boxes: EndingBoxes) -> MachineBox:
    """A box on EC2 that the tests share: they must not end it."""
    return ending_boxes.first


def follow(link: AgentChannel, job: str) -> tuple[bytes, dict[str, Any]]:
    """Return the output of a job, and its last answer."""
    link.begin("follow", job=job, offset=0)
    printed, end = b"", {}
    for kind, payload in link.frames():
        if kind == b"D":
            printed += payload
        elif kind == b"A":
            end = json.loads(payload)
    return printed, end


def test_a_box_accepts_the_agent_over_ssh_with_the_requested_host_key(
    machine_box: MachineBox,
) -> None:
    """`hello` returns box, deadline and work directory."""
    with machine_box.link() as link:
        hello = link.request("hello")
    assert hello["agent"] == version()
    assert hello["box"] == machine_box.request.box
    assert hello["deadline"] == machine_box.request.boot_config.deadline
    assert hello["work"] == "/home/onebox/work"


def test_a_job_cannot_replace_what_root_runs(machine_box: MachineBox) -> None:
    """Agent, watchdog and box.json belong to root, also after an update."""
    root = "/var/lib/onebox"
    names = ("agent.pyz", "watch.pyz", "box.json")
    with machine_box.link() as link:
        assert link.request("hello")["agent"] == version()
        before = [
            machine_box.machine.run("sha256sum", f"{root}/{name}") for name in names
        ]
        tries = [
            f"echo >/tmp/mine; {how} {root}/{name} || echo refused"
            for name in names
            for how in ("rm -f", "cp /bin/true", "mv -f /tmp/mine", "chmod 777")
        ]
        shell = "; ".join([*tries, f"mv {root} {root}.old"])
        link.request("start", job="hostile", shell=shell)
        printed, end = follow(link, "hostile")
    assert printed.count(b"refused\n") == len(tries), printed
    assert end["record"]["code"] == 1
    after = [machine_box.machine.run("sha256sum", f"{root}/{name}") for name in names]
    assert after == before
    owners = machine_box.machine.run("stat", "-c", "%U %a", root, f"{root}/agent.pyz")
    assert owners.split() == ["root", "755", "root", "644"]


def test_without_sudo_a_newer_agent_runs_beside_the_one_of_root(
    maker: BoxMaker,
) -> None:
    """The file of root does not change."""
    machine_box = maker.make()
    with machine_box.link():
        pass
    root = "/var/lib/onebox"
    machine_box.machine.run("rm", "/etc/sudoers.d/90-onebox")
    machine_box.machine.run("python3", "-c", OF_OLD, f"{root}/agent.pyz")
    before = machine_box.machine.run("sha256sum", f"{root}/agent.pyz")
    with machine_box.link() as link:
        assert link.request("hello")["agent"] == version()
        link.request("start", job="one", shell="echo on; exit 3")
        printed, end = follow(link, "one")
    assert (printed, end["record"]["code"]) == (b"on\n", 3)
    assert machine_box.machine.run("sha256sum", f"{root}/agent.pyz") == before
    machine_box.machine.off()


def test_sshd_offers_only_the_requested_host_key(machine_box: MachineBox) -> None:
    """The image may contain keys of other kinds."""
    with machine_box.link():
        assert machine_box.scan() == {machine_box.host_key}


def test_logins_need_a_key(machine_box: MachineBox) -> None:
    """Passwords are refused; the user can become root with sudo."""
    with machine_box.link():
        pass
    effective = machine_box.machine.run("sshd", "-T").lower().splitlines()
    assert "passwordauthentication no" in effective
    assert "kbdinteractiveauthentication no" in effective
    assert "root" in machine_box.machine.run("su", "onebox", "-c", "sudo -n id -un")


def test_a_job_has_the_variables_of_etc_environment(machine_box: MachineBox) -> None:
    """Proxies, for example, reach a job as they reach a login."""
    line = "echo 'https_proxy=\"http://proxy.example:3128\"' >>/etc/environment"
    with machine_box.link() as link:
        # After the login, because the login itself reads the file.
        link.request("hello")
        machine_box.machine.run("sh", "-c", line)
        link.request("start", job="proxied", shell='echo "<$https_proxy>"')
        printed, _ = follow(link, "proxied")
    assert printed == b"<http://proxy.example:3128>\n"


def test_apt_timers_are_off_and_logind_removes_nothing(machine_box: MachineBox) -> None:
    """Either would disturb a job."""
    with machine_box.link():
        pass
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        state = machine_box.machine.run("systemctl", "is-active", timer, check=False)
        assert state.strip() == "inactive"
    tidying = machine_box.machine.run(
        "busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1",
        "org.freedesktop.login1.Manager", "RemoveIPC", "KillUserProcesses",
    )  # fmt: skip
    assert tidying.split() == ["b", "false", "b", "false"]


def test_cloud_init_accepts_the_user_data_without_a_warning(
    machine_box: MachineBox,
) -> None:
    """cloud-init accepts the user data without a warning."""
    with machine_box.link():
        pass
    log = machine_box.machine.run("cat", "/var/log/cloud-init.log")
    assert "Invalid cloud-config" not in log
    assert "bootcmd) failed" not in log


def test_a_preemption_notice_ends_the_job_with_sigterm(machine_box: MachineBox) -> None:
    """The job can save its state; its record has the cause "preempted"."""
    with machine_box.link() as link:
        link.request("start", job="spot", shell=JOB)
        until(lambda: link.request("job")["log_bytes"])
        goes = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        notice = json.dumps({"action": "terminate", "time": goes})
        machine_box.machine.metadata["spot/instance-action"] = notice
        printed, end = follow(link, "spot")
    assert printed.endswith(b"saved\n")
    assert end["record"]["cause"] == "preempted"
    assert machine_box.machine.running


@pytest.mark.parametrize("command", ["sudo poweroff", "sudo systemctl reboot"])
def test_a_client_receives_the_exit_record_before_a_shutdown(
    maker: BoxMaker, command: str
) -> None:
    """
    An orderly shutdown ends the job before the ssh connections.

    A client that has received no record therefore knows that the box has crashed.
    """
    machine_box = maker.make()
    with machine_box.link() as link:
        job = f"trap 'echo saved; exit 0' TERM; {command}; while :; do sleep 0.1; done"
        link.request("start", job="last", shell=job)
        printed, end = follow(link, "last")
    assert printed.endswith(b"saved\n")
    assert (end["record"]["cause"], end["record"]["code"]) == ("poweroff", 0)
    if "reboot" in command:
        until(lambda: machine_box.machine.boots == 2)
        with machine_box.link() as link:
            assert link.request("job")["record"] == end["record"]
        machine_box.machine.off()
    else:
        assert machine_box.machine.wait_off(UP)


def test_a_rotated_host_key_stays_after_a_reboot_and_a_start(maker: BoxMaker) -> None:
    """New connections see only the new key."""
    machine_box = maker.make()
    with machine_box.link() as link:
        new = str(link.request("hostkey_new")["public"])
        assert link.request("hostkey_new")["public"] == new != machine_box.host_key
        assert machine_box.scan() == {machine_box.host_key}
        assert link.request("hostkey_use", public=new) == {"public": new}
        assert machine_box.scan() == {new}
        assert link.request("hostkey_use", public=new) == {"public": new}
        first = link.request("hello")
    with pytest.raises(HostKeyMismatch), machine_box.link():
        pass
    # A reboot keeps the deadline.
    machine_box.machine.run("systemctl", "reboot", check=False)
    until(lambda: machine_box.machine.boots == 2)
    with machine_box.link(new) as link:
        hello = link.request("hello")
        assert hello["boot_id"] != first["boot_id"]
        assert hello["deadline"] == first["deadline"]
        assert hello["armed"] > first["armed"]
        link.request("poweroff")
    assert machine_box.machine.wait_off(UP)
    # A stopped box starts with a new deadline.
    again = maker.start_again(machine_box, seconds=7200, host_key=new)
    with again.link() as link:
        assert link.request("hello")["deadline"] == again.request.boot_config.deadline
        assert again.scan() == {new}
    again.machine.off()


def test_a_box_from_the_image_of_another_box_is_only_the_new_box(
    maker: BoxMaker,
) -> None:
    """Host key, deadline, jobs and notices of the old box are gone."""
    old = maker.make()
    with old.link() as link:
        link.request("start", job="old", shell="true")
        follow(link, "old")
    left = '{"at": 0}'
    old.machine.run("sh", "-c", f"echo '{left}' >/var/lib/onebox/notice; sync")
    old.machine.off()
    disk = old.machine.disk.copy()
    assert not units(disk)
    new = maker.make(disk=disk)
    seen = set(until(new.scan))
    with new.link() as link:
        seen |= new.scan()
        hello = link.request("hello")
    assert seen == {new.host_key}
    assert hello["box"] == new.request.box
    assert hello["deadline"] == new.request.boot_config.deadline
    assert hello["job"] is None
    assert not (disk.file("/var/lib/onebox/notice")).exists()
    timer = new.machine.run(
        "systemctl", "show", "-P", "TimersCalendar", "onebox-deadline.timer"
    )
    assert str(old.request.boot_config.deadline)[:10] not in timer
    new.machine.off()


def units(disk: Disk) -> list[Path]:
    """Return onebox's systemd units on a disk."""
    return list(disk.file("/etc/systemd").rglob("onebox*"))


@pytest.mark.parametrize("kind", [DIGITALOCEAN, GCE], ids=["digitalocean", "gce"])
def test_the_same_user_data_works_in_the_other_clouds(
    maker: BoxMaker, kind: Kind
) -> None:
    """cloud-init reads it from their metadata servers."""
    machine_box = maker.make(kind)
    with machine_box.link() as link:
        assert (
            link.request("hello")["deadline"]
            == machine_box.request.boot_config.deadline
        )
    assert machine_box.scan() == {machine_box.host_key}
    machine_box.machine.off()


def test_without_a_requested_host_key_the_box_publishes_its_own(
    maker: BoxMaker,
) -> None:
    """Google's guest agent generates it."""
    machine_box = maker.make(GCE, host_key=False)
    key = until(lambda: machine_box.machine.published.get("hostkeys/ssh-ed25519"))
    with machine_box.link(f"ssh-ed25519 {key}"):
        assert machine_box.scan() == {f"ssh-ed25519 {key}"}
    machine_box.machine.off()


def test_the_startup_script_arms_an_image_without_cloud_init(maker: BoxMaker) -> None:
    """It can run more than once; Google's Debian is such an image."""
    machine_box = maker.make(GCE, startup_script=True)
    key = until(lambda: machine_box.machine.published.get("hostkeys/ssh-ed25519"))
    with machine_box.link(f"ssh-ed25519 {key}") as link:
        first = link.request("hello")
        machine_box.machine.run(
            "systemctl", "restart", "google-startup-scripts.service"
        )
        hello = link.request("hello")
    assert (
        hello["deadline"]
        == first["deadline"]
        == machine_box.request.boot_config.deadline
    )
    for unit in ("onebox-watch.service", "onebox-deadline.timer"):
        machine_box.machine.run("systemctl", "is-active", unit)
    machine_box.machine.off()


def test_a_box_without_a_job_powers_off_after_the_setup_grace(
    ending_boxes: EndingBoxes,
) -> None:
    """Its deadline is much later."""
    assert ending_boxes.off_before_deadline(ending_boxes.unused)
    log = ending_boxes.unused.machine.disk.file("/var/lib/onebox/watch.log")
    assert "no job ever started" in log.read_text()


def test_a_systemd_timer_powers_the_box_off_if_its_agent_is_broken(
    ending_boxes: EndingBoxes,
) -> None:
    """The watchdog has not run at all."""
    assert not ending_boxes.off_before_deadline(ending_boxes.agent)
    log = ending_boxes.agent.machine.disk.file("/var/lib/onebox/watch.log")
    assert not log.read_text()


def test_the_deadline_holds_on_an_image_with_a_broken_cloud_init(
    ending_boxes: EndingBoxes,
) -> None:
    """Where cloud-init and half of the arming fail, the deadline holds still."""
    assert not ending_boxes.off_before_deadline(ending_boxes.init)
    assert "onebox: the deadline" in ending_boxes.init.machine.console()


def test_at_the_deadline_the_job_is_ended_and_recorded_before_the_power_off(
    ending_boxes: EndingBoxes,
) -> None:
    """No client is connected."""
    assert not ending_boxes.off_before_deadline(ending_boxes.job)
    root = ending_boxes.job.machine.disk.file("/var/lib/onebox/jobs/last")
    record = json.loads((root / "exit").read_bytes()[:-10])
    assert record["cause"] == "deadline"
    assert (root / "log").read_text().endswith("saved\n")
