from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import threading
import time

import pytest

from onebox.errors import ProviderError
from onebox.providers.base import Image
from onebox.providers.local.settings import LocalSettings
from onebox.settings import load

from ...conftest import Project
from ..conftest import OpenBox
from ..sshbox import SshBox, wait_until


def rehearsed(open_box: OpenBox, **faults: object) -> SshBox:
    """Return a box with these faults."""
    return open_box({"rehearse": faults})


class TestFaults:
    def test_boot_delay(self, open_box: OpenBox) -> None:
        """A slow boot: ssh is turned away until then, and comes in after."""
        assert rehearsed(open_box, boot_delay=3600).ssh("true").returncode == 255
        one = rehearsed(open_box, boot_delay=0.5)
        wait_until(lambda: one.ssh("true").returncode == 0)

    def test_notice(self, open_box: OpenBox) -> None:
        """Preemption: first the notice with its moment, then the box is taken."""
        began = time.time()
        one = rehearsed(open_box, notice_after=0.5, notice_seconds=1.0)
        notice = one.layout.agent / "notice"
        wait_until(notice.exists)
        at = json.loads(notice.read_bytes())["at"]
        assert began + 1.5 < at < time.time() + 1.0
        box = one.wait_for("stopped")
        assert box.why == "preempted"

    def test_slow_to_boot(self, open_box: OpenBox) -> None:
        """A box comes up before it is taken, however long it takes to boot."""
        one = rehearsed(open_box, notice_after=0, notice_seconds=0)
        assert one.wait_for("stopped").why == "preempted"

    def test_drop_once(self, open_box: OpenBox) -> None:
        """A drop breaks the connection, not the job; a new connection works."""
        # On a machine so slow that ssh gets in after the drop, it comes later.
        for seconds in (1.5, 6.0, 24.0):
            one = rehearsed(open_box, drop_after=seconds)
            done = one.ssh("touch ~/in; sleep 30")
            if (one.layout.home / "in").exists() and done.returncode:
                break
        assert done.returncode == 255
        assert one.ssh("echo back").stdout == b"back\n"
        assert one.refresh().state == "running"

    def test_drop_again(self, open_box: OpenBox) -> None:
        """Drops come again and again."""
        one = rehearsed(open_box, drop_every=1.0)
        assert [one.ssh("sleep 30").returncode for _ in range(2)] == [255, 255]

    def test_stall(self, open_box: OpenBox) -> None:
        """In a stall no byte moves; afterwards everything that waited goes on."""
        # On a machine so slow that ssh gets in after the stall, it comes later.
        for seconds in (1.0, 6.0, 24.0):
            one = rehearsed(open_box, stall_after=seconds, stall_seconds=3.0)
            over = time.monotonic() + seconds + 5.0
            if _stall_was_seen(one, over):
                return
        pytest.fail("no stall was seen")

    def test_death(self, open_box: OpenBox) -> None:
        """A power cut: nobody is asked, nothing is written down, all is gone."""
        one = rehearsed(open_box, die_after=1.5)
        done = one.ssh("trap 'echo asked > ~/asked' TERM; sleep 30")
        assert done.returncode == 255
        assert one.wait_for("stopped").state == "stopped"
        assert not (one.layout.home / "asked").exists()
        wait_until(lambda: len(one.local.leftovers(one.box.id)) == 1)

    def test_host_key(self, open_box: OpenBox) -> None:
        """From then on another key answers, and the client refuses it."""
        one = rehearsed(open_box, host_key_after=1.0)
        wait_until(lambda: b"HAS CHANGED" in one.ssh("true").stderr)

    def test_several(self, open_box: OpenBox) -> None:
        """Faults can be combined, and each is told in the box's notes."""
        one = rehearsed(open_box, boot_delay=0.1, drop_after=600)
        said = "rehearsal: boot_delay = 0.1, drop_after = 600"
        assert said in one.box.notes


class TestDisk:
    def test_full(self, open_box: OpenBox) -> None:
        """A small disk is full when it is, and only it."""
        one = _with_disk(open_box, 4_000_000)
        done = one.ssh("head -c 9000000 /dev/zero > work/big")
        assert b"No space left on device" in done.stderr
        total = one.ssh("df -P -B1 ~ | awk 'NR==2 {print $2}'").stdout
        assert 3_900_000 < int(total) < 4_100_000

    def test_is_lost(self, open_box: OpenBox) -> None:
        """Such a disk cannot be saved, is lost at stop, and the notes say so."""
        one = _with_disk(open_box, 4_000_000)
        assert any("lost at stop" in note for note in one.box.notes)
        one.ssh("touch ~/file")
        one.local.stop(one.box)
        assert not (one.layout.home / "file").exists()
        with pytest.raises(ProviderError, match="cannot be saved"):
            one.local.save(one.box, an_image_of(one))


def an_image_of(one: SshBox) -> Image:
    """Return what this box would be saved as."""
    tags = dataclasses.replace(one.box.tags, kind="image")
    return Image(f"im-{one.box.id}", "image", "hash", 0.0, 0, "", tags)


def _with_disk(open_box: OpenBox, size: int) -> SshBox:
    try:
        return rehearsed(open_box, disk=size)
    except ProviderError as error:
        assert "cannot be rehearsed here" in error.message
        assert os.getuid() != 0
        pytest.skip(error.message)


def test_a_box_has_the_faults_that_the_settings_hold(project: Project) -> None:
    """One parser reads [local.rehearse]: the box gets its numbers as they are."""
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
    """Count on the box, and read here; check that what lags behind comes later."""
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
