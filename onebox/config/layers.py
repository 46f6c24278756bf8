"""
Read the three layers above the defaults: the file, ONEBOX_* and the flags.

Each gives settings that are checked one by one, so a mistake in a layer shows
also where a higher one overrides it.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from onebox.config import document
from onebox.config.key import Key
from onebox.config.kinds import NAME, PAIRS, UNQUOTED, WrongError, plain
from onebox.config.schema import BY_PATH, BY_VARIABLE, KEYS, RESERVED, TABLES
from onebox.config.wording import dotted, show, show_path, suggest
from onebox.errors import ConfigError

FILE = "onebox.toml"
_MAX_BYTES = 1 << 20

# `vm = "large"` beside `[vm.large]` reads best, but TOML has no such thing: there
# a name is a value or a table. Both are taken, and so is `vm.default = "large"`.
_BOTH = frozenset({("vm",)})


@dataclass(frozen=True)
class Given:
    """
    One setting that a layer gives.

    *path* is the full name ("vm.large.cpus"), *source* the place as users know
    it ("onebox.toml:3", "ONEBOX_VM", "--vm"), *label* the key for messages.
    """

    path: str
    value: object
    source: str
    label: str = ""

    def wrong(self, problem: str) -> ConfigError:
        """Make the error that says what is wrong with this setting."""
        return wrong(self.source, self.label, problem)


def wrong(source: str, label: str, problem: str) -> ConfigError:
    """Make the one-line error for a place."""
    return ConfigError(": ".join(part for part in (source, label, problem) if part))


def from_file(root: Path, environ: Mapping[str, str]) -> Iterator[Given]:
    """Give what onebox.toml says, in the order of its lines."""
    named = environ.get("ONEBOX_CONFIG", "")
    name = show(named)[1:-1] if named else FILE
    text = _read(root / (named or FILE), name, bool(named))
    if text is None:
        return
    try:
        found = document.read(text, _BOTH)
    except document.MalformedError as error:
        raise wrong(f"{name}:{error.line}", "", error.problem) from None
    yield from _know_tables(found, name)
    for path, entry in found.values.items():
        source = f"{name}:{entry.line}"
        key, full = _find(path, source)
        label = show_path(path)
        value: object = entry.value
        if key.kind is PAIRS:
            value = {path[-1]: value}
        yield Given(full, accept(key, value, source, label, file=True), source, label)


def from_variables(environ: Mapping[str, str]) -> Iterator[Given]:
    """
    Give what ONEBOX_* variables say; an empty one says nothing.

    Names are made from the table and the key: ONEBOX_LIMITS_MAX_HOURS.
    """
    for name, text in sorted(environ.items()):
        if not name.startswith("ONEBOX_") or name in RESERVED:
            continue
        key = BY_VARIABLE.get(name)
        if key is None:
            raise wrong(show(name)[1:-1], "", _unknown_variable(name))
        if text:
            yield Given(key.path, accept(key, text, name, ""), name)


def from_flags(flags: Mapping[str, object]) -> Iterator[Given]:
    """Give what flags say; None means that a flag was not there."""
    for path, value in flags.items():
        key = BY_PATH.get(path)
        source = "--" + path.rpartition(".")[2].replace("_", "-")
        if key is None or key.table == "vm.*":
            raise wrong(source, "", "unknown setting" + suggest(path, BY_PATH))
        if value is not None:
            if path == "spot" and value is False:
                source = "--no-spot"
            yield Given(path, accept(key, value, source, ""), source)


def accept(
    key: Key, raw: object, source: str, label: str, *, file: bool = False
) -> object:
    """Return the value as settings hold it, or raise ConfigError."""
    if key.blank and raw == "":
        return None
    try:
        plain(raw)
        quoted = file and key.kind in UNQUOTED and isinstance(raw, str)
        value = None if quoted else key.kind.read(raw)
        if value is None:
            raise WrongError(_wants(key, raw, file))
        for check in key.checks:
            check(value)
    except WrongError as error:
        raise wrong(source, label, str(error)) from None
    return value


def _wants(key: Key, raw: object, file: bool) -> str:
    example = key.example if file else key.example.strip('"')
    if isinstance(raw, dict):
        raw = next(iter(raw.values()), None)
    elif key.kind.scalar is False and isinstance(raw, (list, tuple)):
        raw = next((item for item in raw if not isinstance(item, str)), None)
    got = "a list" if isinstance(raw, (list, tuple)) else show(raw)
    return f"wants {key.kind.wanted}, such as {example}, not {got}"


def _read(path: Path, name: str, wanted: bool) -> str | None:
    """Return the file's text, None if there is no file and none was asked for."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a folder" if stat.S_ISDIR(mode) else "no ordinary file"
            raise wrong(name, "", f"is {kind}, wants a file")
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        if wanted:
            raise wrong("ONEBOX_CONFIG", "", f"{name} does not exist") from None
        if path.is_symlink():
            raise wrong(name, "", "is a link to nothing") from None
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a path"
        raise wrong(name, "", f"cannot be read: {why}") from None
    if len(data) > _MAX_BYTES:
        raise wrong(name, "", "is larger than 1 MB, which no settings are")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        problem = "begins with a byte order mark; save it as UTF-8 without one"
        raise wrong(f"{name}:1", "", problem)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise wrong(f"{name}:{line}", "", "is not UTF-8") from None


