"""The part of a sweep that one of several boxes runs, as its process gets it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from onebox.errors import UsageError
from onebox.store.atomic_files import read_regular, write_atomically

# The variable that names the file of the part, in the process of each box.
VARIABLE = "ONEBOX_PART"


@dataclass(frozen=True)
class Part:
    """
    Units that one box runs while other boxes run the others.

    Attributes:
        of: The name of the box without its number: that of the whole sweep.

        sweep: The id of the sweep.

        numbers: The numbers of the units.

        progress: The file that gets the progress of the units.
    """

    of: str
    sweep: str
    numbers: tuple[int, ...]
    progress: str


@dataclass(frozen=True)
class PartProgress:
    """How many units of a part are done, failed and running; *cost* in USD or None."""

    done: int = 0
    failed: int = 0
    running: int = 0
    cost: float | None = None


def deal(numbers: Sequence[int], boxes: int) -> list[tuple[int, ...]]:
    """
    Return the numbers for each box, dealt like cards.

    Units that take longer often have neighbouring numbers, so they are spread.
    """
    return [tuple(numbers[first::boxes]) for first in range(boxes)]


def save(path: Path, part: Part) -> None:
    """Store a part for the process of its box."""
    write_atomically(path, json.dumps(asdict(part)).encode())


def of_process(environ: Mapping[str, str]) -> Part | None:
    """
    Return the part that this process runs, None if it runs all units.

    Raises:
        UsageError: The file of the part is missing or damaged.
    """
    path = environ.get(VARIABLE)
    if not path:
        return None
    try:
        values = json.loads(read_regular(Path(path)))
        return Part(**{**values, "numbers": tuple(values["numbers"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{VARIABLE}: {path} cannot be used: {error}") from error


def report(part: Part, progress: PartProgress) -> None:
    """Tell the process that has started this one how far the units are."""
    with suppress(OSError):
        write_atomically(Path(part.progress), json.dumps(asdict(progress)).encode())


def progress_of(part: Part) -> PartProgress:
    """Return what the process of a part has told last."""
    with suppress(OSError, ValueError, TypeError):
        return PartProgress(**json.loads(read_regular(Path(part.progress))))
    return PartProgress()
