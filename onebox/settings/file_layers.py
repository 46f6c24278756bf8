"""
Read the layers of settings that hold tables: files, and Invoke's own configuration.

onebox.toml, the user's config.toml and Invoke's configuration have the same tables and
the same checks. Each can have profiles, [profile.NAME], that hold settings too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from onebox.errors import ConfigError
from onebox.file_owners import is_foreign, is_open_to_all
from onebox.settings.checks import InvalidValue, is_endpoint, is_name
from onebox.settings.layers import Value, merge, read_value
from onebox.settings.mistakes import Mistakes
from onebox.settings.quoting import dotted, nearest, show, show_path, suggest
from onebox.settings.schema import OF_ONE_PROJECT, keys, size_keys, tables
from onebox.settings.toml_file import FILE, TomlEntry, TomlPath, error, flat, read

USER_FILE = "config.toml"


class InvokeLevel(NamedTuple):
    """
    The value of `onebox` in one level of Invoke's configuration.

    Attributes:
        name: What messages call the level, such as "invoke.yaml".

        user_wide: Whether the level applies to all projects of the user.
    """

    name: str
    user_wide: bool
    value: object


@dataclass(frozen=True)
class Document:
    """
    A place that holds settings in tables.

    Attributes:
        name: What messages call the place ("onebox.toml").

        user_wide: Whether the place applies to all projects of the user.

        prefix: The tables that hold the settings, which messages show before the names
            of the settings. A file has no such tables.
    """

    name: str
    entries: list[TomlEntry]
    user_wide: bool = False
    prefix: TomlPath = ()

    def source(self, entry: TomlEntry) -> str:
        """Return the place of an entry: the file and line, or only the name."""
        return f"{self.name}:{entry.line}" if entry.line else self.name

    def error(self, entry: TomlEntry, problem: str) -> ConfigError:
        """Return an error about an entry."""
        return error(self.source(entry), self.label(entry), problem)

    def label(self, entry: TomlEntry) -> str:
        """Return the name of an entry in messages."""
        full = (*self.prefix, *entry.path)
        return f"[{dotted(full)}]" if entry.value is None else show_path(full)


@dataclass
class Layer:
    """The settings of one document by full name; *profiles* has those of profiles."""

    values: dict[str, Value] = field(default_factory=dict)
    profiles: dict[str, dict[str, Value]] = field(default_factory=dict)


def project_file(root: Path, name: str, required_by: str) -> Document:
    """
    Return the project's own file of settings.

    Args:
        name: The path of the file, relative to *root*; "" means onebox.toml.

        required_by: See `toml_file.read`.

    Raises:
        ConfigError: The file is invalid, or is another user's in a folder such as /tmp.
    """
    shown, path = show(name)[1:-1] if name else FILE, root / (name or FILE)
    if is_foreign(path) and is_open_to_all(path.parent):
        raise error(
            shown,
            "",
            "another user put it here, where every user can write; it is not used",
            "copy the project to a folder of your own, if you trust it",
        )
    entries = read(path, shown, required_by=required_by, tables=_top_names())
    return Document(shown, entries)


def user_file(path: Path, home: str) -> Document:
    """
    Return the file of settings that apply to all projects of the user.

    Args:
        home: The user's home folder, which messages abbreviate to `~`.

    Raises:
        ConfigError: The file is invalid, or another user could have written it.
    """
    text = str(path)
    if home and text.startswith(f"{home}/"):
        text = f"~{text[len(home) :]}"
    name = show(text)[1:-1]
    try:
        status = path.stat()
    except (OSError, ValueError):
        return Document(name, read(path, name), user_wide=True)
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise error(name, "", f"other users can change it: chmod o-w {name}")
    entries = read(path, name, tables=_top_names())
    return Document(name, entries, user_wide=True)


def invoke_level(level: InvokeLevel) -> Document:
    """Return the settings in one level of Invoke's configuration."""
    if level.value is None:
        return Document(level.name, [])
    if not isinstance(level.value, Mapping):
        problem = f"expected a table of settings, got {show(level.value)}"
        raise error(level.name, "onebox", problem)
    entries = [TomlEntry(path, value, 0) for path, value in flat((), level.value)]
    return Document(level.name, entries, level.user_wide, prefix=("onebox",))


def merge_documents(
    documents: Iterable[Document], profile: str, chosen_by: str
) -> dict[str, Value]:
    """
    Return the settings of all documents; a later document overrides earlier ones.

    Args:
        profile: The name of the profile whose settings override all documents, "" for
            none. If several documents have the profile, a later one overrides.

        chosen_by: The flag or variable that names the profile.

    Raises:
        ConfigError: Settings are wrong, in any profile, or no document has the profile.
            The message has a line for each mistake.
    """
    layers, mistakes = [], Mistakes()
    for document in documents:
        layers.append(read_layer(document, mistakes))
    mistakes.raise_if_any()
    values = [layer.values for layer in layers]
    if profile:
        names = {name for layer in layers for name in layer.profiles}
        if profile not in names:
            raise error(
                chosen_by,
                "",
                _unknown_profile(profile, names),
                "" if names else f"add [profile.NAME] to {FILE}, or leave it out",
                meant=nearest(profile, names),
            )
        values += [layer.profiles.get(profile, {}) for layer in layers]
    return merge(values)


