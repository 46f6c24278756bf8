"""A box arms itself, on a real machine, with nobody's help."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from onebox.errors import HostKeyMismatch
from onebox.remote.agent_bundle import version
from onebox.remote.channel import AgentChannel
from tests.fakes.machines import Disk
from tests.fakes.machines.boxes import UP, Made, Maker, until
from tests.fakes.machines.boxes import machines as machines
from tests.fakes.machines.boxes import maker as maker

BROKEN_CFG = "runcmd: [{\n  this is: no yaml\n"
# Makes the agent one of another version.
OF_OLD = """\
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "a") as archive:
    archive.writestr("agent/of_old.py", "")
"""
JOB = "trap 'echo saved; exit 0' TERM; echo on; while :; do sleep 0.1; done"


class Ends:
    """
    Boxes that all end by themselves, each for another reason, at the same time.

    But for the *first* one, which is there before.
    """

    def __init__(self, maker: Maker) -> None:
        broken = Disk(maker.machines.place / "broken")
        cfg = broken.file("/etc/cloud/cloud.cfg.d/95_broken.cfg")
        cfg.parent.mkdir(parents=True)
        cfg.write_text(BROKEN_CFG)
        shells = broken.file("/usr/sbin/useradd")
        shells.parent.mkdir(parents=True)
        shells.write_text("#!/bin/sh\nexit 1\n")
        shells.chmod(0o755)
        # How fast this machine is says how long a box lives that is to be used.
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

    def lived(self, made: Made) -> float:
        """Wait until a box is off; return how long after its deadline that was."""
        assert made.machine.wait_off(self.lives + UP), made.machine.console()[-2000:]
        return made.machine.ended - made.request.boot_config.deadline


@pytest.fixture(scope="module")
def ends(maker: Maker) -> Iterator[Ends]:
    """All of them, booted at once; they end while other tests run."""
    yield Ends(maker)


@pytest.fixture(scope="module")
def made(ends: Ends) -> Made:
    """A box on EC2, which the tests may use but not end."""
    return ends.first


def follow(link: AgentChannel, job: str) -> tuple[bytes, dict[str, Any]]:
    """Return what a job has printed, and how it ended."""
    link.begin("follow", job=job, offset=0)
    printed, end = b"", {}
    for kind, payload in link.frames():
        if kind == b"D":
            printed += payload
        elif kind == b"A":
            end = json.loads(payload)
    return printed, end


def test_first_contact(made: Made) -> None:
    """A box lets us in with the host key it was made with, and takes the agent."""
    with made.link() as link:
        published = link.request("hello")
    assert published["agent"] == version()
    assert published["box"] == made.request.box
    assert published["deadline"] == made.request.boot_config.deadline
    assert published["work"] == "/home/onebox/work"


def test_a_job_cannot_replace_what_root_runs(made: Made) -> None:
    """The agent, the watch and the box's description stay root's, renewed or not."""
    root = "/var/lib/onebox"
    names = ("agent.pyz", "watch.pyz", "box.json")
    with made.link() as link:
        assert link.request("hello")["agent"] == version()
        before = [made.machine.run("sha256sum", f"{root}/{name}") for name in names]
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
    after = [made.machine.run("sha256sum", f"{root}/{name}") for name in names]
    assert after == before
    owners = made.machine.run("stat", "-c", "%U %a", root, f"{root}/agent.pyz")
    assert owners.split() == ["root", "755", "root", "644"]


def test_an_agent_is_renewed_where_nobody_becomes_root(maker: Maker) -> None:
    """Where jobs may not become root, a newer agent runs beside root's own."""
    made = maker.make()
    with made.link():
        pass
    root = "/var/lib/onebox"
    made.machine.run("rm", "/etc/sudoers.d/90-onebox")
    made.machine.run("python3", "-c", OF_OLD, f"{root}/agent.pyz")
    before = made.machine.run("sha256sum", f"{root}/agent.pyz")
    with made.link() as link:
        assert link.request("hello")["agent"] == version()
        link.request("start", job="one", shell="echo on; exit 3")
        printed, end = follow(link, "one")
    assert (printed, end["record"]["code"]) == (b"on\n", 3)
    assert made.machine.run("sha256sum", f"{root}/agent.pyz") == before
    made.machine.off()


