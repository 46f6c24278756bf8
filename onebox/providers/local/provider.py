"""The provider `local`: boxes that are directories on this machine, at no cost."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from onebox.errors import ConfigError, Gone, ProviderError, Unclear
from onebox.providers.base import Provider
from onebox.providers.kernel.clock import CLOSE_SECONDS
from onebox.providers.kernel.images import check_stopped, newest_first
from onebox.providers.values import (
    Box,
    Check,
    Image,
    Leftover,
    Offer,
    Request,
    Requirements,
    SaveProgress,
    ignore_progress,
)
from onebox.store.atomic_files import private_dir

from . import creation, deletion, directories, doctor, host, images, instances, power
from .layout import Layout
from .locks import locked
from .settings import LocalSettings

CONSOLE_LINES = 40

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# These characters are allowed in PATH, in the first line of a script, and in a shell
# word without quotes.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@=,~-]+")


class Local(Provider):
    """
    Boxes in the directory *root*, with the *settings* of the table [local].

    Raises:
        ConfigError: The root or a setting is invalid.
    """

    name = "local"
    own_system = False
    image_rate = 0.0
    shares_ports = True

    def __init__(
        self,
        settings: LocalSettings,
        root: Path,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = Path(os.path.realpath(root))
        if not _PLAIN_PATH.fullmatch(str(self._root)):
            raise ConfigError(
                f"boxes cannot live in {str(self._root)!r}: programs installed in "
                "them need a path of plain letters, digits and / . _ + @ = , ~ -",
                next="set ONEBOX_LOCAL_ROOT to another directory",
            )
        self._settings = settings
        self._clock = clock

    def offers(self, requirements: Requirements) -> Sequence[Offer]:
        """Return one offer, this machine, whatever the requirements are."""
        return [
            Offer(
                name=requirements.name,
                type="this machine",
                cpus=host.cpus(),
                memory=host.memory(),
                machine_price=0.0,
                machine_on_demand=0.0,
                spot=requirements.spot,
                arch=platform.machine(),
            )
        ]

    def egress_rate(self, place: str) -> float | None:
        """Return 0, because the outputs of a local box do not leave this machine."""
        return 0.0

    def base(self, name: str = "", arch: str = "") -> str:
        """Return the name of this machine's system and Python."""
        return host.base()

    def now(self) -> float:
        """
        Return the time (epoch seconds).

        If the time of this process is far from the kernel's time, return the kernel's
        time. Programs such as faketime do not change that.
        """
        ours, kernel = self._clock(), host.clock()
        return kernel if abs(kernel - ours) > CLOSE_SECONDS else ours

    def create(self, request: Request) -> Box:
        """
        Create and start the box; see `Provider.create`.

        If a crash prevented the start of a box that was created, start that box.
        """
        final = self._layout(request.box)
        deadline = time.monotonic() + power.UP_SECONDS
        while not os.path.lexists(final.path):
            if self._make(final, request):
                break
            if time.monotonic() > deadline:
                raise Unclear(f"another onebox command is making box {request.box}")
            time.sleep(0.005)
        else:
            instances.check_owner(final, request.tags)
            with locked(final.lock) as lock:
                if lock is not None and not instances.has_run(final):
                    power.start(final, lock)
        try:
            power.wait_until_up(final)
        except Unclear:
            raise
        except ProviderError:
            deletion.remove(final)
            raise
        return instances.box(final)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """
        Return the owner's boxes.

        Also remove the boxes that are half created or half deleted because a command
        crashed.
        """
        found = []
        for path in self._entries("boxes"):
            layout = Layout(path)
            tags = instances.tags(layout)
            # Errors of a removal are ignored, and the next call tries again. For
            # example, no lock file can be created on a full disk, or a process that was
            # just killed may still write.
            if path.name.startswith(instances.DELETED):
                with contextlib.suppress(OSError):
                    directories.remove(path)
            elif path.name.startswith(instances.NEW):
                if tags is None or tags.owner == owner:
                    with contextlib.suppress(OSError):
                        deletion.clear_unfinished(layout)
            elif tags is not None and tags.owner == owner:
                # Another command may have removed the box after its tags were read.
                with contextlib.suppress(Gone):
                    found.append(instances.box(layout))
        return found

    def get(self, box: str, place: str = "") -> Box | None:
        """Return the present state of the box *box*, None if it does not exist."""
        layout = self._layout(box)
        try:
            return instances.box(layout) if instances.tags(layout) is not None else None
        except Gone:
            # Another command removed the box after its tags were read.
            return None

    def start(self, box: Box, deadline: float) -> Box:
        """
        Start a stopped box again, with a new deadline and its former home directory.
        """
        layout = self._layout(box.id)
        instances.check_owner(layout, box.tags)
        power.wait_while_stopping(layout)
        with locked(layout.lock) as lock:
            if lock is not None:
                creation.renew(layout, deadline, self._settings.rehearse)
                power.start(layout, lock)
        power.wait_until_up(layout)
        return instances.box(layout)

    def stop(self, box: Box) -> None:
        """Stop the box and wait until it has stopped; its disk stays."""
        layout = self._layout(box.id)
        with contextlib.suppress(Gone):
            instances.check_owner(layout, box.tags)
            power.stop(layout, box.id, "stopped")

    def delete(self, box: Box) -> None:
        """Remove the box: its processes and its directory."""
        layout = self._layout(box.id)
        with contextlib.suppress(Gone):
            instances.check_owner(layout, box.tags)
        deletion.remove(layout)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Return the directories and processes that still exist of the box *box*."""
        return deletion.leftovers(self._layout(box))

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""
        found = []
        for path in self._entries("images"):
            image = images.image(path)
            if path.name.startswith(instances.DELETED):
                with contextlib.suppress(OSError):
                    directories.remove(path)
            elif image is not None and image.tags.owner == owner:
                found.append(image)
        return newest_first(found)

    def save(
        self, box: Box, image: Image, progress: SaveProgress = ignore_progress
    ) -> Image:
        """Save a stopped box's home as an image, without the project and ssh keys."""
        layout, final = self._layout(box.id), self._image_path(image.id)
        instances.check_owner(layout, box.tags)
        present = images.image(final)
        if present is not None:
            instances.check_same(f"image {image.id}", present.tags, image.tags)
            return present
        if instances.loses_disk(layout):
            raise ProviderError(
                f"box {box.id} has a rehearsed disk, which it loses when it stops: "
                "it cannot be saved as an image"
            )
        self._make_private(final.parent)
        with locked(layout.lock) as lock:
            check_stopped(box, lock is not None)
            # The new image is first saved in the box's directory, so that after a crash
            # it is removed with the box.
            new = layout.saving
            directories.remove(new)
            paths = images.save(layout.path, layout.home, new / "home", progress)
            saved = Image(
                id=image.id,
                name=image.name,
                recipe=image.recipe,
                created=self.now(),
                stored=directories.size(new / "home"),
                arch=platform.machine(),
                tags=image.tags,
                base=image.base,
            )
            images.describe(new, saved, paths)
            new.rename(final)
        return saved

    def delete_image(self, image: Image) -> None:
        """Remove the image, if it exists."""
        path = self._image_path(image.id)
        present = images.image(path)
        if present is not None:
            instances.check_same(f"image {image.id}", present.tags, image.tags)
            deleted = path.with_name(f"{instances.DELETED}{image.id}")
            deletion.put_away(path, deleted)
            directories.remove(deleted)

    def console(self, box: Box) -> str:
        """Return the last lines of the box's console."""
        return power.console(self._layout(box.id), CONSOLE_LINES)

    def checks(self) -> Sequence[Check]:
        """Check what boxes on this machine need; return the lines for `inv doctor`."""
        return doctor.checks(self._root)

    def _make(self, final: Layout, request: Request) -> bool:
        """Create and start the box; return False if another command creates it."""
        self._make_private(final.path.parent)
        image = self._image_path(request.image.id) if request.image else None
        return creation.make(final, request, image, self.now(), self._settings)

    def _make_private(self, folder: Path) -> None:
        """Create a folder below the root that only this user can enter or replace."""
        private_dir(folder)
        folder.chmod(0o700)
        # An older version of onebox created the root with the permissions of the user's
        # umask, so that others may be able to write to it.
        mode = stat.S_IMODE(self._root.stat().st_mode)
        if mode & 0o022 and not mode & stat.S_ISVTX:
            self._root.chmod(mode & ~0o022)

    def _layout(self, box: str) -> Layout:
        return Layout(self._root / "boxes" / _plain_id(box))

    def _image_path(self, image: str) -> Path:
        return self._root / "images" / _plain_id(image)

    def _entries(self, kind: str) -> list[Path]:
        try:
            return sorted((self._root / kind).iterdir())
        except FileNotFoundError:
            return []


def _plain_id(text: str) -> str:
    """
    Return *text* if it is a valid id, which is a plain file name.

    Raises ProviderError if it is not.
    """
    if not _ID.fullmatch(text):
        raise ProviderError(f"{text!r} cannot be the id of a box or an image")
    return text