def read_layer(document: Document, mistakes: Mistakes) -> Layer:
    """
    Return the checked settings of a document, in the order of its lines.

    A mistake is added to *mistakes*. The settings of a wrong table are left out.
    """
    layer = Layer()
    wrong: list[TomlPath] = []
    for entry in document.entries:
        if any(entry.path[: len(path)] == path for path in wrong):
            continue
        try:
            _read_entry(document, entry, layer)
        except ConfigError as mistake:
            mistakes.add(mistake)
            wrong.append(entry.path)
    return layer


def _read_entry(document: Document, entry: TomlEntry, layer: Layer) -> None:
    """Add the setting that *entry* sets to *layer*."""
    values, profile, path = layer.values, "", entry.path
    if path[0] == "profile":
        if len(path) == 1 and entry.value is None:
            return
        profile, path = _profile(document, entry), path[2:]
        values = layer.profiles.setdefault(profile, {})
    if not path:
        return
    if document.user_wide and path[0] in OF_ONE_PROJECT:
        raise document.error(entry, f"belongs to one project; set it in {FILE}")
    value = (
        _table(document, entry, path)
        if entry.value is None
        else _key_and_value(document, entry, path, profile)
    )
    if value is not None:
        values[value.path] = value.over(values.get(value.path))


def _profile(document: Document, entry: TomlEntry) -> str:
    """Return the name of the profile that *entry* is in."""
    name = entry.path[1] if len(entry.path) > 1 else ""
    if not name or (len(entry.path) == 2 and entry.value is not None):
        raise document.error(
            entry,
            "a profile is a table such as [profile.gpu]; --profile=gpu or "
            "ONEBOX_PROFILE chooses it",
        )
    try:
        is_name(name)
    except InvalidValue as problem:
        raise document.error(entry, str(problem)) from None
    return name


def _unknown_profile(profile: str, names: set[str]) -> str:
    known = f"; the profiles are {', '.join(sorted(names))}" if names else ""
    hint = suggest(profile, names) or known or f"; no [profile.NAME] is in {FILE}"
    return f"there is no profile {show(profile)}{hint}"


def _key_and_value(
    document: Document, entry: TomlEntry, path: TomlPath, profile: str
) -> Value:
    """
    Return the setting that *entry* sets. Raises ConfigError if there is none.

    Args:
        path: The path of the entry without the profile.
    """
    full, table = _full_name(path), _full_name(path[:-1])
    source, label = document.source(entry), document.label(entry)
    key = keys().get(full)
    if path[0] == "size" and len(path) == 3:
        key = size_keys().get(path[2])
    elif table in keys() and keys()[table].kind.table:
        key = keys()[table]
        text = read_value(key, {path[-1]: entry.value}, source, label, file=True)
        one = Value(f"{table}.{path[-1]}", text, source, label, profile)
        return replace(one, path=table, strings={path[-1]: one})
    elif key is not None and key.kind.table:
        problem = f"expected {key.kind.expected} such as {key.example}"
        raise document.error(entry, problem)
    if key is None:
        raise document.error(entry, _unknown_key(path))
    value = read_value(key, entry.value, source, label, file=True)
    if key.of_user and value != key.default and not document.user_wide:
        raise error(
            source,
            label,
            "a project cannot set it, because your credentials are sent there"
            if is_endpoint in key.checks
            else "a project cannot set it, because it names a credential of yours",
            f"set it in ~/.config/onebox/{USER_FILE}, or with the variable "
            f"{key.variable}",
        )
    return Value(full, value, source, label, profile)


def _table(document: Document, entry: TomlEntry, path: TomlPath) -> Value | None:
    """
    Return a `Value` for the size that the table [size.NAME] declares.

    Its *value* is None. Return None if *path* is another table of settings.

    Raises:
        ConfigError: There is no table of this name.
    """
    full = _full_name(path)
    if full in tables() or full == "size":
        return None
    key = keys().get(full)
    if key is not None and key.kind.table:
        return None
    if key is not None:
        raise document.error(entry, f"is not a table; write {path[-1]} = …")
    if path[0] == "size" and len(path) == 2:
        try:
            is_name(path[1])
        except InvalidValue as problem:
            raise document.error(entry, str(problem)) from None
        return Value(full, None, document.source(entry), document.label(entry))
    parent, name = path[:-1], path[-1]
    depth = len(path)
    siblings = [
        parts[-1]
        for parts in (tuple(table.split(".")) for table in sorted(tables()))
        if len(parts) == depth and parts[:-1] == parent
    ]
    near = "" if "." in name else nearest(name, siblings)
    if not near and _full_name(parent) in tables():
        # A key whose value is a table, such as over = { … }.
        names = [key.name for key in keys().values() if key.table == _full_name(parent)]
        hint = suggest(name, names)
        if hint:
            label = show_path((*document.prefix, *entry.path))
            raise error(document.source(entry), label, f"unknown key{hint}")
    meant = f", did you mean [{'.'.join((*parent, near))}]?" if near else ""
    raise document.error(entry, f"unknown table{meant}")


def _top_names() -> set[str]:
    """Return the names of all tables and keys at the top of a file."""
    return {"profile", *(name.partition(".")[0] for name in keys())}


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
