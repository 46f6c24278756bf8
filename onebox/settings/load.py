"""
Merge the layers of settings into `Settings`.

From the lowest to the highest, the layers are: the defaults, the user's config.toml,
Invoke's own configuration, onebox.toml, the chosen profile of these three, ONEBOX_*
variables, and flags.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onebox import formatting
from onebox.errors import ConfigError, InputError
from onebox.providers import PROVIDERS
from onebox.settings.fields import Conflict, Table, build
from onebox.settings.file_layers import (
    Document,
    InvokeLevel,
    invoke_level,
    merge_documents,
    project_file,
    read_layer,
    user_file,
)
from onebox.settings.layers import Value, from_flags, from_variables, merge, read_value
from onebox.settings.mistakes import Mistakes
from onebox.settings.quoting import show
from onebox.settings.schema import Settings, keys
from onebox.settings.sizes import all_sizes, choose
from onebox.settings.toml_file import FILE

# The beginning of a URL such as s3://bucket/file.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True)
class Places:
    """
    Where settings are, beside onebox.toml, variables and flags.

    Attributes:
        file: The file that is read instead of onebox.toml, because the tasks are those
            of `onebox.collection(file)`; "" if they are not. It gives the box its
            default name.

        user_file: The file of settings for all projects; None means that none is read.

        invoke: The values of `onebox` in Invoke's configuration, the lowest level
            first.

        replaces_file: Whether the command writes a new onebox.toml, so that a wrong one
            is not read.
    """

    file: str = ""
    user_file: Path | None = None
    invoke: tuple[InvokeLevel, ...] = ()
    replaces_file: bool = False


NOWHERE_ELSE = Places()


def load(
    root: Path,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    places: Places = NOWHERE_ELSE,
) -> Settings:
    """
    Return the settings of the project in *root*.

    Args:
        root: The project's folder; onebox.toml in it is optional.

        environ: The environment. ONEBOX_* variables are settings; an unknown one is
            an error. ONEBOX_CONFIG names another file to read instead of onebox.toml.

        flags: The values of the flags, by the full names of the settings ("vm",
            "limits.max_hours"), and "profile". None means that the flag was not given.

    Raises:
        ConfigError: Settings are wrong. The message has a line for each mistake that
            can be found without mending another one.
    """
    try:
        return _load(root, environ, flags, places)
    except ConfigError:
        if not places.replaces_file:
            raise
        return _load(root, environ, flags, places, Document(FILE, []))


def _load(
    root: Path,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    places: Places,
    own: Document | None = None,
) -> Settings:
    """Return the settings with *own* as the project's file; see `load`."""
    named = places.file or environ.get("ONEBOX_CONFIG", "")
    by = "onebox.collection" if places.file else "ONEBOX_CONFIG"
    if own is None:
        own = project_file(root, named, by if named else "")
    documents = [*map(invoke_level, places.invoke), own]
    if places.user_file is not None:
        documents.insert(0, user_file(places.user_file, environ.get("HOME", "")))
    profile = flags.get("profile")
    values = merge(
        (
            merge_documents(
                documents,
                str(profile or environ.get("ONEBOX_PROFILE", "")),
                "--profile" if profile else "ONEBOX_PROFILE",
            ),
            from_variables(environ),
            from_flags(flags),
        )
    )
    if places.file:
        name, default = name_of(Path(places.file).stem, "box"), keys()["name"].default
        # The box of onebox.toml has the default name.
        name += "-2" * (name == default)
        values.setdefault("name", Value("name", name, f"the name of {own.name}"))
    return from_values(root, environ, values, own.name)


def from_values(
    root: Path, environ: Mapping[str, str], given: Mapping[str, Value], file: str
) -> Settings:
    """
    Return the settings of the project in *root* with all layers merged.

    Args:
        given: The settings that are given, by their full names.

        file: The name of the project's file.

    Raises:
        ConfigError: Settings exclude each other.
    """
    values = dict(given)
    sources = {path: value.origin for path, value in values.items()}
    for value in values.values():
        sources.update((one.path, one.origin) for one in value.strings.values())
    for path in ("provider", "vm", "image.size"):
        values.setdefault(path, Value(path, keys()[path].default, "default"))
    found = {path: value.value for path, value in values.items()}
    # If the project's name is missing or "", it is made from the folder's name.
    found["project"] = found.get("project") or project_name(root)
    tags = values["tags"].value if "tags" in values else {}
    if "tags" in values:
        # Each layer has passed this check, but all layers together may fail it.
        read_value(keys()["tags"], tags, values["tags"].source, "[tags]")
    provider = str(found["provider"])
    sizes = all_sizes(values)
    settings: Settings = build(
        Settings,
        found,
        root=root,
        size=choose(provider, sizes, values, "vm"),
        builder_size=choose(provider, sizes, values, "image.size"),
        sizes=sizes,
        providers={
            name: build(row.settings_class(), found, name, tags=tags)
            for name, row in PROVIDERS.items()
        },
        sources=sources,
        given=given,
        config_file=file,
    )
    _check_tables(settings, values, environ)
    return settings


