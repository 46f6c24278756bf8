"""Check that the files which settings name are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onebox.config.settings import Settings
from onebox.config.wording import show
from onebox.errors import InputError


def check_files(settings: Settings, root: Path) -> None:
    """
    Refuse to go on without the files that a run will need.

    Raises:
        InputError: The first that is missing, or a folder where a file belongs.
    """
    for path, name, plain in _named(settings):
        source = settings.source(path)
        table, _, key = path.partition(".")
        place = "" if source == "default" else f"{source}: "
        wrong = f"{place}[{table}] {key}: {show(name)} "
        try:
            found = root / name
            if not found.exists():
                raise InputError(wrong + "does not exist")
            if plain and not found.is_file():
                raise InputError(wrong + "is not a file")
        except OSError as error:
            raise InputError(f"{wrong}cannot be read: {error.strerror}") from None


def _named(settings: Settings) -> Iterator[tuple[str, str, bool]]:
    """Yield every path, the setting that names it, and if it must be a file."""
    for key, name in (
        ("image.setup", settings.image.setup),
        ("image.requirements", settings.image.requirements),
        ("image.packer", settings.image.packer),
    ):
        if name is not None:
            yield key, name, True
    for key, names in (
        ("image.include", settings.image.include),
        ("push.code", settings.push.code),
        ("push.data", settings.push.data),
    ):
        for name in names:
            yield key, name, False
