"""The faults of [local.rehearse]."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import threading
import time

import pytest

from onebox.errors import ProviderError
from onebox.providers.local.settings import LocalSettings
from onebox.providers.values import Image
from onebox.settings import load

from ...conftest import Project
from ..sshbox import SshBox, wait_until
from .conftest import OpenBox


def rehearsed(open_box: OpenBox, **faults: object) -> SshBox:
    """Return a box that injects these faults."""
    return open_box({"rehearse": faults})


class TestFaults:
    def test_boot_delay_refuses_ssh_until_it_is_over(self, open_box: OpenBox) -> None:
        """ssh is refused until the boot delay is over, and works after it."""
        assert rehearsed(open_box, boot_delay=3600).ssh("true").returncode == 255
        one = rehearsed(open_box, boot_delay=0.5)
        wait_until(lambda: one.ssh("true").returncode == 0)

    def test_a_notice_comes_before_the_preemption(self, open_box: OpenBox) -> None:
        """The notice has the time of the preemption; the box stops then."""
        began = time.time()
        one = rehearsed(open_box, notice_after=0.5, notice_seconds=1.0)
        notice = one.layout.agent / "notice"
        wait_until(notice.exists)
        at = json.loads(notice.read_bytes())["at"]
        box = one.wait_for("stopped")
        assert box.why == "preempted"
        assert began < at <= time.time()

    def test_a_box_is_up_before_it_is_preempted(self, open_box: OpenBox) -> None:
        """The time until a preemption counts from the moment when the box is up."""
        one = rehearsed(open_box, notice_after=0, notice_seconds=0)
        assert one.wait_for("stopped").why == "preempted"

    def test_a_drop_breaks_the_connection_and_not_the_box(
        self, open_box: OpenBox
    ) -> None:
        """A drop breaks the connection; the box runs on, and a new connection works."""
        # On a slow machine ssh may connect only after the drop: try a later one.
        for seconds in (1.5, 6.0, 24.0):
            one = rehearsed(open_box, drop_after=seconds)
            done = one.ssh("touch ~/in; sleep 30")
            if (one.layout.home / "in").exists() and done.returncode:
                break
        assert done.returncode == 255
        assert one.ssh("echo back").stdout == b"back\n"
        assert one.refresh().state == "running"

    def test_with_drop_every_connections_are_dropped_repeatedly(
        self, open_box: OpenBox
    ) -> None:
        """With `drop_every` connections are dropped again and again."""
        one = rehearsed(open_box, drop_every=1.0)
        assert [one.ssh("sleep 30").returncode for _ in range(2)] == [255, 255]

    def test_a_stall_delays_bytes_and_loses_none(self, open_box: OpenBox) -> None:
        """During a stall no byte is transferred; afterwards all of them arrive."""
        # On a slow machine ssh may connect only after the stall: try a later one.
        for seconds in (1.0, 6.0, 24.0):
            one = rehearsed(open_box, stall_after=seconds, stall_seconds=3.0)
            over = time.monotonic() + seconds + 5.0
            if _stall_was_seen(one, over):
                return
        pytest.fail("no stall was seen")

    def test_a_power_cut_ends_everything_without_a_signal(
        self, open_box: OpenBox
    ) -> None:
        """
        A power cut ends all processes without SIGTERM; only the directory is left.
        """
        one = rehearsed(open_box, die_after=1.5)
        done = one.ssh("trap 'echo asked > ~/asked' TERM; sleep 30")
        assert done.returncode == 255
        assert one.wait_for("stopped").state == "stopped"
        assert not (one.layout.home / "asked").exists()
        wait_until(lambda: len(one.local.leftovers(one.box.id)) == 1)

    def test_a_changed_host_key_is_refused_by_ssh(self, open_box: OpenBox) -> None:
        """After `host_key_after` another host key is used, and ssh refuses it."""
        one = rehearsed(open_box, host_key_after=1.0)
        wait_until(lambda: b"HAS CHANGED" in one.ssh("true").stderr)

    def test_faults_can_be_combined_and_are_noted(self, open_box: OpenBox) -> None:
        """Faults can be combined, and the box's notes name each of them."""
        one = rehearsed(open_box, boot_delay=0.1, drop_after=600)
        note = "rehearsal: boot_delay = 0.1, drop_after = 600"
        assert note in one.box.notes


