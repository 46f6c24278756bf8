"""Put the layers together: flags over ONEBOX_* over onebox.toml over defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from onebox.config import settings as shapes
from onebox.config.kinds import PAIRS
from onebox.config.layers import Given, from_file, from_flags, from_variables
from onebox.config.schema import KEYS
from onebox.config.settings import Settings
from onebox.config.sizes import choose, sizes
from onebox.config.wording import show
from onebox.providers.kernel.ssh_access import is_world
from onebox.store.private_paths import own_folder_near

_Shape = TypeVar("_Shape")


def load(
    root: Path, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Settings:
    """
    Return the settings of the project in *root*.

    Args:
        root: The project's folder; onebox.toml there is optional.

        environ: The environment: ONEBOX_* variables are settings, and unknown
            ones are refused.

        flags: Values by full name ("vm", "limits.max_hours"), None if not given.

    Raises:
        ConfigError: The first mistake, in one line.
    """
    given: dict[str, Given] = {}
    for layer in (from_file(root, environ), from_variables(environ), from_flags(flags)):
        seen: dict[str, Given] = {}
        for item in layer:
            if item.path in seen:
                _join(seen[item.path], item)
            else:
                seen[item.path] = item
        given.update(seen)
    _consistent(given)
    _closed_to_jobs(given, environ)
    return _build(root, given)


def _join(before: Given, item: Given) -> None:
    """Add one variable to a table of them; anything else is there twice."""
    if not isinstance(before.value, dict) or not isinstance(item.value, dict):
        line = before.source.rpartition(":")[2]
        raise item.wrong(f"already set in line {line}")
    before.value.update(item.value)


def _build(root: Path, given: Mapping[str, Given]) -> Settings:
    values: dict[str, dict[str, Any]] = {}
    for key in KEYS:
        if key.table == "vm.*":
            continue
        value = given[key.path].value if key.path in given else key.default
        values.setdefault(key.table, {})[key.name] = (
            dict(value) if key.kind is PAIRS and isinstance(value, dict) else value
        )
    top = values[""]
    top["project"] = top["project"] or project_name(root)
    known = sizes(given)
    return Settings(
        root=root,
        **top,
        size=choose(top["vm"], top["provider"], known, given),
        builder=choose(
            values["image"]["size"],
            top["provider"],
            known,
            given,
            path="image.size",
        ),
        sizes=known,
        image=shapes.Image(**values["image"]),
        push=shapes.Push(**values["push"]),
        run=shapes.Run(**values["run"]),
        fetch=shapes.Fetch(**values["fetch"]),
        limits=shapes.Limits(**values["limits"]),
        local=shapes.Local(
            **values["local"], rehearse=shapes.Rehearse(**values["local.rehearse"])
        ),
        aws=shapes.AWS(**values["aws"]),
        gcp=shapes.GCP(**values["gcp"]),
        digitalocean=shapes.DigitalOcean(**values["digitalocean"]),
        sources={path: item.source for path, item in given.items()},
    )


def project_name(root: Path) -> str:
    """Make a valid name of the folder's, "project" if nothing of it can stay."""
    name = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower())
    return re.sub(r"^[^a-z]+", "", name)[:31].rstrip("-") or "project"


def _consistent(given: Mapping[str, Given]) -> None:
    """Refuse settings that are each right, but not together."""
    _one_way(given)
    env, secrets = given.get("run.env"), given.get("run.secrets")
    if env is not None and secrets is not None:
        for name in _names(secrets.value):
            if name in _names(env.value):
                raise secrets.wrong(f"{name} is in [run] env too")
    for cloud in ("aws", "gcp", "digitalocean"):
        _closed(cloud, given)


def _one_way(given: Mapping[str, Given]) -> None:
    """Refuse an image that is to be made in several ways at once."""
    ways = [
        [given[path] for path in paths if path in given and given[path].value]
        for paths in (
            ("image.setup", "image.python", "image.requirements"),
            ("image.packer",),
            ("image.use",),
        )
    ]
    said = [way[0] for way in ways if way]
    if len(said) > 1:
        first, second = sorted(said, key=lambda item: _line(item.source))[:2]
        other = first.path.partition(".")[2]
        raise second.wrong(f"stands beside {other}; an image is made in one way")
    variables = given.get("image.vars")
    if variables is not None and variables.value and not ways[1]:
        raise variables.wrong(
            "belongs to a Packer template; there is no [image] packer"
        )


def _closed(cloud: str, given: Mapping[str, Given]) -> None:
    """
    Refuse ssh for everybody, unless that was said in so many words.

    It is refused here for every cloud: a provider gets these settings alone.
    """
    network, world = (
        given.get(f"{cloud}.ssh_cidr"),
        given.get(f"{cloud}.allow_world_ssh"),
    )
    if network is None or network.value is None or (world and world.value):
        return
    if is_world(str(network.value)):
        raise network.wrong(
            "lets the whole world try; if that is meant, allow_world_ssh = true"
        )


def _closed_to_jobs(given: Mapping[str, Given], environ: Mapping[str, str]) -> None:
    """Refuse to let the jobs of local boxes read onebox's own key or state."""
    folders = given.get("local.read")
    if folders is None:
        return
    for folder in _names(folders.value):
        try:
            near = own_folder_near(Path(folder).expanduser(), environ)
        except RuntimeError:
            raise folders.wrong(f"{show(folder)} is in no user's home") from None
        if near is not None:
            raise folders.wrong(
                f"{show(folder)} lets jobs read {near[0]}, in {near[1]}; name the "
                "folders that they need"
            )


def _names(value: object) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, (tuple, dict)) else ()


def _line(source: str) -> int:
    line = source.rpartition(":")[2]
    return int(line) if line.isdecimal() else 1 << 30