def test_only_our_host_key(made: Made) -> None:
    """No other key of any kind is offered, whatever the image holds."""
    with made.link():
        assert made.scan() == {made.host_key}


def test_who_may_log_in(made: Made) -> None:
    """Keys only, no passwords; the user is root where it has to be."""
    with made.link():
        pass
    effective = made.machine.run("sshd", "-T").lower().splitlines()
    assert "passwordauthentication no" in effective
    assert "kbdinteractiveauthentication no" in effective
    assert "root" in made.machine.run("su", "onebox", "-c", "sudo -n id -un")


def test_a_job_has_what_etc_environment_says(made: Made) -> None:
    """The system's variables, such as proxies, reach a job as they reach a login."""
    line = "echo 'https_proxy=\"http://proxy.example:3128\"' >>/etc/environment"
    with made.link() as link:
        # After the login, which may have read it itself.
        link.request("hello")
        made.machine.run("sh", "-c", line)
        link.request("start", job="proxied", shell='echo "<$https_proxy>"')
        printed, _ = follow(link, "proxied")
    assert printed == b"<http://proxy.example:3128>\n"


def test_nothing_in_the_way(made: Made) -> None:
    """Neither apt's timers nor logind's tidying disturb a job."""
    with made.link():
        pass
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        state = made.machine.run("systemctl", "is-active", timer, check=False)
        assert state.strip() == "inactive"
    tidying = made.machine.run(
        "busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1",
        "org.freedesktop.login1.Manager", "RemoveIPC", "KillUserProcesses",
    )  # fmt: skip
    assert tidying.split() == ["b", "false", "b", "false"]


def test_cloud_init_is_content(made: Made) -> None:
    """cloud-init finds nothing wrong with what it was told."""
    with made.link():
        pass
    said = made.machine.run("cat", "/var/log/cloud-init.log")
    assert "Invalid cloud-config" not in said
    assert "bootcmd) failed" not in said


def test_notice_ends_the_job(made: Made) -> None:
    """When the metadata service tells of the end, the job saves itself."""
    with made.link() as link:
        link.request("start", job="spot", shell=JOB)
        until(lambda: link.request("job")["log_bytes"])
        goes = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
        published = json.dumps({"action": "terminate", "time": goes})
        made.machine.metadata["spot/instance-action"] = published
        printed, end = follow(link, "spot")
    assert printed.endswith(b"saved\n")
    assert end["record"]["cause"] == "preempted"
    assert made.machine.running


@pytest.mark.parametrize("command", ["sudo poweroff", "sudo systemctl reboot"])
def test_who_follows_a_job_reads_its_record_before_a_shutdown(
    maker: Maker, command: str
) -> None:
    """
    An orderly shutdown ends the job before the connections of its clients.

    So a client that has read no record knows that the box has crashed.
    """
    made = maker.make()
    with made.link() as link:
        job = f"trap 'echo saved; exit 0' TERM; {command}; while :; do sleep 0.1; done"
        link.request("start", job="last", shell=job)
        printed, end = follow(link, "last")
    assert printed.endswith(b"saved\n")
    assert (end["record"]["cause"], end["record"]["code"]) == ("poweroff", 0)
    if "reboot" in command:
        until(lambda: made.machine.boots == 2)
        with made.link() as link:
            assert link.request("job")["record"] == end["record"]
        made.machine.off()
    else:
        assert made.machine.wait_off(UP)


def test_rotated_host_key_stays(maker: Maker) -> None:
    """A new host key holds for new connections, through a reboot and a new start."""
    made = maker.make()
    with made.link() as link:
        new = str(link.request("hostkey_new")["public"])
        assert link.request("hostkey_new")["public"] == new != made.host_key
        assert made.scan() == {made.host_key}
        assert link.request("hostkey_use", public=new) == {"public": new}
        assert made.scan() == {new}
        assert link.request("hostkey_use", public=new) == {"public": new}
        first = link.request("hello")
    with pytest.raises(HostKeyMismatch), made.link():
        pass
    # A plain reboot: the time that is left is what was left.
    made.machine.run("systemctl", "reboot", check=False)
    until(lambda: made.machine.boots == 2)
    with made.link(new) as link:
        published = link.request("hello")
        assert published["boot_id"] != first["boot_id"]
        assert published["deadline"] == first["deadline"]
        assert published["armed"] > first["armed"]
        link.request("poweroff")
    assert made.machine.wait_off(UP)
    # What was stopped starts with another deadline.
    again = maker.again(made, seconds=7200, host_key=new)
    with again.link() as link:
        assert link.request("hello")["deadline"] == again.request.boot_config.deadline
        assert again.scan() == {new}
    again.machine.off()


