"""
Faults that a provider could have, and the test of the contract that finds each.

`FAULTS` is the table; `PlantedFaults` proves it on a provider and its world: with
the fault in it, the named test has to fail.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from onebox.errors import OneboxError, ProviderError, Unclear
from onebox.providers.base import Provider
from onebox.providers.values import (
    Box,
    FreeObject,
    Image,
    Leftover,
    Offer,
    Request,
    Requirements,
)

from .contract import Make, ProviderContract, remove_free_objects
from .world import World

Calls = Mapping[str, Callable[..., Any]]

_ONE_MACHINE = {"local": "this machine is the only size there"}
_NO_FIREWALL = {"local": "its ssh server listens at loopback alone"}
_NO_WIRE = {"local": "no answer of it can get lost"}
_NO_PACKER = {"local": "Packer makes nothing for it"}
_KEEPS_KEY = {
    "local": "its boxes keep the key they were made with",
    "gcp": "its boxes make keys of their own, which are never exposed",
}


@dataclass(frozen=True)
class Fault:
    """
    One fault.

    *test* is the test of the contract that finds it. *plant* returns the calls that
    take the place of the provider's own. *never* says of which providers it cannot
    be, and why.
    """

    name: str
    test: str
    plant: Callable[[Provider, World], Calls]
    never: Mapping[str, str] = field(default_factory=dict)


class PlantedFaults:
    """
    What proves that a contract finds the faults of the table.

    A subclass gives `provider`, `world` and `make_request`, as for the contract.

    Attributes:
        cloud: The provider's name.

        contract: Its suite.
    """

    cloud: str
    contract: type[ProviderContract]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a test of each fault that the provider can have."""
        if "fault" in metafunc.fixturenames:
            faults = [fault for fault in FAULTS if self.cloud not in fault.never]
            names = [f"{fault.name}: {fault.test}" for fault in faults]
            metafunc.parametrize("fault", faults, ids=names)

    def test_is_found(
        self, provider: Provider, world: World, make_request: Make, fault: Fault
    ) -> None:
        """With this fault in the provider, this test of the contract fails."""
        planted = _Planted(provider, fault.plant(provider, world))
        given = {"provider": planted, "world": world, "make_request": make_request}
        test = getattr(self.contract(), fault.test)
        wanted = inspect.signature(test).parameters
        try:
            # What pytest raises where nothing was raised is no Exception.
            with pytest.raises((AssertionError, pytest.fail.Exception, OneboxError)):
                test(**{name: given[name] for name in wanted})
        finally:
            world.accept()
            _clean(provider, make_request)


class _Planted:
    """A provider, some of whose calls are others."""

    def __init__(self, provider: Provider, calls: Calls) -> None:
        self._provider, self._calls = provider, calls

    def __getattr__(self, name: str) -> Any:
        found = self._calls.get(name)
        return getattr(self._provider, name) if found is None else found


def _clean(provider: Provider, make_request: Make) -> None:
    owner = make_request().tags.owner
    for box in provider.find(owner):
        provider.delete(box)
        remove_free_objects(provider, owner, box.id)
    for image in provider.images(owner):
        provider.delete_image(image)


# -- the faults ---------------------------------------------------------------------


def _after_create(do: Callable[[World, Box], None]) -> Callable[..., Calls]:
    """Return what plants something that a create call does beside its work."""

    def plant(provider: Provider, world: World) -> Calls:
        def create(request: Request) -> Box:
            box = provider.create(request)
            do(world, box)
            return box

        return {"create": create}

    return plant


def _deadline_not_on_the_box(provider: Provider, world: World) -> Calls:
    def start(box: Box, deadline: float) -> Box:
        before = world.boot_data(box.id)
        started = provider.start(box, deadline)
        world.set_boot_data(box.id, before)
        return started

    return {"start": start}


def _deadline_forgotten(provider: Provider, world: World) -> Calls:
    return {"start": lambda box, deadline: provider.start(box, box.deadline)}


def _need_ignored(provider: Provider, world: World) -> Calls:
    def offers(need: Requirements) -> list[Offer]:
        return list(provider.offers(replace(need, cpus=1, memory=1, types=())))

    return {"offers": offers}


def _pin_forgets(provider: Provider, world: World) -> Calls:
    return {
        "set_host_key": lambda box, key: replace(box, host_key=key, bootstrap_key=False)
    }


def _admit_does_nothing(provider: Provider, world: World) -> Calls:
    return {"allow_my_ip": lambda box: True}


def _admit_keeps_the_old_one(provider: Provider, world: World) -> Calls:
    return {"allow_my_ip": lambda box: False}


def _lost_answer_raises(provider: Provider, world: World) -> Calls:
    def create(request: Request) -> Box:
        box = provider.create(request)
        if world.lost:
            raise Unclear(f"no answer to the create call of {box.id}")
        return box

    return {"create": create}


