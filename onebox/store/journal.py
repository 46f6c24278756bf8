"""Record on the disk, before each call, what onebox is about to create or delete."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from onebox.signals import signals_delayed
from onebox.store.atomic_files import (
    disk_errors,
    open_file,
    private_dir,
    sync_dir,
    write_all,
)
from onebox.store.identity import random_id


@dataclass(frozen=True)
class Intent:
    """
    One action on a cloud object, journaled before it begins.

    Attributes:
        id: A random id that links the action to its result.

        action: "create", "delete" or "start" for a box; "save", "adopt", "unsave" or
            "packer" for an image.

        at: When it was journaled (epoch seconds by this machine's clock).

        provider: The provider that is called, "" if the journal does not name it.

        box: The id of the box.

        place: The zone or region of the box.

        kind: "box" or "builder".

        temporary: See `Record.temporary`.

        created: When the box was created (epoch seconds by the provider's clock).

        seen: The provider had listed the box before the action began.

        tags: The tags of the box.

        details: All other values that the caller of `Journal.intent` passed, by name.
    """

    id: str
    action: str
    at: float
    provider: str = ""
    box: str = ""
    place: str = ""
    kind: str = "box"
    temporary: bool = False
    created: float = 0.0
    seen: bool = False
    tags: Mapping[str, Any] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, line: Mapping[str, Any]) -> Intent:
        """Return the intent in one line of the journal."""
        known = {name: line[name] for name in _FIELDS if name in line}
        return cls(**known, details={k: v for k, v in line.items() if k not in _FIELDS})

    def concerns(self, provider: str) -> bool:
        """Return whether the action is, or may be, on an object of this provider."""
        return self.provider in ("", provider)


_FIELDS = {f.name for f in fields(Intent)} - {"details"}


@dataclass
class Outcome:
    """
    Tells `Journal.intent` the result of an action that fails.

    The body of `Journal.intent` sets *undone* to True if the failed action has left no
    cloud object.
    """

    undone: bool = False


class Journal:
    """
    The intents of one box, in an append-only file.

    Each line starts with the CRC-32 of its text. A line that a crash cut short does
    not match its checksum and is ignored.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def intent(self, action: str, **values: Any) -> Iterator[Outcome]:
        """
        Journal an action before the body runs, and its result afterwards.

        If the body raises, the intent stays open, unless the body has set `undone`.
        """
        intent_id = random_id(8)
        self._append({"id": intent_id, "action": action, "at": time.time(), **values})
        outcome = Outcome()
        try:
            yield outcome
        except BaseException:
            if outcome.undone:
                self._append({"id": intent_id, "result": "undone"})
            raise
        self._append({"id": intent_id, "result": "done"})

    def open_intents(self) -> list[Intent]:
        """Return the intents that have no result in the journal yet, oldest first."""
        intents: dict[str, Intent] = {}
        for line in self._lines():
            if "action" in line:
                intents[line["id"]] = Intent.parse(line)
            else:
                intents.pop(line["id"], None)
        return list(intents.values())

    def close(self, intent: Intent, result: str) -> None:
        """Journal the result of an open intent."""
        self._append({"id": intent.id, "result": result})

    def clear(self) -> None:
        """Remove the journal, unless an intent in it is open."""
        if not self.open_intents():
            self._path.unlink(missing_ok=True)

    def _append(self, line: Mapping[str, Any]) -> None:
        text = json.dumps(line, separators=(",", ":"))
        data = f"{zlib.crc32(text.encode()):08x} {text}\n".encode()
        with disk_errors(self._path), signals_delayed():
            private_dir(self._path.parent)
            is_new = not self._path.exists()
            fd = open_file(self._path, os.O_RDWR | os.O_APPEND)
            try:
                # If a crash has cut the last line short, the new text must not be
                # appended to it.
                size = os.fstat(fd).st_size
                if size and os.pread(fd, 1, size - 1) != b"\n":
                    data = b"\n" + data
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            if is_new:
                sync_dir(self._path.parent)

    def _lines(self) -> Iterator[dict[str, Any]]:
        with disk_errors(self._path):
            raw = self._path.read_bytes() if self._path.exists() else b""
        for line in raw.split(b"\n"):
            checksum, _, text = line.partition(b" ")
            if text and checksum == b"%08x" % zlib.crc32(text):
                yield json.loads(text)
