"""List the settings that are given, with their values and the places they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onebox.settings.fields import Key
from onebox.settings.kinds import as_written
from onebox.settings.quoting import HIDDEN, show
from onebox.settings.schema import Settings, keys, size_keys
from onebox.settings.secret_detection import looks_secret

_MOST_SHOWN = 20


@dataclass(frozen=True)
class GivenSetting:
    """
    A setting that is not left to its default.

    Attributes:
        name: The full name, such as "limits.max_hours" or "tags.team".

        value: The value in force, a duration or size as onebox.toml writes it;
            "(hidden)" in place of a text that may be or looks like a secret.

        source: Where the value comes from; see `Settings.source`.
    """

    name: str
    value: object
    source: str

    @property
    def text(self) -> str:
        """Return the value as onebox.toml writes it, shortened."""
        if self.value == HIDDEN:
            return HIDDEN
        if isinstance(self.value, list):
            shown = list(map(show, self.value[:_MOST_SHOWN]))
            # The values of a long range are not worth a page.
            if len(self.value) > _MOST_SHOWN:
                shown[-2:] = ["…", show(self.value[-1])]
            return f"[{', '.join(shown)}]"
        return '""' if self.value is None else show(self.value)


def given_settings(settings: Settings) -> list[GivenSetting]:
    """Return the settings that are given, in the order of onebox.toml.example."""
    order = {name: number for number, name in enumerate(keys())}
    found = [
        (order[key.path], GivenSetting(name, _value(key, value), settings.source(name)))
        for name, key, value in _values(settings)
    ]
    return [one for _, one in sorted(found, key=lambda pair: pair[0])]


def _values(settings: Settings) -> Iterator[tuple[str, Key, object]]:
    """Yield the name, the declaration and the value of each setting that is given."""
    for name in settings.sources:
        table, _, last = name.rpartition(".")
        key = keys().get(name)
        if key is not None and not key.kind.table:
            yield name, key, _at(settings, name)
        elif table in keys():
            strings = _at(settings, table)
            assert isinstance(strings, dict)
            yield name, keys()[table], strings[last]
        elif table.startswith("size."):
            size = settings.sizes[table.partition(".")[2]]
            key = size_keys()[last]
            yield name, key, size.types.get(last) or getattr(size, last)


def _at(settings: Settings, path: str) -> object:
    """Return the value of the setting with this full name."""
    first, *rest = path.split(".")
    value: object = settings.providers.get(first)
    if value is None:
        value = getattr(settings, first)
    for name in rest:
        value = getattr(value, name)
    return value


def _value(key: Key, value: object) -> object:
    if key.secret and value:
        return HIDDEN
    written = as_written(key.kind, value)
    return list(map(_safe, written)) if isinstance(written, list) else _safe(written)


def _safe(value: object) -> object:
    return HIDDEN if isinstance(value, str) and looks_secret(value) else value
