"""
Check the values of settings, and read those of ONEBOX_* variables and flags.

Each value is checked in its own layer, so that a wrong value is an error even if a
higher layer overrides it. `file_layers` reads the layers that are files.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from onebox.errors import ConfigError
from onebox.settings.checks import InvalidValue, acceptable_text
from onebox.settings.fields import Key
from onebox.settings.quoting import show, suggest
from onebox.settings.schema import RESERVED, keys
from onebox.settings.secret_detection import looks_secret
from onebox.settings.toml_file import FILE, error


@dataclass(frozen=True)
class Value:
    """
    The value of one setting in one layer.

    Attributes:
        path: The setting's full name ("size.large.cpus").

        source: Where the value comes from ("onebox.toml:3", "ONEBOX_VM", "--vm").

        label: The setting's name in messages. It is "" if the source already names the
            setting.

        profile: The profile that sets the value, "" if none does.

        strings: If the setting is a table of strings, the `Value` of each string.
    """

    path: str
    value: object
    source: str
    label: str = ""
    profile: str = ""
    strings: Mapping[str, Value] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """Return the source, with the profile if there is one."""
        return (
            f"profile {self.profile} ({self.source})" if self.profile else self.source
        )

    def over(self, before: Value | None) -> Value:
        """Return this value; for a table of strings, with the strings of *before*."""
        if before is None or not isinstance(self.value, dict):
            return self
        assert isinstance(before.value, dict)
        return replace(
            self,
            value={**before.value, **self.value},
            strings={**before.strings, **self.strings},
        )

    def error(self, problem: str, meant: str = "") -> ConfigError:
        """
        Return an error about *problem* that names this setting and its source.

        *meant* is the value that was probably meant.
        """
        return error(self.source, self.label, problem, meant=meant)


def merge(layers: Iterable[Mapping[str, Value]]) -> dict[str, Value]:
    """
    Return the values of all layers; a later layer overrides the earlier layers.

    The strings of a table such as [tags] are overridden one by one.
    """
    merged: dict[str, Value] = {}
    for layer in layers:
        for path, value in layer.items():
            merged[path] = value.over(merged.get(path))
    return merged


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
    Return the settings that are given in flags or by Python code, by full name.

    *flags* has the value None for a flag that was not given. The profile is no setting.
    """
    values = {}
    for path, value in flags.items():
        if path == "profile":
            continue
        key = keys().get(path)
        # Only Python code can give a setting of a table: there is no such flag.
        source = path if "." in path else f"--{path}"
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
        step = problem.next
        if source.startswith("--") and not problem.meant:
            example = shlex.quote(key.example.strip('"'))
            step = step or f"for example {source}={example}"
        raise error(source, label, str(problem), step, problem.meant) from None
    return value


def _expected(key: Key, raw: object, file: bool) -> str:
    example = key.example if file else key.example.strip('"')
    if isinstance(raw, dict):
        raw = next(iter(raw.values()), None)
    elif not key.kind.scalar and isinstance(raw, (list, tuple)):
        raw = next((item for item in raw if not isinstance(item, str)), None)
    got = "a list" if isinstance(raw, (list, tuple)) else show(raw)
    return f"expected {key.kind.expected} such as {example}, got {got}"


def _unknown_variable(name: str, known: Mapping[str, Key]) -> str:
    for key in keys().values():
        if name == "ONEBOX_" + key.path.replace(".", "_").upper():
            return f"no variable can set it; write [{key.table}] {key.name} in {FILE}"
    if name.startswith("ONEBOX_SIZE_"):
        return f"no variable can change a size; write [size.NAME] in {FILE}"
    return "unknown variable" + suggest(name, (*known, *RESERVED))
