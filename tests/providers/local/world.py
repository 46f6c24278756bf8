"""Access to local boxes for the contract tests, without the provider."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from onebox.providers.local import box_processes
from onebox.providers.local.layout import Layout
from onebox.providers.values import Request
from tests.fakes.world import World

from ..boxes import image_of


class LocalWorld(World):
    """The directory of the boxes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def ssh_open_to(self, box: str, source: str) -> bool:
        """Return whether the port of the box's ssh server is open to an address."""
        port = int(json.loads(self._layout(box).state.read_bytes())["port"])
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        places = [line.split()[1].split(":") for line in lines if " 0A " in line]
        correct = {address for address, number in places if int(number, 16) == port}
        return bool(correct) and (correct != {"0100007F"} or source.startswith("127."))

    def boot_data(self, box: str) -> str:
        """Return the box's boot configuration as text."""
        return self._layout(box).boot.read_text()

    def deadline_on(self, box: str) -> float | None:
        """Return the deadline of both supervisor and agent, None if they differ."""
        boot = json.loads(self.boot_data(box) or "{}")
        found = {boot.get("deadline"), boot.get("agent", {}).get("deadline")}
        return found.pop() if len(found) == 1 else None

    def mark_disk(self, box: str, word: str) -> None:
        """Write a word to a file in the home directory."""
        (self._layout(box).home / "mark").write_text(word)

    def image_on_disk(self, box: str) -> str:
        """Return the word in the home directory."""
        path = self._layout(box).home / "mark"
        return path.read_text() if path.exists() else ""

    def objects_of(self, box: str) -> set[str]:
        """Return the box's directories and the process of its supervisor."""
        folder = self.root / "boxes"
        paths = [folder / f"{prefix}{box}" for prefix in ("", ".new-", ".gone-")]
        found = {str(path) for path in paths if path.exists()}
        pids = [str(pid) for pid in box_processes.marked(box)]
        return found | {pid for pid in pids if _supervises(pid)}

    def refuse_creates(self, request: Request) -> Request:
        """Return the request with an image that does not exist."""
        return replace(request, image=image_of(request, "no-such-image"))

    def accept_creates(self) -> None:
        """Do nothing: only that one request is refused."""

    def set_boot_data(self, box: str, boot_data: str) -> None:
        """Replace the box's boot configuration."""
        self._layout(box).boot.write_text(boot_data)

    def put_base_on_disk(self, box: str) -> None:
        """Remove the word that the image put into the home directory."""
        (self._layout(box).home / "mark").unlink(missing_ok=True)

    def leave_partial_create(self, owner: str, box: str) -> None:
        """Create an unfinished box's directory, as a crash would leave it."""
        (self.root / "boxes" / f".new-{box}" / "home").mkdir(parents=True)

    def _layout(self, box: str) -> Layout:
        return Layout(self.root / "boxes" / box)


def _supervises(pid: str) -> bool:
    """Return whether a process is a box's supervisor."""
    try:
        return b"box_supervisor" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
