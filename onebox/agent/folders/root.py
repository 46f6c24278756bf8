"""The folders of boxes and images below the root on a cluster."""

from __future__ import annotations

import json
import math
import os
import re
from typing import Any, Dict, List, Optional

from ..box import replace_file

# This file is in the root, and says that everything else there is onebox's.
MARK = ".onebox-root"
AGENTS = "agents"
# The record of a folder, by the kind of the folder: it names the owner.
RECORDS = {"boxes": "record.json", "images": "image.json"}
# What is read has at most this many bytes. The paths in an image need most of them.
LONGEST = 64 << 20
# A record that is sent to the client is shorter than this, and not nested deeper.
LONGEST_RECORD = 64 << 10
DEEPEST = 8
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Refusal(Exception):
    """A request was refused; *kind* is the reason in a form for programs."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Root:
    """
    The folder below which all files of onebox on the cluster are.

    Args:
        text: Its path, which may contain variables of the login and begin with `~`.

    Raises:
        Refusal: A variable is not set, or the path is not absolute.
    """

    def __init__(self, text: str) -> None:
        path = os.path.expanduser(os.path.expandvars(text))
        if "$" in path or not os.path.isabs(path):
            message = "%s: the login does not know the variable or the user in it"
            raise Refusal("root", message % text)
        self.path = os.path.realpath(path)

    def claim(self) -> None:
        """
        Create the root, or check that it is one of onebox.

        What no box uses is removed below the root, so it must not have other files.

        Raises:
            Refusal: It has other files than those of onebox.
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        names = set(os.listdir(self.path))
        if MARK not in names:
            # The agent was sent there before this.
            if names - {AGENTS}:
                text = "%s has other files than onebox's: name a folder in it"
                raise Refusal("root", text % self.path)
            write_json(os.path.join(self.path, MARK), {})

    def box(self, name: str) -> str:
        """Return the path of the folder of a box."""
        return os.path.join(self.path, "boxes", name)

    def image(self, name: str) -> str:
        """Return the path of the folder of an image."""
        return os.path.join(self.path, "images", name)

    def home(self, name: str) -> str:
        """Return the path of the home of a box."""
        return os.path.join(self.box(name), "home")

    def work(self, name: str) -> str:
        """Return the path of the folder in which the jobs of a box run."""
        return os.path.join(self.box(name), "work")

    def names(self, kind: str) -> List[str]:
        """Return the names of all folders of a kind, such as "boxes"."""
        try:
            return sorted(os.listdir(os.path.join(self.path, kind)))
        except FileNotFoundError:
            return []

    def record(self, name: str) -> Optional[Dict[str, Any]]:
        """Return the record of a box, None if the box or a valid record is missing."""
        record = read_json(os.path.join(self.box(name), RECORDS["boxes"]))
        return record if _is_record(record) else None

    def image_record(self, name: str) -> Optional[Dict[str, Any]]:
        """Return the record of an image, None if a valid one is missing."""
        record = read_json(os.path.join(self.image(name), RECORDS["images"]))
        if record is None or not _is_record(record.get("image")):
            return None
        paths, source = record.get("paths"), record.get("source")
        if not isinstance(paths, list) or not isinstance(source, str):
            return None
        # It is searched for in files, so it must not be "".
        if not os.path.isabs(source):
            return None
        return record if all(isinstance(path, str) for path in paths) else None

    def owner(self, kind: str, name: str) -> Optional[str]:
        """Return the owner in the record of a folder, None without a valid record."""
        if kind == "boxes":
            record = self.record(name)
        else:
            record = (self.image_record(name) or {}).get("image")
        return None if record is None else str(record["tags"].get("owner"))

    def existing(self, name: str) -> Dict[str, Any]:
        """
        Return the record of a box.

        Raises:
            Refusal: The box is gone, or its record is damaged.
        """
        record = self.record(name)
        if record is not None:
            return record
        if os.path.lexists(self.box(name)):
            raise damaged(self.box(name), "boxes")
        raise Refusal("gone", "box %s is gone" % name)


def damaged(folder: str, kind: str) -> Refusal:
    """Return the refusal for a folder without a valid record."""
    return Refusal("damaged", "%s has no valid %s" % (folder, RECORDS[kind]))


def is_id(text: str) -> bool:
    """Return whether *text* is a valid id, which is a plain file name."""
    return _ID.fullmatch(text) is not None


def check_owner(id: str, found: Dict[str, Any], tags: Dict[str, Any]) -> None:
    """
    Check that the tags of a folder name the same owner, project and kind as *tags*.

    Raises Refusal if they do not.
    """
    for name in ("owner", "project", "kind"):
        if found["tags"].get(name) != tags.get(name):
            raise Refusal("owner", "%s belongs to another %s" % (id, name))


def read_json(path: str) -> Optional[Dict[str, Any]]:
    """
    Return the object in a JSON file, None if the file is missing or invalid.

    A number that the answer to the client could not contain makes a file invalid, and
    so does an object that is nested too deeply.
    """
    # The name may be that of a pipe, which would be waited for.
    if not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST + 1)
        if len(data) > LONGEST:
            return None
        value = json.loads(
            data, parse_constant=_no_number, parse_float=_finite, parse_int=_short
        )
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not _is_deep(value, DEEPEST) else None


def write_json(path: str, value: Dict[str, Any]) -> None:
    """Replace a JSON file atomically and durably. Raises OSError."""
    replace_file(path, json.dumps(value, indent=1).encode("ascii"), sync=True)


def _is_record(value: Any) -> bool:
    """Return whether a value has tags, and is short enough for an answer."""
    if not isinstance(value, dict) or not isinstance(value.get("tags"), dict):
        return False
    return len(json.dumps(value)) < LONGEST_RECORD


def _is_deep(value: Any, levels: int) -> bool:
    """Return whether a value of JSON has more than this many levels."""
    if not isinstance(value, (dict, list)):
        return False
    below = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deep(one, levels - 1) for one in below)


def _no_number(constant: str) -> float:
    raise ValueError("%s is no number of JSON" % constant)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("the number is too large")
    return number


def _short(text: str) -> int:
    if len(text) > 20:
        raise ValueError("the number is too large")
    return int(text)
