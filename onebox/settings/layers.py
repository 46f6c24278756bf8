"""
Read the three layers above the defaults: onebox.toml, ONEBOX_* variables, and flags.

Each value is checked in its own layer, so that a wrong value is an error even if a
higher layer overrides it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onebox.errors import ConfigError
from onebox.settings.checks import InvalidValue, acceptable_text, is_name
from onebox.settings.fields import Key
from onebox.settings.kinds import STRING_TABLE
from onebox.settings.quoting import dotted, show, show_path, suggest
from onebox.settings.schema import RESERVED, keys, size_keys, tables
from onebox.settings.secret_detection import looks_secret
from onebox.settings.toml_file import FILE, TomlEntry, TomlPath, error, read


@dataclass(frozen=True)
class Value:
    """
    The value of one setting in one layer.

    Attributes:
        path: The setting's full name ("size.large.cpus").

        source: Where the value comes from ("onebox.toml:3", "ONEBOX_VM", "--vm").

        label: The setting's name in messages. It is "" if the source already names the
            setting.
    """

    path: str
    value: object
    source: str
    label: str = ""

    def error(self, problem: str) -> ConfigError:
        """Return an error about *problem* that names this setting and its source."""
        return error(self.source, self.label, problem)


def from_file(root: Path, environ: Mapping[str, str]) -> dict[str, Value]:
    """Return the settings in onebox.toml by full name, in the order of its lines."""
    name, entries = read(root, environ)
    values: dict[str, Value] = {}
    for entry in entries:
        source = f"{name}:{entry.line}"
        value = (
            _table(entry.path, source)
            if entry.value is None
            else _key_and_value(entry, source)
        )
        if value is None:
            continue
        before = values.get(value.path)
        if before is not None and isinstance(before.value, dict):
            # The setting is a table of strings, of which this entry is one. It is added
            # to the strings that were read before.
            assert isinstance(value.value, dict)
            value = replace(before, value={**before.value, **value.value})
        values[value.path] = value
    return values


def from_variables(environ: Mapping[str, str]) -> dict[str, Value]:
    """
    Return the settings in ONEBOX_* variables by full name.

    ONEBOX_LIMITS_MAX_HOURS sets [limits] max_hours. An empty variable sets nothing.
    """
    known = {key.variable: key for key in keys().values() if key.variable}
    values = {}
    for name, text in sorted(environ.items()):
        if not name.startswith("ONEBOX_") or name in RESERVED:
            continue
        if name not in known:
            raise error(show(name)[1:-1], "", _unknown_variable(name, known))
        if text:
            key = known[name]
            values[key.path] = Value(key.path, read_value(key, text, name, ""), name)
    return values


def from_flags(flags: Mapping[str, object]) -> dict[str, Value]:
    """
    Return the settings that are given in flags, by full name.

    *flags* has the value None for a flag that was not given.
    """
    values = {}
    for path, value in flags.items():
        key = keys().get(path)
        source = "--" + path.rpartition(".")[2].replace("_", "-")
        if key is None or key.table == "size.*":
            raise error(source, "", "unknown setting" + suggest(path, keys()))
        if value is None:
            continue
        if path == "spot" and value is False:
            source = "--no-spot"
        values[path] = Value(path, read_value(key, value, source, ""), source)
    return values


def read_value(
    key: Key, raw: object, source: str, label: str, *, file: bool = False
) -> object:
    """
    Check the value *raw* of a setting, and return it as `Settings` holds it.

    Args:
        file: Whether *raw* is from onebox.toml. There, a number or a boolean must not
            be in quotes.

    Raises:
        ConfigError: The value is of another kind, or a check refuses it.
    """
    if key.blank and raw == "":
        return key.default
    try:
        if key.secret and file and isinstance(raw, str) and looks_secret(raw):
            raise InvalidValue(
                f"looks like a secret; set the variable {key.variable} instead"
            )
        acceptable_text(raw, may_be_secret=key.secret)
        misquoted = file and isinstance(raw, str) and not key.kind.quoted
        value = None if misquoted else key.kind.read(raw)
        if value is None:
            raise InvalidValue(_expected(key, raw, file))
        for check in key.checks:
            check(value)
    except InvalidValue as problem:
        raise error(source, label, str(problem)) from None
    return value


def _expected(key: Key, raw: object, file: bool) -> str:
    example = key.example if file else key.example.strip('"')
    if isinstance(raw, dict):
        raw = next(iter(raw.values()), None)
    elif not key.kind.scalar and isinstance(raw, (list, tuple)):
        raw = next((item for item in raw if not isinstance(item, str)), None)
    got = "a list" if isinstance(raw, (list, tuple)) else show(raw)
    return f"expected {key.kind.expected} such as {example}, got {got}"


def _key_and_value(entry: TomlEntry, source: str) -> Value:
    """Return the setting that *entry* sets. Raises ConfigError if there is none."""
    path, value = entry.path, entry.value
    label = show_path(path)
    full, table = _full_name(path), _full_name(path[:-1])
    key = keys().get(full)
    if path[0] == "size" and len(path) == 3:
        key = size_keys().get(path[2])
    elif table in keys() and keys()[table].kind is STRING_TABLE:
        key, full, value = keys()[table], table, {path[-1]: value}
    elif key is not None and key.kind is STRING_TABLE:
        problem = f"expected {key.kind.expected} such as {key.example}"
        raise error(source, label, problem)
    if key is None:
        raise error(source, label, _unknown_key(path))
    return Value(full, read_value(key, value, source, label, file=True), source, label)


def _table(path: TomlPath, source: str) -> Value | None:
    """
    Return a `Value` for the size that the table [size.NAME] declares.

    Its *value* is None. Return None if *path* is another table of onebox.toml.

    Raises:
        ConfigError: There is no table of this name.
    """
    full, label = _full_name(path), f"[{dotted(path)}]"
    if full in tables() or full == "size":
        return None
    key = keys().get(full)
    if key is not None and key.kind is STRING_TABLE:
        return None
    if key is not None:
        raise error(source, label, f"is not a table; write {path[-1]} = …")
    if path[0] == "size" and len(path) == 2:
        try:
            is_name(path[1])
        except InvalidValue as problem:
            raise error(source, label, str(problem)) from None
        return Value(full, None, source, label)
    near = suggest(".".join(path), [f"[{table}]" for table in sorted(tables())])
    raise error(source, label, "unknown table" + near)


def _full_name(path: TomlPath) -> str:
    """
    Join the parts of a path with dots.

    Return "" if a part contains a dot, because no setting has such a part.
    """
    return "" if any("." in part for part in path) else ".".join(path)


def _unknown_key(path: TomlPath) -> str:
    table, name = ".".join(path[:-1]), path[-1]
    if path[0] == "size":
        if len(path) <= 2:
            return "a size is a table such as [size.large]"
        table = "size.*"
    if len(path) == 1 and name in tables():
        return f"is a table; write [{name}]"
    near = suggest(name, [key.name for key in keys().values() if key.table == table])
    if not near:
        for key in keys().values():
            if key.name == name and key.table != "size.*":
                home = f"in [{key.table}]" if key.table else "at the top"
                return f"unknown key, it belongs {home}"
    return "unknown key" + near


def _unknown_variable(name: str, known: Mapping[str, Key]) -> str:
    for key in keys().values():
        if name == "ONEBOX_" + key.path.replace(".", "_").upper():
            return f"no variable can set it; write [{key.table}] {key.name} in {FILE}"
    if name.startswith("ONEBOX_SIZE_"):
        return f"no variable can change a size; write [size.NAME] in {FILE}"
    return "unknown variable" + suggest(name, (*known, *RESERVED))