def _find(path: document.Path, source: str) -> tuple[Key, str]:
    """Return the key that a path in the file means, and its full name."""
    if path == ("vm", "default"):
        path = ("vm",)
    full, table = _full(path), _full(path[:-1])
    if len(path) == 3 and path[0] == "vm":
        key = BY_PATH.get(f"vm.*.{path[2]}")
        if key is not None:
            return key, full
    elif table in BY_PATH and BY_PATH[table].kind is PAIRS:
        return BY_PATH[table], table
    elif full in BY_PATH and "*" not in full:
        key = BY_PATH[full]
        if key.kind is not PAIRS:
            return key, full
        problem = f"wants {key.kind.wanted}, such as {key.example}"
        raise wrong(source, show_path(path), problem)
    raise wrong(source, show_path(path), _unknown_key(path))


def _full(path: document.Path) -> str:
    """Join a path; nothing of ours has a dot inside a (quoted) key."""
    return "" if any("." in part for part in path) else ".".join(path)


def _unknown_key(path: document.Path) -> str:
    table, name = ".".join(path[:-1]), path[-1]
    if path[0] == "vm" and len(path) > 1:
        if len(path) == 2:
            return "unknown key; a size is a table, such as [vm.large]"
        table = "vm.*"
    if len(path) == 1 and name in TABLES:
        return f"is a table, write [{name}]"
    here = [key.name for key in KEYS if key.table == table]
    near = suggest(name, here)
    elsewhere = [key for key in KEYS if key.name == name and key.table != "vm.*"]
    if not near and elsewhere:
        home = elsewhere[0].table
        near = f", it belongs in [{home}]" if home else ", it belongs at the top"
    return "unknown key" + near


def _know_tables(found: document.Document, name: str) -> Iterator[Given]:
    """Refuse tables that no setting stands in, and give the sizes' ones."""
    for path, line in found.tables.items():
        full = _full(path)
        source, label = f"{name}:{line}", f"[{dotted(path)}]"
        if full in TABLES or full == "vm":
            continue
        if full in BY_PATH:
            if BY_PATH[full].kind is PAIRS:
                continue
            raise wrong(source, label, f"is no table, write {path[-1]} = …")
        if len(path) == 2 and path[0] == "vm":
            if NAME.fullmatch(path[1]) and path[1] != "default":
                yield Given(full, None, source, label)
                continue
            problem = "wants a name of small letters, digits and dashes"
            raise wrong(source, label, problem + " for the size")
        near = suggest(".".join(path), [f"[{table}]" for table in sorted(TABLES)])
        raise wrong(source, label, "unknown table" + near)


def _unknown_variable(name: str) -> str:
    for key in KEYS:
        if name == "ONEBOX_" + key.path.replace(".", "_").upper():
            return (
                f"cannot be set by a variable; write [{key.table}] {key.name} in {FILE}"
            )
    if name.startswith("ONEBOX_VM_"):
        return f"sizes cannot be set by variables; write [vm.…] in {FILE}"
    return "unknown variable" + suggest(name, (*BY_VARIABLE, *RESERVED))
