"""
Faults that a provider could have, and the contract's test that finds each.

`FAULTS` is the table. `PlantedFaults` makes one test of each row: it replaces methods
of the provider by faulty ones and asserts that the named test of the contract fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

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
    SaveProgress,
    ignore_progress,
)
from tests.fakes.world import CloudWorld, World

from .boxes import MakeRequest, remove_free_objects
from .contract import IdentityContract, ProviderContract, with_methods

Methods = Mapping[str, Callable[..., Any]]
# The features that a provider may lack; without one, some faults cannot exist.
Feature = Literal["", "machine types", "firewall", "network", "packer", "bootstrap key"]


@dataclass(frozen=True)
class Fault:
    """
    One fault.

    Attributes:
        test: The test of the contract that finds it.

        plant: Returns the faulty methods for a provider and its world.

        needs: The feature without which a provider cannot have this fault.
    """

    name: str
    test: str
    plant: Callable[[Provider, Any], Methods]
    needs: Feature = ""


class PlantedFaults:
    """
    The proof that a provider's contract suite finds the faults of the table.

    A subclass uses the fixtures of the contract: `provider`, `world`, `make_request`.

    Attributes:
        contract: The provider's suite.

        faults: The table of faults.

        lacks: The features that the provider does not have, each with the reason.
    """

    contract: type[ProviderContract | IdentityContract]
    faults: Sequence[Fault]
    lacks: Mapping[Feature, str] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test of each fault that the provider can have."""
        if "fault" in metafunc.fixturenames:
            faults = [one for one in self.faults if one.needs not in self.lacks]
            names = [f"{fault.name}: {fault.test}" for fault in faults]
            metafunc.parametrize("fault", faults, ids=names)

    def test_the_contract_finds_a_planted_fault(
        self, provider: Provider, world: World, make_request: MakeRequest, fault: Fault
    ) -> None:
        """The named test of the contract fails for a provider with this fault."""
        faulty = with_methods(provider, fault.plant(provider, world))
        fixtures = {"provider": faulty, "world": world, "make_request": make_request}
        test = getattr(self.contract(), fault.test)
        parameters = inspect.signature(test).parameters
        try:
            # A `raises` that catches nothing raises pytest.fail.Exception.
            with pytest.raises((AssertionError, pytest.fail.Exception, OneboxError)):
                test(**{name: fixtures[name] for name in parameters})
        finally:
            world.accept_creates()
            _delete_all(provider, make_request)


def _delete_all(provider: Provider, make_request: MakeRequest) -> None:
    owner = make_request().tags.owner
    for box in provider.find(owner):
        provider.delete(box)
        remove_free_objects(provider, owner, box.id)
    for image in provider.images(owner):
        provider.delete_image(image)


# -- faulty methods -----------------------------------------------------------------


def _after_create(
    change: Callable[[Any, Box], None],
) -> Callable[[Provider, Any], Methods]:
    """Return a fault: *change* is made to the world after each create."""

    def plant(provider: Provider, world: World) -> Methods:
        def create(request: Request) -> Box:
            box = provider.create(request)
            change(world, box)
            return box

        return {"create": create}

    return plant


def _start_leaves_boot_data(provider: Provider, world: World) -> Methods:
    def start(box: Box, deadline: float) -> Box:
        before = world.boot_data(box.id)
        started = provider.start(box, deadline)
        world.set_boot_data(box.id, before)
        return started

    return {"start": start}


def _start_keeps_the_deadline(provider: Provider, world: World) -> Methods:
    return {"start": lambda box, deadline: provider.start(box, box.deadline)}


def _offers_ignore_requirements(provider: Provider, world: CloudWorld) -> Methods:
    def offers(requirements: Requirements) -> list[Offer]:
        anything = replace(requirements, cpus=1, memory=1, types=())
        return list(provider.offers(anything))

    return {"offers": offers}


def _set_host_key_stores_nothing(provider: Provider, world: World) -> Methods:
    return {
        "set_host_key": lambda box, key: replace(box, host_key=key, bootstrap_key=False)
    }


def _allow_my_ip_does_nothing(provider: Provider, world: CloudWorld) -> Methods:
    return {"allow_my_ip": lambda box: True}


def _allow_my_ip_reports_no_change(provider: Provider, world: CloudWorld) -> Methods:
    return {"allow_my_ip": lambda box: False}


def _lost_response_is_raised(provider: Provider, world: CloudWorld) -> Methods:
    def create(request: Request) -> Box:
        box = provider.create(request)
        if world.lost_responses:
            raise Unclear(f"no response to the create call of {box.id}")
        return box

    return {"create": create}


def _leftovers_stop_at_the_first(provider: Provider, world: World) -> Methods:
    def leftovers(box: str, place: str = "") -> list[Leftover]:
        return list(provider.leftovers(box, place))[:1]

    return {"leftovers": leftovers}


def _firewalls_are_not_listed(provider: Provider, world: CloudWorld) -> Methods:
    def leftovers(box: str, place: str = "") -> list[Leftover]:
        found = provider.leftovers(box, place)
        return [leftover for leftover in found if "firewall" not in leftover.kind]

    def free_objects(owner: str, gone: Any = (), **more: Any) -> list[FreeObject]:
        return []

    return {"leftovers": leftovers, "free_objects": free_objects}