def _leftovers_forget(provider: Provider, world: World) -> Calls:
    def leftovers(box: str, place: str = "") -> list[Leftover]:
        return list(provider.leftovers(box, place))[:1]

    return {"leftovers": leftovers}


def _firewalls_untold(provider: Provider, world: World) -> Calls:
    def leftovers(box: str, place: str = "") -> list[Leftover]:
        found = provider.leftovers(box, place)
        return [one for one in found if "firewall" not in one.kind]

    def free_objects(owner: str, gone: Any = (), **more: Any) -> list[FreeObject]:
        return []

    return {"leftovers": leftovers, "free_objects": free_objects}


def _delete_leaves_the_firewall(provider: Provider, world: World) -> Calls:
    calls: dict[str, Any] = dict(_firewalls_untold(provider, world))

    def delete(box: Box) -> None:
        provider.delete(box)
        world.leave_behind(box.tags.owner, box.id)

    return {**calls, "delete": delete}


def _saves_what_runs(provider: Provider, world: World) -> Calls:
    def save(box: Box, image: Image) -> Image:
        provider.stop(box)
        saved = provider.save(box, image)
        provider.start(box, box.deadline)
        return saved

    return {"save": save}


def _adopt_does_nothing(provider: Provider, world: World) -> Calls:
    return {"adopt_image": lambda id, image: image}


def _refused_leaves(provider: Provider, world: World) -> Calls:
    def create(request: Request) -> Box:
        try:
            return provider.create(request)
        except ProviderError:
            with suppress(FileExistsError):
                world.leave_behind(request.tags.owner, request.box)
            raise

    return {"create": create}


def _free_objects_of_all(provider: Provider, world: World) -> Calls:
    def remove(owner: str, resource: FreeObject) -> None:
        """Delete it even if a box uses it."""

    return {"remove_free": remove}


FAULTS = [
    Fault(
        "the firewall is open to the world",
        "test_only_this_machine_reaches_ssh",
        _after_create(lambda world, box: world.open_to_all(box.id)),
        _NO_FIREWALL,
    ),
    Fault(
        "no firewall is attached",
        "test_only_this_machine_reaches_ssh",
        _after_create(lambda world, box: world.take_off_walls(box.id)),
        _NO_FIREWALL,
    ),
    Fault(
        "the box is not armed",
        "test_a_box_has_its_deadline_from_its_first_boot",
        _after_create(lambda world, box: world.set_boot_data(box.id, "")),
    ),
    Fault(
        "the image is ignored",
        "test_a_saved_image_boots_a_box",
        _after_create(lambda world, box: world.boot_plain(box.id)),
    ),
    Fault(
        "sizes ignore the need",
        "test_offers_fit_the_requirements",
        _need_ignored,
        _ONE_MACHINE,
    ),
    Fault(
        "set_host_key writes nothing down",
        "test_a_replaced_host_key_is_read_back_with_the_box",
        _pin_forgets,
        _KEEPS_KEY,
    ),
    Fault(
        "admit has no effect",
        "test_allow_my_ip_replaces_the_former_address",
        _admit_does_nothing,
        _NO_FIREWALL,
    ),
    Fault(
        "admit changes nothing and says so",
        "test_allow_my_ip_replaces_the_former_address",
        _admit_keeps_the_old_one,
        _NO_FIREWALL,
    ),
    Fault(
        "a lost create answer is raised",
        "test_a_create_call_without_a_response_makes_one_box",
        _lost_answer_raises,
        _NO_WIRE,
    ),
    Fault(
        "the deadline after a restart is not on the box",
        "test_a_stopped_box_starts_with_a_new_deadline",
        _deadline_not_on_the_box,
    ),
    Fault(
        "the deadline after a restart is forgotten",
        "test_a_stopped_box_starts_with_a_new_deadline",
        _deadline_forgotten,
    ),
    Fault(
        "leftovers name the machine alone",
        "test_leftovers_are_all_objects_of_the_box",
        _leftovers_forget,
    ),
    Fault(
        "the firewall is listed nowhere",
        "test_each_firewall_is_listed",
        _firewalls_untold,
        _NO_FIREWALL,
    ),
    Fault(
        "delete leaves the firewall",
        "test_each_firewall_is_listed",
        _delete_leaves_the_firewall,
        _NO_FIREWALL,
    ),
    Fault(
        "a box that runs is saved",
        "test_a_running_box_is_not_saved",
        _saves_what_runs,
    ),
    Fault(
        "adopt does nothing",
        "test_an_adopted_image_has_its_owners_tags",
        _adopt_does_nothing,
        _NO_PACKER,
    ),
    Fault(
        "a refused create leaves what was made",
        "test_a_refused_create_leaves_nothing",
        _refused_leaves,
    ),
    Fault(
        "free objects are removed though a box uses them",
        "test_free_objects_can_be_deleted_after_the_last_box",
        _free_objects_of_all,
        _NO_FIREWALL,
    ),
]
