"""What the contract's tests see of local boxes, past their provider."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from onebox.providers.base import Request
from onebox.providers.local import processes
from onebox.providers.local.layout import Layout

from ..contract import an_image


class LocalWorld:
    """The folder of the boxes, for one test; see `World`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.here = "127.0.0.1"
        self.lost = 0

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Look at which addresses the port of the box is listened at."""
        port = int(json.loads(self._layout(box).state.read_bytes())["port"])
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        places = [line.split()[1].split(":") for line in lines if " 0A " in line]
        heard = {address for address, number in places if int(number, 16) == port}
        return bool(heard) and (heard != {"0100007F"} or source.startswith("127."))

    def told(self, box: str) -> str:
        """Return what the supervisor boots the box by."""
        return self._layout(box).boot.read_text()

    def deadline_on(self, box: str) -> float | None:
        """Read it where both the supervisor and the agent do."""
        boot = json.loads(self.told(box) or "{}")
        found = {boot.get("deadline"), boot.get("agent", {}).get("deadline")}
        return found.pop() if len(found) == 1 else None

    def mark(self, box: str, word: str) -> None:
        """Write the word into the home directory."""
        (self._layout(box).home / "mark").write_text(word)

    def booted_from(self, box: str) -> str:
        """Read the word in the home directory."""
        path = self._layout(box).home / "mark"
        return path.read_text() if path.exists() else ""

    def belongings(self, box: str) -> set[str]:
        """Return directories, and the process that supervises the box."""
        folder = self.root / "boxes"
        paths = [folder / f"{prefix}{box}" for prefix in ("", ".new-", ".gone-")]
        found = {str(path) for path in paths if path.exists()}
        pids = [str(pid) for pid in processes.marked(box)]
        return found | {pid for pid in pids if _supervises(pid)}

    def walls(self, owner: str) -> set[str]:
        """There are none."""
        return set()

    def packed(self) -> str:
        """Packer makes no images for local boxes."""
        raise NotImplementedError

    def lose_next_answer(self) -> None:
        """There are no answers that could be lost."""
        raise NotImplementedError

    def refuse(self, request: Request) -> Request:
        """Ask for an image that is not there."""
        return replace(request, image=an_image(request, "no-such-image"))

    def accept(self) -> None:
        """Only that one request is refused."""

    def move(self) -> str:
        """Loopback is everywhere the same."""
        raise NotImplementedError

    def open_to_all(self, box: str) -> None:
        """Its ssh server binds to loopback, and to nothing that could be opened."""
        raise NotImplementedError

    def take_off_walls(self, box: str) -> None:
        """There are none."""
        raise NotImplementedError

    def tell(self, box: str, told: str) -> None:
        """Replace what the supervisor boots the box by."""
        self._layout(box).boot.write_text(told)

    def boot_plain(self, box: str) -> None:
        """Empty the home directory of what the image has put there."""
        (self._layout(box).home / "mark").unlink(missing_ok=True)

    def leave_behind(self, owner: str, box: str) -> None:
        """Leave a half-made directory."""
        (self.root / "boxes" / f".new-{box}" / "home").mkdir(parents=True)

    def _layout(self, box: str) -> Layout:
        return Layout(self.root / "boxes" / box)


def _supervises(pid: str) -> bool:
    """Tell whether a process is a box's supervisor, which lives as long as it runs."""
    try:
        return b"supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