def _delete_leaves_the_firewall(provider: Provider, world: CloudWorld) -> Methods:
    def delete(box: Box) -> None:
        provider.delete(box)
        world.leave_partial_create(box.tags.owner, box.id)

    return {**_firewalls_are_not_listed(provider, world), "delete": delete}


def _save_stops_a_running_box(provider: Provider, world: World) -> Methods:
    def save(box: Box, image: Image, progress: SaveProgress = ignore_progress) -> Image:
        provider.stop(box)
        saved = provider.save(box, image, progress)
        provider.start(box, box.deadline)
        return saved

    return {"save": save}


def _adopt_image_does_nothing(provider: Provider, world: CloudWorld) -> Methods:
    return {"adopt_image": lambda id, image: image}


def _refused_create_leaves_an_object(provider: Provider, world: World) -> Methods:
    def create(request: Request) -> Box:
        try:
            return provider.create(request)
        except ProviderError:
            with suppress(FileExistsError):
                world.leave_partial_create(request.tags.owner, request.box)
            raise

    return {"create": create}


def _remove_free_accepts_all(provider: Provider, world: CloudWorld) -> Methods:
    def remove(owner: str, resource: FreeObject) -> None:
        """Report success although a box uses the object."""

    return {"remove_free": remove}


FAULTS = [
    Fault(
        "the firewall is open to the world",
        "test_only_this_machine_reaches_ssh",
        _after_create(lambda world, box: world.open_ssh_to_everyone(box.id)),
        "firewall",
    ),
    Fault(
        "no firewall is attached",
        "test_only_this_machine_reaches_ssh",
        _after_create(lambda world, box: world.detach_firewalls(box.id)),
        "firewall",
    ),
    Fault(
        "the box has no boot program",
        "test_a_box_has_its_deadline_from_its_first_boot",
        _after_create(lambda world, box: world.set_boot_data(box.id, "")),
    ),
    Fault(
        "the image is ignored",
        "test_a_saved_image_boots_a_box",
        _after_create(lambda world, box: world.put_base_on_disk(box.id)),
    ),
    Fault(
        "offers ignore the requirements",
        "test_offers_fit_the_requirements",
        _offers_ignore_requirements,
        "machine types",
    ),
    Fault(
        "set_host_key stores nothing",
        "test_a_replaced_host_key_is_read_back_with_the_box",
        _set_host_key_stores_nothing,
        "bootstrap key",
    ),
    Fault(
        "allow_my_ip has no effect",
        "test_allow_my_ip_replaces_the_former_address",
        _allow_my_ip_does_nothing,
        "firewall",
    ),
    Fault(
        "allow_my_ip changes nothing and reports that",
        "test_allow_my_ip_replaces_the_former_address",
        _allow_my_ip_reports_no_change,
        "firewall",
    ),
    Fault(
        "a lost response to a create call is raised",
        "test_a_create_call_without_a_response_makes_one_box",
        _lost_response_is_raised,
        "network",
    ),
    Fault(
        "the deadline of a start is not on the box",
        "test_a_stopped_box_starts_with_a_new_deadline",
        _start_leaves_boot_data,
    ),
    Fault(
        "the deadline of a start is ignored",
        "test_a_stopped_box_starts_with_a_new_deadline",
        _start_keeps_the_deadline,
    ),
    Fault(
        "leftovers are the machine alone",
        "test_leftovers_are_all_objects_of_the_box",
        _leftovers_stop_at_the_first,
    ),
    Fault(
        "the firewall is listed nowhere",
        "test_each_firewall_is_listed",
        _firewalls_are_not_listed,
        "firewall",
    ),
    Fault(
        "delete leaves the firewall",
        "test_each_firewall_is_listed",
        _delete_leaves_the_firewall,
        "firewall",
    ),
    Fault(
        "a running box is saved",
        "test_a_running_box_is_not_saved",
        _save_stops_a_running_box,
    ),
    Fault(
        "adopt_image does nothing",
        "test_an_adopted_image_has_its_owners_tags",
        _adopt_image_does_nothing,
        "packer",
    ),
    Fault(
        "a refused create leaves an object",
        "test_a_refused_create_leaves_nothing",
        _refused_create_leaves_an_object,
    ),
    Fault(
        "a free object that a box uses is removed",
        "test_free_objects_can_be_deleted_after_the_last_box",
        _remove_free_accepts_all,
        "firewall",
    ),
]


def _identity_of_the_settings(provider: Provider, world: CloudWorld) -> Methods:
    def get(box: str, place: str = "") -> Box | None:
        found = provider.get(box, place)
        return found and replace(found, identity=provider.identity)

    return {"get": get}


IDENTITY_FAULTS = [
    Fault(
        "the identity is not attached",
        "test_the_create_call_gives_a_box_its_identity",
        _after_create(lambda world, box: world.set_identity(box.id, "")),
    ),
    Fault(
        "a builder has the identity",
        "test_a_builder_has_no_identity",
        _after_create(lambda world, box: world.set_identity(box.id, "other")),
    ),
    Fault(
        "the settings are taken for the identity of a box",
        "test_the_identity_of_a_box_is_the_one_in_the_cloud",
        _identity_of_the_settings,
    ),
]
PlantedFaults.faults = FAULTS