def test_image_of_another_box(maker: Maker) -> None:
    """A disk saved from a box is armed for the new box alone, from the start."""
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
        published = link.request("hello")
    assert seen == {new.host_key}
    assert published["box"] == new.request.box
    assert published["deadline"] == new.request.boot_config.deadline
    assert published["job"] is None
    assert not (disk.file("/var/lib/onebox/notice")).exists()
    timer = new.machine.run(
        "systemctl", "show", "-P", "TimersCalendar", "onebox-deadline.timer"
    )
    assert str(old.request.boot_config.deadline)[:10] not in timer
    new.machine.off()


def units(disk: Disk) -> list[Path]:
    """Return the units of ours that a disk holds."""
    return list(disk.file("/etc/systemd").rglob("onebox*"))


@pytest.mark.parametrize("kind", ["digitalocean", "gce"])
def test_other_clouds(maker: Maker, kind: Any) -> None:
    """The same user data arms a box wherever cloud-init reads it."""
    made = maker.make(kind)
    with made.link() as link:
        assert link.request("hello")["deadline"] == made.request.boot_config.deadline
    assert made.scan() == {made.host_key}
    made.machine.off()


def test_host_key_of_its_own(maker: Maker) -> None:
    """Without a key of ours the box makes one, and its cloud is told which."""
    made = maker.make("gce", host_key=False)
    key = until(lambda: made.machine.published.get("hostkeys/ssh-ed25519"))
    with made.link(f"ssh-ed25519 {key}"):
        assert made.scan() == {f"ssh-ed25519 {key}"}
    made.machine.off()


def test_without_cloud_init(maker: Maker) -> None:
    """Google's Debian runs the same as a startup script, as often as it likes."""
    made = maker.make("gce", startup_script=True)
    key = until(lambda: made.machine.published.get("hostkeys/ssh-ed25519"))
    with made.link(f"ssh-ed25519 {key}") as link:
        first = link.request("hello")
        made.machine.run("systemctl", "restart", "google-startup-scripts.service")
        published = link.request("hello")
    assert (
        published["deadline"] == first["deadline"] == made.request.boot_config.deadline
    )
    for unit in ("onebox-watch.service", "onebox-deadline.timer"):
        made.machine.run("systemctl", "is-active", unit)
    made.machine.off()


def test_setup_grace(ends: Ends) -> None:
    """A box on which no job was ever started goes off long before its deadline."""
    assert ends.lived(ends.unused) < -3000
    log = ends.unused.machine.disk.file("/var/lib/onebox/watch.log")
    assert "no job ever started" in log.read_text()


def test_timer_without_an_agent(ends: Ends) -> None:
    """systemd alone powers the box off when its agent is no program at all."""
    assert ends.lived(ends.agent) >= 3
    log = ends.agent.machine.disk.file("/var/lib/onebox/watch.log")
    assert not log.read_text()


def test_deadline_of_a_broken_image(ends: Ends) -> None:
    """Where cloud-init and half of the arming fail, the deadline holds still."""
    assert ends.lived(ends.init) >= -1
    said = ends.init.machine.console()
    assert "onebox: the deadline" in said


def test_deadline_ends_job_and_box(ends: Ends) -> None:
    """With nobody there, the job is ended and recorded, then the box is off."""
    assert ends.lived(ends.job) >= -1
    root = ends.job.machine.disk.file("/var/lib/onebox/jobs/last")
    record = json.loads((root / "exit").read_bytes()[:-10])
    assert record["cause"] == "deadline"
    assert (root / "log").read_text().endswith("saved\n")
