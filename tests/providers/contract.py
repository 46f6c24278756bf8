"""
The behaviour that every provider must have, as a test suite.

The tests of a provider subclass `ProviderContract`, those of a cloud `CloudContract`.
They define three fixtures:

- `provider`: the provider, with its settings pointed at a fake,
- `world`: a `World` (a `CloudWorld` for a cloud) that reads and changes the fake,
- `make_request`: a function that returns a new request (`boxes.request_maker`).

`planted.py` proves for each of them that the suite finds faults.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import pytest

from onebox.errors import NotAllowed, ProviderError, Unclear, UsageError
from onebox.providers.base import Provider
from onebox.providers.values import Box, Request, Requirements, Tags
from tests.fakes.world import FOREIGN_IP, CloudWorld, World

from .boxes import (
    MakeRequest,
    image_of,
    public_key,
    remove_free_objects,
    when_up,
)

OTHER_OWNER = "somebody-else"
NEW_KEY = public_key(99)


def with_methods(
    provider: Provider, methods: Mapping[str, Callable[..., Any]]
) -> Provider:
    """Return the provider with some of its methods replaced."""
    return cast(Provider, _WithMethods(provider, methods))


class _WithMethods:
    def __init__(
        self, provider: Provider, methods: Mapping[str, Callable[..., Any]]
    ) -> None:
        self._provider, self._methods = provider, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._provider, name)


def waiting(provider: Provider) -> Provider:
    """
    Return a provider whose boxes are up when `create` and `start` return.

    A cloud's calls return earlier; the stage `provision` waits in the same way.
    """

    def create(request: Request) -> Box:
        return when_up(provider, provider.create(request))

    def start(box: Box, deadline: float) -> Box:
        return when_up(provider, provider.start(box, deadline))

    return with_methods(provider, {"create": create, "start": start})


class ProviderContract:
    """
    The behaviour of `onebox.providers.base.Provider`.

    Attributes:
        own_host_key: Whether a box generates its own host key, which the cloud then
            publishes, instead of using the key of the request.
    """

    own_host_key = False

    @pytest.fixture(autouse=True)
    def delete_everything(
        self, provider: Provider, make_request: MakeRequest
    ) -> Iterator[None]:
        """Delete, after each test, all boxes and images of both owners."""
        owners = {make_request().tags.owner, OTHER_OWNER}
        yield
        for owner in owners:
            for box in provider.find(owner):
                provider.delete(box)
                assert not provider.leftovers(box.id)
            for image in provider.images(owner):
                provider.delete_image(image)

    # -- create ----------------------------------------------------------------

    def test_the_offers_for_a_size_have_a_positive_shape(
        self, provider: Provider
    ) -> None:
        """There is at least one."""
        offers = provider.offers(Requirements("small", 1, 1 << 20))
        assert offers
        assert all(offer.cpus >= 1 and offer.memory >= 1 << 20 for offer in offers)

    def test_the_base_is_the_same_each_time(self, provider: Provider) -> None:
        """It is part of the hash of every recipe."""
        assert provider.base()
        assert provider.base() == provider.base()

    def test_a_created_box_is_as_requested(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """Id, tags, host key, deadline, offer and image are those of the request."""
        request = make_request()
        box = provider.create(request)
        assert box.state == "running"
        assert box.id == request.box
        assert box.tags == request.tags
        assert (box.host_key == request.host_key.public) is not self.own_host_key
        assert box.host_key.startswith("ssh-ed25519 ")
        assert box.deadline == request.boot_config.deadline
        assert box.offer == request.offer
        assert box.image == ""

    def test_a_box_has_its_deadline_from_its_first_boot(
        self, provider: Provider, world: World, make_request: MakeRequest
    ) -> None:
        """The create call itself carries the deadline and the id."""
        request = make_request()
        box = provider.create(request)
        assert request.box in world.boot_data(box.id)
        deadline = world.deadline_on(box.id)
        assert deadline == pytest.approx(request.boot_config.deadline, abs=1)

    def test_a_refused_create_leaves_nothing(
        self, provider: Provider, world: World, make_request: MakeRequest
    ) -> None:
        """No object of the box remains, and no firewall after a teardown."""
        request = make_request()
        owner = request.tags.owner
        firewalls = world.firewalls_of(owner)
        refused = world.refuse_creates(request)
        try:
            with pytest.raises(ProviderError) as caught:
                provider.create(refused)
        finally:
            world.accept_creates()
        assert not isinstance(caught.value, Unclear)
        assert not world.objects_of(request.box)
        assert not provider.leftovers(request.box)
        remove_free_objects(provider, owner)
        assert world.firewalls_of(owner) == firewalls
        assert provider.get(request.box) is None

    def test_a_repeated_create_returns_the_same_box(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """It creates no second box."""
        request = make_request()
        first = provider.create(request)
        assert provider.create(request) == first
        assert list(provider.find(request.tags.owner)) == [first]

    def test_a_box_id_of_another_owner_is_refused(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """The box of the other owner stays as it is."""
        request = make_request()
        first = provider.create(request)
        other = dataclasses.replace(request, tags=_of_other_owner(request.tags))
        with pytest.raises(NotAllowed):
            provider.create(other)
        assert provider.get(first.id) == first

    # -- find and delete -------------------------------------------------------

    def test_a_box_is_found_by_its_owner_and_its_id(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """Another owner does not find it."""
        request = make_request()
        box = provider.create(request)
        assert list(provider.find(request.tags.owner)) == [box]
        assert list(provider.find(OTHER_OWNER)) == []
        assert provider.get(box.id) == box

    def test_a_box_that_never_existed_is_none(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """It has no leftovers."""
        request = make_request()
        assert provider.get(request.box) is None
        assert not provider.leftovers(request.box)
        assert list(provider.find(request.tags.owner)) == []

    def test_leftovers_are_all_objects_of_the_box(
        self, provider: Provider, world: World, make_request: MakeRequest
    ) -> None:
        """Each object that exists for the box alone is listed."""
        box = provider.create(make_request())
        objects = Counter(world.objects_of(box.id))
        assert objects
        assert not objects - Counter(left.id for left in provider.leftovers(box.id))

    def test_delete_removes_the_box_and_its_objects(
        self, provider: Provider, world: World, make_request: MakeRequest
    ) -> None:
        """Afterwards the box has no leftovers."""
        request = make_request()
        box = provider.create(request)
        assert provider.leftovers(box.id)
        provider.delete(box)
        assert provider.get(box.id) is None
        assert not provider.leftovers(box.id)
        assert not world.objects_of(box.id)
        assert list(provider.find(request.tags.owner)) == []

    def test_a_second_delete_succeeds(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """A box that is gone is what a delete is for."""
        box = provider.create(make_request())
        provider.delete(box)
        provider.delete(box)

    def test_a_box_with_other_tags_is_not_deleted(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """Owner, project and name must be those of the box; it keeps running."""
        box = provider.create(make_request())
        for tags in (
            _of_other_owner(box.tags),
            dataclasses.replace(box.tags, project="another"),
            dataclasses.replace(box.tags, name="another"),
        ):
            with pytest.raises(NotAllowed):
                provider.delete(dataclasses.replace(box, tags=tags))
        assert provider.get(box.id) == box

    def test_the_box_of_another_owner_is_not_touched(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """The calls for one owner do not change it."""
        mine, theirs = make_request(), make_request()
        theirs = dataclasses.replace(theirs, tags=_of_other_owner(theirs.tags))
        foreign = provider.create(theirs)
        box = provider.create(mine)
        provider.stop(box)
        provider.delete(box)
        provider.find(mine.tags.owner)
        assert provider.get(foreign.id) == foreign

    # -- objects that boxes share ----------------------------------------------

    def test_free_objects_can_be_deleted_after_the_last_box(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """Before, each names the box that uses it, and is not deleted."""
        box = provider.create(make_request())
        owner = box.tags.owner
        for resource in provider.free_objects(owner):
            assert box.id in resource.why
            with pytest.raises(ProviderError):
                provider.remove_free(owner, resource)
        provider.delete(box)
        remove_free_objects(provider, owner, box.id)
        assert not provider.free_objects(owner, [box.id])

    def test_the_free_objects_of_another_owner_stay(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """They are not listed, and not deleted."""
        request = make_request()
        foreign = provider.create(
            dataclasses.replace(request, tags=_of_other_owner(request.tags))
        )
        owner = request.tags.owner
        assert not provider.free_objects(owner, [foreign.id], everywhere=True)
        before = provider.free_objects(foreign.tags.owner)
        for resource in before:
            with pytest.raises(NotAllowed):
                provider.remove_free(owner, resource)
        assert provider.free_objects(foreign.tags.owner) == before
        provider.delete(foreign)
        remove_free_objects(provider, foreign.tags.owner, foreign.id)

    # -- stop and start --------------------------------------------------------

    def test_a_stopped_box_starts_with_a_new_deadline(
        self, provider: Provider, world: World, make_request: MakeRequest
    ) -> None:
        """Nothing else about it changes; a second stop changes nothing."""
        box = provider.create(make_request())
        provider.stop(box)
        provider.stop(box)
        stopped = provider.get(box.id)
        assert stopped is not None
        assert stopped.state == "stopped"
        assert stopped.tags == box.tags
        deadline = time.time() + 1234
        started = provider.start(stopped, deadline)
        assert started.state == "running"
        assert started.deadline == pytest.approx(deadline, abs=1)
        assert started.host_key == box.host_key
        # The box powers itself off, so it has to read the new deadline.
        assert world.deadline_on(box.id) == pytest.approx(deadline, abs=1)

    def test_a_repeated_create_does_not_start_a_stopped_box(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """It returns the box as it is."""
        request = make_request()
        box = provider.create(request)
        provider.stop(box)
        assert provider.create(request).state == "stopped"

    def test_a_stopped_box_can_be_deleted(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """Its disk is deleted too."""
        box = provider.create(make_request())
        provider.stop(box)
        provider.delete(box)
        assert not provider.leftovers(box.id)

    # -- images ----------------------------------------------------------------

    def test_a_running_box_is_not_saved(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """Its disk may change meanwhile."""
        request = make_request()
        box = provider.create(request)
        with pytest.raises(ProviderError):
            provider.save(box, image_of(request))
        assert list(provider.images(request.tags.owner)) == []
        now = provider.get(box.id)
        assert now is not None
        assert now.state == "running"

    def test_a_saved_image_boots_a_box(
        self, provider: Provider, world: World, make_request: MakeRequest
    ) -> None:
        """It is listed for its owner, and a second save returns it."""
        request = make_request()
        box = provider.create(request)
        wanted = image_of(request)
        world.mark_disk(box.id, wanted.id)
        provider.stop(box)
        image = provider.save(box, wanted)
        assert (image.id, image.recipe) == (wanted.id, wanted.recipe)
        assert image.tags == wanted.tags
        assert list(provider.images(request.tags.owner)) == [image]
        assert list(provider.images(OTHER_OWNER)) == []
        assert provider.save(box, wanted) == image
        provider.delete(box)
        again = provider.create(make_request(image=image))
        assert again.state == "running"
        assert again.image == image.id
        assert world.image_on_disk(again.id) == image.id
        provider.delete_image(image)
        provider.delete_image(image)
        assert list(provider.images(request.tags.owner)) == []

    def test_an_image_with_other_tags_is_not_deleted(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """It is still listed."""
        request = make_request()
        box = provider.create(request)
        provider.stop(box)
        image = provider.save(box, image_of(request))
        foreign = dataclasses.replace(image, tags=_of_other_owner(image.tags))
        with pytest.raises(NotAllowed):
            provider.delete_image(foreign)
        assert list(provider.images(request.tags.owner)) == [image]

    def test_an_adopted_image_has_its_owners_tags(
        self, provider: Provider, world: World, make_request: MakeRequest
    ) -> None:
        """A second adoption changes nothing; a provider without `adopts` refuses."""
        wanted = image_of(make_request())
        if not provider.adopts:
            with pytest.raises(UsageError):
                provider.adopt_image("im-1", wanted)
            return
        artifact = world.build_with_packer()
        image = provider.adopt_image(artifact, wanted)
        assert (image.tags, image.recipe) == (wanted.tags, wanted.recipe)
        assert provider.adopt_image(artifact, wanted) == image
        assert list(provider.images(wanted.tags.owner)) == [image]
        provider.delete_image(image)
        assert list(provider.images(wanted.tags.owner)) == []

    # -- the rest --------------------------------------------------------------

    def test_a_replaced_host_key_is_read_back_with_the_box(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """Only a bootstrap key can be replaced."""
        box = provider.create(make_request())
        if not box.bootstrap_key:
            with pytest.raises(UsageError):
                provider.set_host_key(box, NEW_KEY)
            return
        pinned = provider.set_host_key(box, NEW_KEY)
        assert (pinned.host_key, pinned.bootstrap_key) == (NEW_KEY, False)
        found = provider.get(box.id)
        assert found is not None
        assert (found.host_key, found.bootstrap_key) == (NEW_KEY, False)

    def test_the_console_is_text(
        self, provider: Provider, make_request: MakeRequest
    ) -> None:
        """A box without output has the text ""."""
        box = provider.create(make_request())
        assert isinstance(provider.console(box), str)

    def test_each_check_has_a_name_and_a_sentence(self, provider: Provider) -> None:
        """A failed check also has the next step."""
        checks = provider.checks()
        assert checks
        for check in checks:
            assert check.name
            assert check.detail
            assert check.next or check.ok is not False


class CloudContract(ProviderContract):
    """The behaviour of a cloud: several machine types, firewalls, lost responses."""

    def test_offers_fit_the_requirements(self, provider: Provider) -> None:
        """The first one is the cheapest; a named type is the only one offered."""
        offers = provider.offers(Requirements("big", 16, 64 << 30))
        assert offers
        assert all(offer.cpus >= 16 and offer.memory >= 64 << 30 for offer in offers)
        prices = [
            offer.machine_price for offer in offers if offer.machine_price is not None
        ]
        assert prices[:1] == [min(prices)]
        [named, *_] = provider.offers(
            Requirements("named", 1, 1, types=(offers[0].type,))
        )
        assert named.type == offers[0].type

    def test_only_this_machine_reaches_ssh(
        self, provider: Provider, world: CloudWorld, make_request: MakeRequest
    ) -> None:
        """No other address has access."""
        box = provider.create(make_request())
        assert world.ssh_open_to(box.id, world.my_ip)
        assert not world.ssh_open_to(box.id, FOREIGN_IP)

    def test_allow_my_ip_replaces_the_former_address(
        self, provider: Provider, world: CloudWorld, make_request: MakeRequest
    ) -> None:
        """It returns whether it has changed the firewall."""
        box = provider.create(make_request())
        assert not provider.allow_my_ip(box)
        before = world.my_ip
        now = world.change_my_ip()
        assert provider.allow_my_ip(box)
        assert world.ssh_open_to(box.id, now)
        assert not world.ssh_open_to(box.id, before)
        assert not world.ssh_open_to(box.id, FOREIGN_IP)
        assert not provider.allow_my_ip(box)

    def test_a_create_call_without_a_response_makes_one_box(
        self, provider: Provider, world: CloudWorld, make_request: MakeRequest
    ) -> None:
        """The call took effect; `create` finds the box and returns it."""
        request = make_request()
        world.lose_next_create_response()
        box = provider.create(request)
        assert world.lost_responses == 1
        assert box.id == request.box
        assert list(provider.find(request.tags.owner)) == [box]
        provider.delete(box)
        assert not world.objects_of(box.id)

    def test_each_firewall_is_listed(
        self, provider: Provider, world: CloudWorld, make_request: MakeRequest
    ) -> None:
        """It is a leftover of its box, or a free object of the owner."""
        box = provider.create(make_request())
        owner = box.tags.owner
        firewalls = world.firewalls_of(owner)
        assert firewalls
        listed = {left.id for left in provider.leftovers(box.id)}
        listed |= {resource.id for resource in provider.free_objects(owner)}
        assert firewalls <= listed
        provider.delete(box)
        remove_free_objects(provider, owner, box.id)
        assert not world.firewalls_of(owner)


class IdentityContract:
    """
    The behaviour of a cloud that can give a box an identity.

    The fixture `provider` has an identity in its settings.
    """

    def test_the_create_call_gives_a_box_its_identity(
        self, provider: Provider, world: CloudWorld, make_request: MakeRequest
    ) -> None:
        """It is read back with the box."""
        box = provider.create(make_request())
        assert provider.identity
        assert world.identity_of(box.id) == provider.identity
        assert box.identity == provider.identity
        assert [one.identity for one in provider.find(box.tags.owner)] == [box.identity]
        provider.delete(box)

    def test_a_builder_has_no_identity(
        self, provider: Provider, world: CloudWorld, make_request: MakeRequest
    ) -> None:
        """The set-up script of an image needs no rights."""
        request = make_request()
        tags = dataclasses.replace(request.tags, kind="builder")
        box = provider.create(dataclasses.replace(request, tags=tags))
        assert world.identity_of(box.id) == ""
        assert box.identity == ""
        provider.delete(box)

    def test_the_identity_of_a_box_is_the_one_in_the_cloud(
        self, provider: Provider, world: CloudWorld, make_request: MakeRequest
    ) -> None:
        """It is not the one in the settings, if somebody has changed it."""
        box = provider.create(make_request())
        world.set_identity(box.id, "")
        changed = provider.get(box.id)
        assert changed is not None
        assert changed.identity == ""
        provider.delete(box)

    def test_a_started_box_keeps_its_identity(
        self, provider: Provider, world: CloudWorld, make_request: MakeRequest
    ) -> None:
        """A stop does not take it away."""
        box = provider.create(make_request())
        provider.stop(box)
        stopped = provider.get(box.id)
        assert stopped is not None
        assert stopped.identity == provider.identity
        started = provider.start(stopped, time.time() + 1234)
        assert started.identity == provider.identity
        assert world.identity_of(box.id) == provider.identity
        provider.delete(started)


def _of_other_owner(tags: Tags) -> Tags:
    return dataclasses.replace(tags, owner=OTHER_OWNER)
