"""
The tests that every provider passes; its own tests subclass one of the suites.

A local provider subclasses `ProviderContract`, a cloud's `CloudContract`. That the
suites fail for a provider with a fault in it is proven by `planted`.
"""

from __future__ import annotations

import base64
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from onebox.errors import NotAllowed, ProviderError, Unclear, UsageError
from onebox.providers.base import Provider
from onebox.providers.values import Image, Request, Requirements, Tags

from .world import STRANGER, World

Make = Callable[..., Request]
# An ed25519 key as OpenSSH writes them.
_BLOB = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32))
NEW_KEY = f"ssh-ed25519 {base64.b64encode(_BLOB).decode()}"


class ProviderContract:
    """
    The behaviour suite of `onebox.providers.base.Provider`.

    A subclass gives the fixtures `provider`, `world` (see `World`) and `make_request`
    (a function that returns a new request; keywords replace its fields).

    Attributes:
        own_host_key: Whether boxes make host keys of their own, which the cloud
            then tells, instead of taking the one of the request.
    """

    own_host_key = False

    @pytest.fixture(autouse=True)
    def leave_nothing(self, provider: Provider, make_request: Make) -> Iterator[None]:
        """Delete, after each test, everything that it has created."""
        owners = {make_request().tags.owner, "somebody-else"}
        yield
        for owner in owners:
            for box in provider.find(owner):
                provider.delete(box)
                assert not provider.leftovers(box.id)
            for image in provider.images(owner):
                provider.delete_image(image)

    def test_the_offers_for_a_size_have_a_positive_shape(
        self, provider: Provider
    ) -> None:
        """There is at least one."""
        sizes = provider.offers(Requirements("small", 1, 1 << 20))
        assert sizes
        assert all(size.cpus >= 1 and size.memory >= 1 << 20 for size in sizes)

    def test_the_base_is_the_same_each_time(self, provider: Provider) -> None:
        """It is part of the hash of every recipe."""
        assert provider.base()
        assert provider.base() == provider.base()

    def test_a_created_box_is_as_requested(
        self, provider: Provider, make_request: Make
    ) -> None:
        """It runs when the create call has returned."""
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
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """It also has its id."""
        request = make_request()
        box = provider.create(request)
        assert request.box in world.boot_data(box.id)
        deadline = world.deadline_on(box.id)
        assert deadline == pytest.approx(request.boot_config.deadline, abs=1)

    def test_a_refused_create_leaves_nothing(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Neither at once, nor for a later teardown."""
        request = make_request()
        owner, walls = request.tags.owner, world.walls(request.tags.owner)
        refused = world.refuse(request)
        try:
            with pytest.raises(ProviderError) as caught:
                provider.create(refused)
        finally:
            world.accept()
        assert not isinstance(caught.value, Unclear)
        assert not world.belongings(request.box)
        assert not provider.leftovers(request.box)
        remove_free_objects(provider, owner)
        assert world.walls(owner) == walls
        assert provider.get(request.box) is None

    def test_a_repeated_create_returns_the_same_box(
        self, provider: Provider, make_request: Make
    ) -> None:
        """There is one box."""
        request = make_request()
        first = provider.create(request)
        assert provider.create(request) == first
        assert list(provider.find(request.tags.owner)) == [first]

    def test_a_box_id_of_another_owner_is_refused(
        self, provider: Provider, make_request: Make
    ) -> None:
        """Its box stays as it is."""
        request = make_request()
        first = provider.create(request)
        other = dataclasses.replace(request, tags=_foreign(request.tags))
        with pytest.raises(NotAllowed):
            provider.create(other)
        assert provider.get(first.id) == first

    def test_a_box_is_found_by_its_owner_and_its_id(
        self, provider: Provider, make_request: Make
    ) -> None:
        """Another owner does not find it."""
        request = make_request()
        box = provider.create(request)
        assert list(provider.find(request.tags.owner)) == [box]
        assert list(provider.find("somebody-else")) == []
        assert provider.get(box.id) == box

    def test_a_box_that_never_existed_is_none(
        self, provider: Provider, make_request: Make
    ) -> None:
        """It has no leftovers."""
        request = make_request()
        assert provider.get(request.box) is None
        assert not provider.leftovers(request.box)
        assert list(provider.find(request.tags.owner)) == []

    def test_leftovers_are_all_objects_of_the_box(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Objects of other boxes are not among them."""
        box = provider.create(make_request())
        there = Counter(world.belongings(box.id))
        assert there
        assert not there - Counter(left.id for left in provider.leftovers(box.id))

    def test_delete_removes_the_box_and_its_objects(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Nothing of it is left."""
        request = make_request()
        box = provider.create(request)
        assert provider.leftovers(box.id)
        provider.delete(box)
        assert provider.get(box.id) is None
        assert not provider.leftovers(box.id)
        assert not world.belongings(box.id)
        assert list(provider.find(request.tags.owner)) == []

    def test_a_second_delete_succeeds(
        self, provider: Provider, make_request: Make
    ) -> None:
        """The box is gone already."""
        box = provider.create(make_request())
        provider.delete(box)
        provider.delete(box)

    def test_a_box_with_other_tags_is_not_deleted(
        self, provider: Provider, make_request: Make
    ) -> None:
        """It is not stopped either."""
        box = provider.create(make_request())
        for tags in (
            _foreign(box.tags),
            dataclasses.replace(box.tags, project="another"),
            dataclasses.replace(box.tags, name="another"),
        ):
            with pytest.raises(NotAllowed):
                provider.delete(dataclasses.replace(box, tags=tags))
        assert provider.get(box.id) == box

    def test_the_box_of_another_owner_is_not_touched(
        self, provider: Provider, make_request: Make
    ) -> None:
        """No call for one owner changes it."""
        mine, theirs = make_request(), make_request()
        theirs = dataclasses.replace(theirs, tags=_foreign(theirs.tags))
        foreign = provider.create(theirs)
        box = provider.create(mine)
        provider.stop(box)
        provider.delete(box)
        provider.find(mine.tags.owner)
        assert provider.get(foreign.id) == foreign

    def test_free_objects_can_be_deleted_after_the_last_box(
        self, provider: Provider, make_request: Make
    ) -> None:
        """A box that uses one is its reason to stay."""
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
        self, provider: Provider, make_request: Make
    ) -> None:
        """They are not listed, and not deleted."""
        request = make_request()
        foreign = provider.create(
            dataclasses.replace(request, tags=_foreign(request.tags))
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

    def test_a_stopped_box_starts_with_a_new_deadline(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Everything else about it stays."""
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
        # The box itself has to know it: it is what powers off.
        assert world.deadline_on(box.id) == pytest.approx(deadline, abs=1)

    def test_a_repeated_create_does_not_start_a_stopped_box(
        self, provider: Provider, make_request: Make
    ) -> None:
        """It returns the box as it is."""
        request = make_request()
        box = provider.create(request)
        provider.stop(box)
        assert provider.create(request).state == "stopped"

    def test_a_stopped_box_can_be_deleted(
        self, provider: Provider, make_request: Make
    ) -> None:
        """Nothing of it is left."""
        box = provider.create(make_request())
        provider.stop(box)
        provider.delete(box)
        assert not provider.leftovers(box.id)

    def test_a_running_box_is_not_saved(
        self, provider: Provider, make_request: Make
    ) -> None:
        """Its disk may change meanwhile."""
        request = make_request()
        box = provider.create(request)
        with pytest.raises(ProviderError):
            provider.save(box, an_image(request))
        assert list(provider.images(request.tags.owner)) == []
        now = provider.get(box.id)
        assert now is not None
        assert now.state == "running"

    def test_a_saved_image_boots_a_box(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """It is listed, and a second save returns it."""
        request = make_request()
        box = provider.create(request)
        wanted = an_image(request)
        world.mark(box.id, wanted.id)
        provider.stop(box)
        image = provider.save(box, wanted)
        assert (image.id, image.recipe) == (wanted.id, wanted.recipe)
        assert image.tags == wanted.tags
        assert list(provider.images(request.tags.owner)) == [image]
        assert list(provider.images("somebody-else")) == []
        assert provider.save(box, wanted) == image
        provider.delete(box)
        again = provider.create(make_request(image=image))
        assert again.state == "running"
        assert again.image == image.id
        assert world.booted_from(again.id) == image.id
        provider.delete_image(image)
        provider.delete_image(image)
        assert list(provider.images(request.tags.owner)) == []

    def test_an_image_with_other_tags_is_not_deleted(
        self, provider: Provider, make_request: Make
    ) -> None:
        """It is still listed."""
        request = make_request()
        box = provider.create(request)
        provider.stop(box)
        image = provider.save(box, an_image(request))
        with pytest.raises(NotAllowed):
            provider.delete_image(dataclasses.replace(image, tags=_foreign(image.tags)))
        assert list(provider.images(request.tags.owner)) == [image]

    def test_an_adopted_image_has_its_owners_tags(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """A second adoption changes nothing."""
        wanted = an_image(make_request())
        if not provider.adopts:
            with pytest.raises(UsageError):
                provider.adopt_image("im-1", wanted)
            return
        artifact = world.packed()
        image = provider.adopt_image(artifact, wanted)
        assert (image.tags, image.recipe) == (wanted.tags, wanted.recipe)
        assert provider.adopt_image(artifact, wanted) == image
        assert list(provider.images(wanted.tags.owner)) == [image]
        provider.delete_image(image)
        assert list(provider.images(wanted.tags.owner)) == []

    def test_a_replaced_host_key_is_read_back_with_the_box(
        self, provider: Provider, make_request: Make
    ) -> None:
        """It replaces a bootstrap key."""
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

    def test_the_console_is_text(self, provider: Provider, make_request: Make) -> None:
        """Also when the box has no output."""
        box = provider.create(make_request())
        assert isinstance(provider.console(box), str)

    def test_each_check_has_a_name_and_a_sentence(self, provider: Provider) -> None:
        """A failed one has the next step."""
        lines = provider.checks()
        assert lines
        for line in lines:
            assert line.name
            assert line.detail
            assert line.next or line.ok is not False


class CloudContract(ProviderContract):
    """The promises for boxes that others could reach, and for lost responses."""

    def test_offers_fit_the_requirements(self, provider: Provider) -> None:
        """The first one is the cheapest."""
        sizes = provider.offers(Requirements("big", 16, 64 << 30))
        assert sizes
        assert all(size.cpus >= 16 and size.memory >= 64 << 30 for size in sizes)
        prices = [size.price for size in sizes if size.price is not None]
        assert prices[:1] == [min(prices)]
        [named, *_] = provider.offers(
            Requirements("named", 1, 1, types=(sizes[0].type,))
        )
        assert named.type == sizes[0].type

    def test_only_this_machine_reaches_ssh(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """No other address has access."""
        box = provider.create(make_request())
        assert world.ssh_open_to(box.id, world.here)
        assert not world.ssh_open_to(box.id, STRANGER)

    def test_allow_my_ip_replaces_the_former_address(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Only the present one has access."""
        box = provider.create(make_request())
        assert not provider.allow_my_ip(box)
        before = world.here
        now = world.move()
        assert provider.allow_my_ip(box)
        assert world.ssh_open_to(box.id, now)
        assert not world.ssh_open_to(box.id, before)
        assert not world.ssh_open_to(box.id, STRANGER)
        assert not provider.allow_my_ip(box)

    def test_a_create_call_without_a_response_makes_one_box(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """It is returned."""
        request = make_request()
        world.lose_next_answer()
        box = provider.create(request)
        assert world.lost == 1
        assert box.id == request.box
        assert list(provider.find(request.tags.owner)) == [box]
        provider.delete(box)
        assert not world.belongings(box.id)

    def test_each_firewall_is_listed(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """As a leftover of its box, or as a free object of the owner."""
        box = provider.create(make_request())
        walls = world.walls(box.tags.owner)
        assert walls
        listed = {left.id for left in provider.leftovers(box.id)}
        listed |= {resource.id for resource in provider.free_objects(box.tags.owner)}
        assert walls <= listed
        provider.delete(box)
        remove_free_objects(provider, box.tags.owner, box.id)
        assert not world.walls(box.tags.owner)


def an_image(request: Request, name: str = "image") -> Image:
    """Return what a caller wants a box of this request saved as."""
    return Image(
        id=f"im-{request.box}",
        name=name,
        recipe="0123456789abcdef",
        created=0.0,
        stored=0,
        arch="",
        tags=dataclasses.replace(request.tags, kind="image"),
    )


def remove_free_objects(provider: Provider, owner: str, *gone: str) -> None:
    """Delete the free objects that no box uses, as a teardown does."""
    for resource in provider.free_objects(owner, gone):
        if not resource.why:
            provider.remove_free(owner, resource)


def _foreign(tags: Tags) -> Tags:
    return dataclasses.replace(tags, owner="somebody-else")
