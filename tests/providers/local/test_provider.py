"""Directories, crashes and concurrent commands of local boxes."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onebox.agent.processes import send
from onebox.errors import ConfigError, NotAllowed, ProviderError
from onebox.providers.local import (
    box_processes,
    images,
    instances,
    locks,
    power,
)
from onebox.providers.local.layout import Layout, read_json
from onebox.providers.local.locks import take_lock
from onebox.providers.local.provider import Local
from onebox.providers.local.settings import LocalSettings, Rehearse
from onebox.providers.values import Requirements
from onebox.signals import Interrupted, signals_as_exceptions

from ..boxes import MakeRequest, image_of
from ..sshbox import wait_until
from .conftest import OpenBox
from .test_fault_injection import an_image_of


class TestSettings:
    @pytest.mark.parametrize("name", ["with space", "häuser", "a:b", "a'b"])
    def test_a_root_with_special_characters_is_refused(
        self, place: Path, name: str
    ) -> None:
        """
        A root that scripts cannot use in their first line is refused, with the
        variable.
        """
        with pytest.raises(ConfigError) as error:
            Local(LocalSettings(), place / name)
        assert "ONEBOX_LOCAL_ROOT" in error.value.next

    def test_this_machine_costs_nothing(self, place: Path) -> None:
        """The price of this machine is zero, and not unknown."""
        [size] = Local(LocalSettings(), place).offers(
            Requirements("large", 64, 1 << 40, spot=True)
        )
        assert (size.machine_price, size.machine_on_demand, size.spot) == (
            0.0,
            0.0,
            True,
        )
        assert size.name == "large"


class TestDirectory:
    def test_a_boxs_files_are_private(self, open_box: OpenBox) -> None:
        """Only this user can read a box's directory and its keys."""
        layout = open_box().layout
        for path in (layout.path, layout.path.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for path in (layout.record, layout.boot, layout.state):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("box", ["", "../x", "a/b", ".new-x", "a b", "x" * 65])
    def test_an_id_that_is_no_file_name_is_refused(
        self, place: Path, make_request: MakeRequest, box: str
    ) -> None:
        """An id that is no plain file name is refused before anything happens."""
        local = Local(LocalSettings(), place / "root")
        with pytest.raises(ProviderError):
            local.create(make_request(box=box))
        with pytest.raises(ProviderError):
            local.get(box)

    def test_a_link_in_place_of_a_box_is_not_followed(self, open_box: OpenBox) -> None:
        """A link in place of a box is neither followed nor removed."""
        one = open_box()
        away = one.layout.path.parent.parent / "away"
        one.layout.path.rename(away)
        one.layout.path.symlink_to(away)
        try:
            with pytest.raises(NotAllowed):
                one.local.delete(one.box)
            assert one.local.get(one.box.id) is None
            assert (away / "record.json").exists()
        finally:
            one.layout.path.unlink()
            away.rename(one.layout.path)

    def test_a_directory_without_the_boxs_marker_is_not_removed(
        self, place: Path, make_request: MakeRequest
    ) -> None:
        """A directory without the marker of this box id is never removed."""
        request = make_request()
        local = Local(LocalSettings(), place / "root")
        box = local.create(request)
        layout = Layout(place / "root" / "boxes" / box.id)
        layout.marker.write_text("another")
        with pytest.raises(NotAllowed):
            local.delete(box)
        layout.marker.write_text(box.id)
        local.delete(box)

    def test_unreadable_directories_are_removed(self, open_box: OpenBox) -> None:
        """Directories that a job made unreadable are removed with the box."""
        one = open_box()
        one.ssh("mkdir -p a/b/c && touch a/b/c/d && chmod 000 a/b/c a/b a")
        one.local.delete(one.box)
        assert not one.local.leftovers(one.box.id)


class TestCrashes:
    def test_an_unfinished_box_is_completed_or_removed(
        self, place: Path, make_request: MakeRequest
    ) -> None:
        """An unfinished box is completed by its own request, and removed by others."""
        request = make_request()
        local = Local(LocalSettings(), place / "root")
        new = Layout(place / "root" / "boxes" / f".new-{request.box}")
        (new.home / "old").mkdir(parents=True)
        (new.path / "lock").touch()
        assert local.leftovers(request.box)
        box = local.create(request)
        assert box.state == "running"
        assert not (Layout(new.path.with_name(box.id)).home / "old").exists()
        local.delete(box)
        new.home.mkdir(parents=True)
        assert list(local.find(request.tags.owner)) == []
        assert not local.leftovers(request.box)

    def test_a_box_under_construction_is_not_removed(self, place: Path) -> None:
        """A box that another command is creating right now is not removed."""
        local = Local(LocalSettings(), place / "root")
        new = Layout(place / "root" / "boxes" / ".new-x")
        new.path.mkdir(parents=True)
        lock = take_lock(new.lock)
        assert lock is not None
        try:
            local.find("owner")
            assert new.path.exists()
        finally:
            os.close(lock)
        local.find("owner")
        assert not new.path.exists()

    def test_an_interrupt_while_locking_leaves_nothing(
        self,
        place: Path,
        make_request: MakeRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """
        Ctrl-C at the moment when a lock is taken leaves nothing that cannot be removed.
        """
        local, request = Local(LocalSettings(), place / "root"), make_request()
        flock = fcntl.flock

        def press(handle: int, how: int) -> None:
            flock(handle, how)
            monkeypatch.undo()
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted), signals_as_exceptions(str):
            monkeypatch.setattr(fcntl, "flock", press)
            local.create(request)

        assert [] == list(local.find(request.tags.owner))
        assert [] == list((place / "root" / "boxes").iterdir())

    def test_a_box_that_never_started_is_started(self, open_box: OpenBox) -> None:
        """
        A box whose creator died before the start is stopped, and the next create starts
        it.
        """
        one = open_box()
        one.local.stop(one.box)
        one.layout.state.unlink()
        assert one.refresh().state == "stopped"
        assert open_box(box=one.box.id).box.state == "running"

    def test_find_completes_an_interrupted_delete(self, open_box: OpenBox) -> None:
        """The next find removes what an interrupted delete left behind."""
        one = open_box()
        one.local.stop(one.box)
        gone = one.layout.path.with_name(f".gone-{one.box.id}")
        shutil.copytree(one.layout.home, gone)
        assert [left.id for left in one.local.leftovers(one.box.id)][1:] == [str(gone)]
        one.local.find("whoever")
        assert not gone.exists()

    def test_failed_create_leaves_nothing(
        self, place: Path, make_request: MakeRequest
    ) -> None:
        """A failed create reports why, and leaves nothing behind."""
        request = make_request()
        image = dataclasses.replace(image_of(request), id="no-such-image")
        local = Local(LocalSettings(), place / "root")
        with pytest.raises(ProviderError, match="no-such-image"):
            local.create(dataclasses.replace(request, image=image))
        assert not local.leftovers(request.box)

    def test_a_crash_during_boot_is_reported_with_its_error(
        self, place: Path, make_request: MakeRequest
    ) -> None:
        """If the machine crashes during boot, the error contains its last output."""
        request = make_request(user_key="ssh-ed25519 not-a-key")
        local = Local(LocalSettings(), place / "root")
        with pytest.raises(ProviderError, match="KeyImportError"):
            local.create(request)
        assert not local.leftovers(request.box)

    def test_a_box_killed_during_boot_is_reported_as_killed(
        self, place: Path, make_request: MakeRequest
    ) -> None:
        """A box that is killed before it printed anything is reported as killed."""
        request = make_request()
        local = Local(LocalSettings(rehearse=Rehearse(boot_delay=60)), place / "root")

        def kill() -> None:
            wait_until(lambda: bool(box_processes.marked(request.box)))
            while found := box_processes.marked(request.box):
                send(signal.SIGKILL, found)

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(ProviderError, match="start: it was killed, or removed"):
            local.create(request)
        killer.join()
        assert not local.leftovers(request.box)


class TestConcurrentChanges:
    """Another command, or the box itself, acts between two steps of a command."""

    def test_a_box_whose_supervisor_is_ending_is_stopping(
        self, open_box: OpenBox
    ) -> None:
        """
        A supervisor that has published its final state and still has the lock is
        stopping.
        """
        one = open_box()
        one.local.stop(one.box)
        with take(one.layout.lock):
            assert (one.refresh().state, one.refresh().why) == ("stopping", "")
        assert (one.refresh().state, one.refresh().why) == ("stopped", "stopped")

    def test_a_stopped_box_has_a_reason_even_if_it_stopped_just_now(
        self, open_box: OpenBox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A box that stops while its files are read is never stopped without a reason.
        """
        one = open_box()

        def before(path: Path) -> dict[str, object] | None:
            read = read_json(path)
            if path == one.layout.state:
                monkeypatch.undo()
                one.local.stop(one.box)
            return read

        monkeypatch.setattr(instances, "read_json", before)
        box = one.refresh()
        assert (box.state, box.why) in (("running", ""), ("stopped", "stopped"))
        assert one.refresh().why == "stopped"

    def test_a_box_removed_during_get_or_find_is_gone(
        self, open_box: OpenBox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A box that is removed while its files are read does not exist."""
        one, other = open_box(), open_box()
        after(monkeypatch, instances, "tags", lambda: one.local.delete(one.box))
        assert one.local.get(one.box.id) is None
        after(monkeypatch, instances, "tags", lambda: other.local.delete(other.box))
        assert not other.local.find(other.box.tags.owner)

    @pytest.mark.parametrize(
        ("of", "step"), [(instances, "tags"), (power, "stop"), (box_processes, "end")]
    )
    def test_two_concurrent_deletes_succeed(
        self,
        open_box: OpenBox,
        monkeypatch: pytest.MonkeyPatch,
        of: object,
        step: str,
    ) -> None:
        """Two commands that delete a box at the same time both succeed."""
        one = open_box()
        before(monkeypatch, of, step, lambda: one.local.delete(one.box))
        one.local.delete(one.box)
        assert not one.local.leftovers(one.box.id)

    def test_two_concurrent_image_deletes_succeed(
        self, open_box: OpenBox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Two commands that delete an image at the same time both succeed."""
        one = open_box()
        one.local.stop(one.box)
        image = one.local.save(one.box, an_image_of(one))
        after(monkeypatch, images, "image", lambda: one.local.delete_image(image))
        one.local.delete_image(image)
        assert not one.local.images(one.box.tags.owner)

    def test_an_image_removed_during_create_leaves_no_box(
        self, open_box: OpenBox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        If the image is deleted during a create, the create fails and leaves no box.
        """
        one = open_box()
        one.local.stop(one.box)
        image = one.local.save(one.box, an_image_of(one))
        before(monkeypatch, images, "restore", lambda: one.local.delete_image(image))
        with pytest.raises(ProviderError, match="has been removed"):
            open_box(image=image)
        [left] = one.local.find(one.box.tags.owner)
        assert left.id == one.box.id

    def test_create_succeeds_if_another_command_clears_its_directory(
        self,
        place: Path,
        make_request: MakeRequest,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """
        A create succeeds even if another command removes its directory as a crash's.
        """
        boxes, request = Local(LocalSettings(), place / "root"), make_request()

        def clear() -> None:
            boxes.find("somebody-else")
            assert not list((place / "root" / "boxes").iterdir())

        before(monkeypatch, locks, "take_lock", clear)
        box = boxes.create(request)
        assert box.state == "running"
        boxes.delete(box)

    def test_leftovers_that_change_during_removal_stay_for_the_next(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Leftovers to which a process still writes are left for the next find."""
        boxes, gone = (
            Local(LocalSettings(), place / "root"),
            place / "root" / "boxes" / ".gone-x",
        )
        gone.mkdir(parents=True)
        rmdir = os.rmdir

        def late(path: str, **named: int | None) -> None:
            (gone / "late").touch()
            rmdir(path, **named)

        monkeypatch.setattr(os, "rmdir", late)
        assert not boxes.find("owner")
        monkeypatch.undo()
        assert not boxes.find("owner")
        assert not gone.exists()

    def test_checking_a_lock_does_not_prevent_a_start(
        self, open_box: OpenBox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A command that checks whether a box runs does not prevent its start."""
        one = open_box()
        one.local.stop(one.box)
        look = os.open(one.layout.lock, os.O_RDWR)
        fcntl.flock(look, fcntl.LOCK_SH)
        flock = fcntl.flock

        def meet(handle: int, how: int) -> None:
            try:
                flock(handle, how)
            finally:
                monkeypatch.undo()
                os.close(look)

        monkeypatch.setattr(fcntl, "flock", meet)
        one.box = one.local.start(one.box, one.box.deadline)
        assert one.box.state == "running"

    def test_a_box_started_while_stopping_comes_up(self, open_box: OpenBox) -> None:
        """A box that is started while it stops comes up once it has stopped."""
        one = open_box()
        one.ssh("(trap '' TERM HUP; sleep 299; sleep 299) >/dev/null 2>&1 & poweroff")
        wait_until(lambda: one.refresh().state != "running")
        one.box = one.local.start(one.box, one.box.deadline)
        assert one.box.state == "running"
        assert one.ssh("true").returncode == 0


def before(
    monkeypatch: pytest.MonkeyPatch, place: object, name: str, act: Callable[[], object]
) -> None:
    """Run *act* right before the next call of a function."""
    known = getattr(place, name)

    def called(*args: object, **named: object) -> object:
        monkeypatch.undo()
        act()
        return known(*args, **named)

    monkeypatch.setattr(place, name, called)


def after(
    monkeypatch: pytest.MonkeyPatch, place: object, name: str, act: Callable[[], object]
) -> None:
    """Run *act* right after the next call of a function."""
    known = getattr(place, name)

    def called(*args: object, **named: object) -> object:
        monkeypatch.undo()
        answer = known(*args, **named)
        act()
        return answer

    monkeypatch.setattr(place, name, called)


@contextlib.contextmanager
def take(path: Path) -> Iterator[None]:
    """Hold a lock, as another command would."""
    lock = take_lock(path)
    assert lock is not None
    try:
        yield
    finally:
        os.close(lock)