class TestDisk:
    def test_a_small_disk_gets_full(self, open_box: OpenBox) -> None:
        """
        A box with a small disk gets "No space left on device", with the right total
        size.
        """
        one = _with_disk(open_box, 4_000_000)
        done = one.ssh("head -c 9000000 /dev/zero > work/big")
        assert b"No space left on device" in done.stderr
        total = one.ssh("df -P -B1 ~ | awk 'NR==2 {print $2}'").stdout
        assert 3_900_000 < int(total) < 4_100_000

    def test_a_small_disk_is_lost_at_stop_and_cannot_be_saved(
        self, open_box: OpenBox
    ) -> None:
        """
        A small disk is lost when the box stops and cannot be saved, as the notes say.
        """
        one = _with_disk(open_box, 4_000_000)
        assert any("lost at stop" in note for note in one.box.notes)
        one.ssh("touch ~/file")
        one.local.stop(one.box)
        assert not (one.layout.home / "file").exists()
        with pytest.raises(ProviderError, match="cannot be saved"):
            one.local.save(one.box, an_image_of(one))


def an_image_of(one: SshBox) -> Image:
    """Return the image to save a box as."""
    tags = dataclasses.replace(one.box.tags, kind="image")
    return Image(f"im-{one.box.id}", "image", "hash", 0.0, 0, "", tags)


def _with_disk(open_box: OpenBox, size: int) -> SshBox:
    try:
        return rehearsed(open_box, disk=size)
    except ProviderError as error:
        assert "cannot be rehearsed here" in error.message
        assert os.getuid() != 0
        pytest.skip(error.message)


def test_a_box_gets_the_faults_of_the_settings_unchanged(project: Project) -> None:
    """The values of [local.rehearse] reach the boot configuration unchanged."""
    text = '[local.rehearse]\nstall_after = 600\ndisk = "100 MB"\n'
    project.write("onebox.toml", text)
    settings = load(project.root, project.environ, {})
    done = project.inv("provision")
    if "cannot be rehearsed here" in done.err:
        pytest.skip(done.err)
    assert not done.code, done.err
    (box,) = project.boxes()
    boot = json.loads((project.home / "local/boxes" / box / "boot.json").read_bytes())
    local = settings.providers["local"]
    assert isinstance(local, LocalSettings)
    asked = dataclasses.asdict(local.rehearse)
    assert boot["faults"] == {k: v for k, v in asked.items() if v is not None}
    assert boot["faults"]["disk"] == 100 << 20
    assert boot["faults"]["stall_seconds"] == 20
    assert "stall_seconds = 20, disk = 100 MB" in done.err


def _stall_was_seen(one: SshBox, over: float) -> bool:
    """Count on the box, read the numbers here; return whether they arrived late."""
    count, enough = one.layout.home / "count", one.layout.home / "enough"
    loop = "i=0; while [ ! -e enough ]; do i=$((i+1)); echo $i; echo $i > new; "
    loop += "mv new count; sleep 0.05; done"
    came: list[bytes] = []

    def lag() -> int:
        return int(count.read_text()) - len(came) if count.exists() else 0

    with subprocess.Popen(one.argv(loop), stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        lines = iter(client.stdout.readline, b"")
        reader = threading.Thread(target=lambda: came.extend(lines))
        reader.start()
        wait_until(lambda: lag() > 20 or time.monotonic() > over)
        seen = lag() > 20
        written = int(count.read_text())
        wait_until(lambda: len(came) >= written)
        enough.touch()
        reader.join()
    assert client.returncode == 0
    assert came == [b"%d\n" % i for i in range(1, len(came) + 1)]
    return seen
