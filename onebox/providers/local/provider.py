"""The provider `local`: boxes that are directories of this machine, for nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from onebox.errors import ConfigError, Gone, ProviderError, Unclear
from onebox.providers.base import (
    Box,
    Check,
    Image,
    Leftover,
    Offer,
    Provider,
    Request,
    Requirements,
)
from onebox.providers.kernel.clock import CLOSE_SECONDS
from onebox.signals import held
from onebox.store.atomic_files import private_dir

from . import (
    disk,
    fault_injection,
    host,
    images,
    lifecycle,
    processes,
    records,
)
from .layout import Layout, take_lock, write_json
from .settings import LocalSettings

CONSOLE_LINES = 40

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# What may stand in PATH, in a script's first line, and in a shell unquoted.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+@=,~-]+")


class Local(Provider):
    """
    Boxes below *root*, as *settings* (the table [local]) wants them.

    Raises:
        ConfigError: The root or a setting cannot be used.
    """

    name = "local"
    own_system = False
    image_rate = 0.0

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
        self._faults = fault_injection.faults(settings.rehearse)
        self._read = _paths(settings.read)
        self._clock = clock

    def offers(self, need: Requirements) -> Sequence[Offer]:
        """Return this machine: whatever is asked for, it is what there is."""
        return [
            Offer(
                name=need.name,
                type="this machine",
                cpus=host.cpus(),
                memory=host.memory(),
                price=0.0,
                on_demand=0.0,
                spot=need.spot,
                arch=platform.machine(),
            )
        ]

    def egress_rate(self, place: str) -> float | None:
        """Return what a GB costs that stays on this machine: nothing."""
        return 0.0

    def base(self, name: str = "", arch: str = "") -> str:
        """Name this machine's system and Python, which every box is made of."""
        return host.base()

    def now(self) -> float:
        """Return the kernel's time: programs such as faketime change only our own."""
        here, there = self._clock(), host.clock()
        return there if abs(there - here) > CLOSE_SECONDS else here

    def create(self, request: Request) -> Box:
        """Make the box; see `Provider`. A half-made one is made whole."""
        final, new = self._layout(request.box), self._layout(request.box, ".new-")
        patience = time.monotonic() + lifecycle.UP_SECONDS
        while not os.path.lexists(final.path):
            if self._make(new, final, request):
                break
            if time.monotonic() > patience:
                raise Unclear(f"another onebox command is making box {request.box}")
            time.sleep(0.005)
        else:
            records.check_owner(final, request.tags)
            with _locked(final.lock) as lock:
                if lock is not None and not records.has_run(final):
                    lifecycle.start(final, lock)
        try:
            lifecycle.wait_until_up(final)
        except Unclear:
            raise
        except ProviderError:
            self._remove(final)
            raise
        return records.box(final)

    def find(
        self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
    ) -> Sequence[Box]:
        """Return this owner's boxes; clear away what a crash left half done."""
        found = []
        for path in self._entries("boxes"):
            layout = Layout(path)
            tags = records.tags(layout)
            # On a full disk not even a lock can be made, and what was killed just
            # now may still write: it can wait.
            if path.name.startswith(".gone-"):
                with contextlib.suppress(OSError):
                    disk.remove(path)
            elif path.name.startswith(".new-"):
                if tags is None or tags.owner == owner:
                    with contextlib.suppress(OSError):
                        _clear(layout)
            elif tags is not None and tags.owner == owner:
                # Another command may just have removed it.
                with contextlib.suppress(Gone):
                    found.append(records.box(layout))
        return found

    def get(self, box: str, place: str = "") -> Box | None:
        """Return this box as it is now, None once it is certainly gone."""
        layout = self._layout(box)
        try:
            return records.box(layout) if records.tags(layout) is not None else None
        except Gone:
            # Removed between the two looks.
            return None

    def start(self, box: Box, deadline: float) -> Box:
        """Boot a stopped box again, with the home directory as it was."""
        layout = self._layout(box.id)
        records.check_owner(layout, box.tags)
        lifecycle.wait_while_stopping(layout)
        with _locked(layout.lock) as lock:
            if lock is not None:
                records.renew(layout, deadline, self._faults)
                lifecycle.start(layout, lock)
        lifecycle.wait_until_up(layout)
        return records.box(layout)

    def stop(self, box: Box) -> None:
        """Stop the box and wait until it has; its disk stays."""
        layout = self._layout(box.id)
        with contextlib.suppress(Gone):
            records.check_owner(layout, box.tags)
            lifecycle.stop(layout, box.id, "stopped")

    def delete(self, box: Box) -> None:
        """Remove this one box, its processes and its directory."""
        layout = self._layout(box.id)
        with contextlib.suppress(Gone):
            records.check_owner(layout, box.tags)
        self._remove(layout)

    def leftovers(self, box: str, place: str = "") -> Sequence[Leftover]:
        """Return what there still is of this box: directories, processes."""
        paths = [self._layout(box, prefix).path for prefix in ("", ".new-", ".gone-")]
        found = [
            Leftover("directory", str(path), 0.0)
            for path in paths
            if os.path.lexists(path)
        ]
        pids = sorted(processes.marked(box))
        return [*found, *(Leftover("process", str(pid), 0.0) for pid in pids)]

    def images(self, owner: str) -> Sequence[Image]:
        """Return this owner's images, newest first."""
        found = []
        for path in self._entries("images"):
            image = records.image(path)
            if path.name.startswith(".gone-"):
                with contextlib.suppress(OSError):
                    disk.remove(path)
            elif image is not None and image.tags.owner == owner:
                found.append(image)
        return sorted(found, key=lambda image: image.created, reverse=True)

    def save(self, box: Box, image: Image) -> Image:
        """Save a stopped box's home, without `work`, as an image."""
        layout, final = self._layout(box.id), self._image_path(image.id)
        records.check_owner(layout, box.tags)
        present = records.image(final)
        if present is not None:
            records.check_same(f"image {image.id}", present.tags, image.tags)
            return present
        if records.loses_disk(layout):
            raise ProviderError(
                f"box {box.id} has a rehearsed disk, which it loses when it stops: "
                "it cannot be saved as an image"
            )
        self._make_private(final.parent)
        with _locked(layout.lock) as lock:
            if lock is None:
                raise ProviderError(f"box {box.id} must be stopped before it is saved")
            # In the box: whoever removes it after a crash removes this as well.
            new = layout.saving
            disk.remove(new)
            paths = images.save(layout.path, layout.home, new / "home")
            saved = Image(
                id=image.id,
                name=image.name,
                recipe=image.recipe,
                created=self.now(),
                stored=disk.size(new / "home"),
                arch=platform.machine(),
                tags=image.tags,
                base=image.base,
            )
            write_json(new / "image.json", {**asdict(saved), "paths": paths})
            new.rename(final)
        return saved

    def delete_image(self, image: Image) -> None:
        """Remove this one image; already gone is fine."""
        path = self._image_path(image.id)
        present = records.image(path)
        if present is not None:
            records.check_same(f"image {image.id}", present.tags, image.tags)
            gone = path.with_name(f".gone-{image.id}")
            _put_away(path, gone)
            disk.remove(gone)

    def console(self, box: Box) -> str:
        """Return the last lines that the box's two processes have said."""
        return lifecycle.console(self._layout(box.id), CONSOLE_LINES)

    def checks(self) -> Sequence[Check]:
        """Look for whatever would keep a box from coming up here."""
        return host.checks(self._root)

    def _make(self, new: Layout, final: Layout, request: Request) -> bool:
        """Make and start the box; say no if another makes it, or clears it away."""
        self._make_private(final.path.parent)
        new.path.mkdir(mode=0o700, exist_ok=True)
        with _locked(new.lock) as lock:
            if lock is None:
                return False
            try:
                self._prepare(new, final, request)
                new.path.rename(final.path)
            except BaseException:
                disk.remove(new.path)
                raise
            lifecycle.start(final, lock)
        return True

    def _prepare(self, new: Layout, final: Layout, request: Request) -> None:
        """Write all of the box at *new*, for a life at *final*."""
        for left in new.path.iterdir():
            # A crash's. The lock is ours, and must stay the file that it is.
            if left != new.lock:
                disk.remove(left) if left.is_dir() else left.unlink()
        records.write(new, final, request, self.now(), self._faults, self._read)
        lifecycle.furnish(new, final, request.arming.agent)
        if request.image is None:
            return
        saved = self._image_path(request.image.id)
        paths = records.image_paths(saved)
        if paths is None:
            raise ProviderError(f"there is no image {request.image.id} here")
        images.restore(saved / "home", paths, final.path, new.home)

    def _remove(self, layout: Layout) -> None:
        box = layout.path.name
        gone, new = self._layout(box, ".gone-").path, self._layout(box, ".new-")
        if os.path.lexists(layout.path):
            lifecycle.stop(layout, box, "deleted")
            # From here on the box is gone, whatever happens to us.
            _put_away(layout.path, gone)
        processes.end(lambda: processes.marked(box), grace=2 * processes.GRACE_SECONDS)
        disk.remove(gone)
        if not _clear(new):
            raise Unclear(f"another onebox command is making box {box}")

    def _make_private(self, folder: Path) -> None:
        """Make a folder of the root's that only this user can enter or replace."""
        private_dir(folder)
        folder.chmod(0o700)
        # An older version made the root as open as the user's umask was.
        mode = stat.S_IMODE(self._root.stat().st_mode)
        if mode & 0o022 and not mode & stat.S_ISVTX:
            self._root.chmod(mode & ~0o022)

    def _layout(self, box: str, prefix: str = "") -> Layout:
        return Layout(self._root / "boxes" / f"{prefix}{_plain_id(box)}")

    def _image_path(self, image: str) -> Path:
        return self._root / "images" / _plain_id(image)

    def _entries(self, kind: str) -> list[Path]:
        try:
            return sorted((self._root / kind).iterdir())
        except FileNotFoundError:
            return []


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """Hold the lock, if nobody else does, and let go of it after."""
    lock = None
    try:
        # Lost between the taking and the noting, it would be held until we end.
        with held():
            lock = take_lock(path)
        yield lock
    finally:
        if lock is not None:
            os.close(lock)


def _clear(left: Layout) -> bool:
    """Remove what a crash has left; say no if somebody is still at work there."""
    if not left.path.is_dir():
        return True
    gone = left.path.with_name(left.path.name.replace("new", "gone", 1))
    with _locked(left.lock) as lock:
        if lock is None:
            return False
        # Whole, and with its lock: whoever makes the box anew starts on nothing.
        _put_away(left.path, gone)
    disk.remove(gone)
    return True


def _put_away(path: Path, gone: Path) -> None:
    """Move to *gone* what is to be removed, unless another command just has."""
    disk.remove(gone)
    with contextlib.suppress(FileNotFoundError):
        path.rename(gone)


def _plain_id(text: str) -> str:
    """Return an id that is one plain file name. Raises `ProviderError`."""
    if not _ID.fullmatch(text):
        raise ProviderError(f"{text!r} cannot be the id of a box or an image")
    return text


def _paths(folders: Sequence[str]) -> tuple[str, ...]:
    """Return absolute paths of *folders*, with and without symbolic links."""
    named = [str(Path(folder).expanduser().absolute()) for folder in folders]
    return tuple(dict.fromkeys([*named, *map(os.path.realpath, named)]))
