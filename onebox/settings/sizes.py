"""Find the size that a setting means: a name, a machine type or requirements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onebox.providers import CLOUDS, PROVIDERS
from onebox.settings.layers import Value, read_value
from onebox.settings.quoting import nearest, show, suggest
from onebox.settings.schema import SIZES, Size, size_keys


def all_sizes(values: Mapping[str, Value]) -> dict[str, Size]:
    """
    Return all sizes by name: the built-in sizes, and those that *values* define.

    *values* can also change a built-in size. If [size.large] has only `spot = true`,
    all other settings of the built-in size large stay.

    Raises:
        ConfigError: A size has neither requirements nor machine types.
    """
    sizes = {size.name: size for size in SIZES}
    for path, value in values.items():
        if path.startswith("size."):
            _, name, *key = path.split(".")
            size = sizes.get(name) or Size(name)
            sizes[name] = _with(size, key[0], value.value) if key else size
    for name, size in sizes.items():
        if not (size.types or (size.cpus and size.memory)):
            example = f"{CLOUDS[0]} = {PROVIDERS[CLOUDS[0]].example}"
            raise values[f"size.{name}"].error(
                f"needs cpus and memory, or a machine type such as {example}"
            )
    return sizes


def choose(
    provider: str, sizes: Mapping[str, Size], values: Mapping[str, Value], path: str
) -> Size:
    """
    Return the size that the value of the setting *path* means on *provider*.

    The value is the name of a size, requirements ("cpus=64,memory=256 GB"), or a
    machine type of the provider. A provider without machine types accepts the machine
    types of all clouds, because it is used to rehearse a run on a cloud.

    Raises:
        ConfigError: There is no such size on this provider.
    """
    setting = values[path]
    text = str(setting.value)
    size = sizes.get(text)
    if size is None:
        if "=" in text:
            return _from_requirements(text, setting)
        return _from_machine_type(text, provider, sizes, setting)
    rents = bool(PROVIDERS[provider].machine_type)
    if rents and not size.types.get(provider) and not size.cpus:
        raise setting.error(
            f"{text} has no machine type of {provider}; set {provider}, or cpus and "
            f"memory, in [size.{text}]"
        )
    return size


def _from_requirements(text: str, setting: Value) -> Size:
    size = Size(text)
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        key = size_keys().get(name)
        if key is None or not key.kind.scalar:
            raise setting.error(
                f"{show(name)} is not a requirement; write cpus=64,memory=256 GB"
            )
        label = f"{setting.label} {name}".strip()
        size = _with(size, name, read_value(key, value, setting.source, label))
    if not (size.cpus and size.memory):
        raise setting.error(f"{show(text)} needs both: cpus=64,memory=256 GB")
    return size


def _from_machine_type(
    text: str, provider: str, sizes: Mapping[str, Size], setting: Value
) -> Size:
    clouds = [cloud for cloud in CLOUDS if PROVIDERS[cloud].has_type(text)]
    if provider in clouds:
        return Size(text, types={provider: (text,)})
    if clouds and not PROVIDERS[provider].machine_type:
        return Size(text, types=dict.fromkeys(clouds, (text,)))
    if clouds:
        raise setting.error(
            f"{show(text)} is a machine type of {clouds[0]}, but the provider is "
            f"{provider}"
        )
    near = suggest(text.lower(), sizes) or f"; the sizes are {', '.join(sizes)}"
    raise setting.error(
        f"there is no size {show(text)}{near}",
        meant=nearest(text.lower(), sizes) or next(iter(sizes)),
    )


def _with(size: Size, key: str, value: object) -> Size:
    """Return *size* with its setting *key* changed to *value*."""
    if key in CLOUDS:
        assert isinstance(value, tuple)
        return replace(size, types={**size.types, key: value} if value else size.types)
    change: dict[str, Any] = {key: value}
    return replace(size, **change)
