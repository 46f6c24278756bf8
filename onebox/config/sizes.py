"""Make sizes of [vm.*] tables, and find the one that a box is to have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onebox.config.key import CLOUDS
from onebox.config.kinds import TYPES
from onebox.config.layers import Given, accept
from onebox.config.schema import BY_PATH, SIZES
from onebox.config.settings import Size
from onebox.config.wording import show, suggest


def sizes(given: Mapping[str, Given]) -> dict[str, Size]:
    """
    Return all sizes by name: the built-in ones, and what [vm.*] adds or changes.

    A [vm.large] that only says `spot = true` keeps the rest of the built-in one.
    """
    known = {name: Size(name, cpus, memory) for name, cpus, memory in SIZES}
    for path, item in given.items():
        if not path.startswith("vm."):
            continue
        _, name, *key = path.split(".")
        vm = known.get(name) or Size(name, 0, 0)
        known[name] = _with(vm, key[0], item.value) if key else vm
    for name, vm in known.items():
        if not (vm.types or (vm.cpus and vm.memory)):
            raise given[f"vm.{name}"].wrong(
                'wants cpus and memory, or a type, such as aws = "m7i.16xlarge"'
            )
    return known


def choose(
    text: str,
    provider: str,
    known: Mapping[str, Size],
    given: Mapping[str, Given],
    *,
    path: str = "vm",
) -> Size:
    """
    Return the size that *text*, the setting *path*, means on *provider*.

    It is a size's name, a need ("cpus=64,memory=256 GB") or a provider's own
    type. The local box takes any of them: it rehearses what is meant for a cloud.
    """
    place = given.get(path) or Given(path, text, "default")
    vm = known.get(text)
    if vm is None:
        vm = _need(text, place) if "=" in text else _type(text, provider, known, place)
    elif provider != "local" and not vm.types.get(provider) and not vm.cpus:
        raise place.wrong(
            f"{text} has no type of {provider}: [vm.{text}] wants {provider} = …, "
            "or cpus and memory"
        )
    return vm


def _need(text: str, place: Given) -> Size:
    vm = Size(text, 0, 0)
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        key = BY_PATH.get(f"vm.*.{name}")
        if key is None or not key.kind.scalar:
            raise place.wrong(f"no need {show(name)}; write cpus=64,memory=256 GB")
        label = f"{place.label} {name}".strip()
        vm = _with(vm, name, accept(key, value, place.source, label))
    if not (vm.cpus and vm.memory):
        raise place.wrong(f"{show(text)} wants both, cpus=64,memory=256 GB")
    return vm


def _with(vm: Size, key: str, value: object) -> Size:
    """Return the size with one key changed."""
    if key in CLOUDS:
        assert isinstance(value, tuple)
        return replace(vm, types={**vm.types, key: value} if value else vm.types)
    change: dict[str, Any] = {key: value}
    return replace(vm, **change)


def _type(text: str, provider: str, known: Mapping[str, Size], place: Given) -> Size:
    clouds = [cloud for cloud in CLOUDS if TYPES[cloud].fullmatch(text)]
    if provider in clouds:
        return Size(text, 0, 0, types={provider: (text,)})
    if clouds and provider == "local":
        return Size(text, 0, 0, types=dict.fromkeys(clouds, (text,)))
    if clouds:
        raise place.wrong(
            f"{show(text)} is a type of {clouds[0]}, and the provider is {provider}"
        )
    near = suggest(text.lower(), known) or f"; there are {', '.join(known)}"
    raise place.wrong(f"no size {show(text)}{near}")
