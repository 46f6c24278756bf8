"""Write files of a job's directory durably."""

from __future__ import annotations

import json
import os
from typing import Any, Dict


def save(directory: str, name: str, data: bytes) -> None:
    """Write a file, and return when it is on the disk. Raises OSError."""
    fd = os.open(
        os.path.join(directory, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600
    )
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def save_json(directory: str, name: str, value: Dict[str, Any]) -> None:
    """Write *value* as a JSON file, and return when it is on the disk."""
    save(directory, name, json.dumps(value).encode("ascii"))