def profiles(
    root: Path, environ: Mapping[str, str], user: Path
) -> dict[str, tuple[str, ...]]:
    """
    Return the names of the settings in each profile of onebox.toml and the user's file.

    Settings that are wrong are left out.

    Args:
        user: The user's file.

    Raises:
        ConfigError: A file cannot be read.
    """
    found: dict[str, tuple[str, ...]] = {}
    for document in (
        project_file(root, environ.get("ONEBOX_CONFIG", ""), ""),
        user_file(user, environ.get("HOME", "")),
    ):
        for name, values in read_layer(document, Mistakes()).profiles.items():
            found[name] = tuple(dict.fromkeys((*found.get(name, ()), *values)))
    return found


def _check_tables(
    settings: Settings, values: Mapping[str, Value], environ: Mapping[str, str]
) -> None:
    tables: dict[str, Table] = {
        "image": settings.image,
        "push": settings.push,
        "run": settings.run,
        "map": settings.map,
        "fetch": settings.fetch,
        "limits": settings.limits,
        **settings.providers,
    }
    mistakes = Mistakes()
    for name, table in tables.items():
        try:
            table.check(environ)
        except Conflict as conflict:
            mistakes.add(values[f"{name}.{conflict.key}"].error(conflict.problem))
    for parameter in settings.map.over:
        # A parameter is a variable of its unit, beside those of [run].
        for key, names in (
            ("env", settings.run.env),
            ("secrets", settings.run.secrets),
        ):
            if parameter in names:
                over = values["map.over"]
                mistake = over.strings.get(parameter, over)
                mistakes.add(mistake.error(f"{parameter} is in [run] {key} too"))
    mistakes.raise_if_any()
    try:
        settings.providers[settings.provider].check_tags()
    except Conflict as conflict:
        tag = values["tags"].strings[conflict.key]
        raise tag.error(conflict.problem) from None


def project_name(root: Path) -> str:
    """Return a valid project name that is made from the folder's name."""
    return name_of(root.resolve().name, "project")


def name_of(text: str, default: str) -> str:
    """Return a valid name made from *text*; *default* if no part of it is valid."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower())
    return re.sub(r"^[^a-z]+", "", name)[:31].rstrip("-") or default


def check_files(settings: Settings, root: Path) -> None:
    """
    Check that the files and folders that the settings name exist.

    Raises:
        InputError: A path does not exist or cannot be read, it is not a file where a
            file is expected, it is a URL, or it is data behind a link that leads out of
            the project.
    """
    for _, error in file_problems(settings, root):
        raise error


def file_problems(settings: Settings, root: Path) -> Iterator[tuple[str, InputError]]:
    """Yield the errors of `check_files`, each with the full name of its setting."""
    for path, name, is_file in _files(settings):
        source = settings.source(path)
        table, _, key = path.partition(".")
        place = "" if source == "default" else f"{source}: "
        problem = f"{place}[{table}] {key}: {show(name)} "
        if _URL.match(name):
            yield (
                path,
                InputError(
                    problem + "is a URL; onebox copies files of the project only",
                    next="name it in [push] data, which the box downloads",
                ),
            )
            continue
        try:
            if not (root / name).exists():
                yield (
                    path,
                    InputError(
                        problem + "does not exist",
                        next=f"create it, or correct {source if place else FILE}",
                    ),
                )
            elif is_file and not (root / name).is_file():
                yield path, InputError(problem + "is not a file")
            elif path == "push.data" and (target := _outside(root, name)):
                yield (
                    path,
                    InputError(
                        f"{problem}is a link to {formatting.path(target)}, outside "
                        "the project, and would not be pushed",
                        next="put a folder with the files in its place (copy, or "
                        "mount --bind), or let the job download them",
                    ),
                )
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            yield path, InputError(problem + reason)


def _outside(root: Path, name: str) -> str:
    """Return the target of a path that is a link out of the project, else ""."""
    path = root / name
    if not path.is_symlink() or root.resolve() in (path.resolve() / "x").parents:
        return ""
    return str(path.readlink())


def _files(settings: Settings) -> Iterator[tuple[str, str, bool]]:
    """
    Yield the full name of each setting that holds a path, the path, and a bool.

    The bool is True if the path must be a file, and False if it may be a folder.
    """
    image, push = settings.image, settings.push
    for key, name in (
        ("image.setup", image.setup),
        ("image.requirements", image.requirements),
        ("image.packer", image.packer),
        ("map.params", settings.map.params),
    ):
        if name is not None:
            yield key, name, True
    folders: dict[str, Any] = {
        "image.include": image.include,
        "push.code": push.code,
        "push.data": push.local_data,
    }
    for key, names in folders.items():
        for name in names:
            yield key, name, False
