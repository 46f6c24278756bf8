"""
What every provider must do: a provider's tests subclass one of these suites.

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
from onebox.providers.base import Image, Provider, Request, Requirements, Tags

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
        """Remove, after each test, whatever it has made."""
        owners = {make_request().tags.owner, "somebody-else"}
        yield
        for owner in owners:
            for box in provider.find(owner):
                provider.delete(box)
                assert not provider.leftovers(box.id)
            for image in provider.images(owner):
                provider.delete_image(image)

    def test_size(self, provider: Provider) -> None:
        """There is at least one size for what is needed, with a positive shape."""
        sizes = provider.offers(Requirements("small", 1, 1 << 20))
        assert sizes
        assert all(size.cpus >= 1 and size.memory >= 1 << 20 for size in sizes)

    def test_base_is_stable(self, provider: Provider) -> None:
        """The base has a name, and the same one each time."""
        assert provider.base()
        assert provider.base() == provider.base()

    def test_create(self, provider: Provider, make_request: Make) -> None:
        """A created box runs, and is what was asked for."""
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

    def test_create_arms_the_box(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """A box knows from its first moment on which it is, and when it ends."""
        request = make_request()
        box = provider.create(request)
        assert request.box in world.told(box.id)
        deadline = world.deadline_on(box.id)
        assert deadline == pytest.approx(request.boot_config.deadline, abs=1)

    def test_refused_create_leaves_nothing(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Of a box that is refused nothing is left, at once or for a teardown."""
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

    def test_create_twice(self, provider: Provider, make_request: Make) -> None:
        """The same request again returns the same box, and makes no second one."""
        request = make_request()
        first = provider.create(request)
        assert provider.create(request) == first
        assert list(provider.find(request.tags.owner)) == [first]

    def test_create_over_another(self, provider: Provider, make_request: Make) -> None:
        """A box id that is taken by somebody else is refused, and left alone."""
        request = make_request()
        first = provider.create(request)
        other = dataclasses.replace(request, tags=_foreign(request.tags))
        with pytest.raises(NotAllowed):
            provider.create(other)
        assert provider.get(first.id) == first

    def test_find_and_get(self, provider: Provider, make_request: Make) -> None:
        """A box is found by its owner and by its id, by nobody else."""
        request = make_request()
        box = provider.create(request)
        assert list(provider.find(request.tags.owner)) == [box]
        assert list(provider.find("somebody-else")) == []
        assert provider.get(box.id) == box

    def test_nothing_there(self, provider: Provider, make_request: Make) -> None:
        """A box that never was is None, and leaves nothing."""
        request = make_request()
        assert provider.get(request.box) is None
        assert not provider.leftovers(request.box)
        assert list(provider.find(request.tags.owner)) == []

    def test_leftovers_name_all_that_is_there(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Whatever there is for a box, and it alone, is among its leftovers."""
        box = provider.create(make_request())
        there = Counter(world.belongings(box.id))
        assert there
        assert not there - Counter(left.id for left in provider.leftovers(box.id))

    def test_delete(self, provider: Provider, world: World, make_request: Make) -> None:
        """A deleted box is gone, with all that was made for it."""
        request = make_request()
        box = provider.create(request)
        assert provider.leftovers(box.id)
        provider.delete(box)
        assert provider.get(box.id) is None
        assert not provider.leftovers(box.id)
        assert not world.belongings(box.id)
        assert list(provider.find(request.tags.owner)) == []

    def test_delete_twice(self, provider: Provider, make_request: Make) -> None:
        """Deleting what is already gone is fine."""
        box = provider.create(make_request())
        provider.delete(box)
        provider.delete(box)

    def test_delete_checks_tags(self, provider: Provider, make_request: Make) -> None:
        """A box that carries other tags is not deleted, nor stopped."""
        box = provider.create(make_request())
        for tags in (
            _foreign(box.tags),
            dataclasses.replace(box.tags, project="another"),
            dataclasses.replace(box.tags, name="another"),
        ):
            with pytest.raises(NotAllowed):
                provider.delete(dataclasses.replace(box, tags=tags))
        assert provider.get(box.id) == box

    def test_foreign_box_stays(self, provider: Provider, make_request: Make) -> None:
        """Nothing that is done for one owner touches another one's box."""
        mine, theirs = make_request(), make_request()
        theirs = dataclasses.replace(theirs, tags=_foreign(theirs.tags))
        foreign = provider.create(theirs)
        box = provider.create(mine)
        provider.stop(box)
        provider.delete(box)
        provider.find(mine.tags.owner)
        assert provider.get(foreign.id) == foreign

    def test_free_objects_go_with_the_last_box(
        self, provider: Provider, make_request: Make
    ) -> None:
        """What costs nothing stays while a box uses it, and can be removed after."""
        box = provider.create(make_request())
        owner = box.tags.owner
        for resource in provider.free_objects(owner):
            assert box.id in resource.why
            with pytest.raises(ProviderError):
                provider.remove_free(owner, resource)
        provider.delete(box)
        remove_free_objects(provider, owner, box.id)
        assert not provider.free_objects(owner, [box.id])

    def test_free_objects_of_another_stay(
        self, provider: Provider, make_request: Make
    ) -> None:
        """What is another owner's is not told of to us, and not removed for us."""
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

    def test_stop_and_start(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """A stopped box keeps what it is, and starts with a new deadline."""
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

    def test_create_returns_stopped(
        self, provider: Provider, make_request: Make
    ) -> None:
        """A repeated request does not start again what was stopped since."""
        request = make_request()
        box = provider.create(request)
        provider.stop(box)
        assert provider.create(request).state == "stopped"

    def test_delete_stopped(self, provider: Provider, make_request: Make) -> None:
        """A stopped box can be deleted."""
        box = provider.create(make_request())
        provider.stop(box)
        provider.delete(box)
        assert not provider.leftovers(box.id)

    def test_save_wants_a_stopped_box(
        self, provider: Provider, make_request: Make
    ) -> None:
        """A box that runs is not saved: what it writes meanwhile would be torn."""
        request = make_request()
        box = provider.create(request)
        with pytest.raises(ProviderError):
            provider.save(box, an_image(request))
        assert list(provider.images(request.tags.owner)) == []
        now = provider.get(box.id)
        assert now is not None
        assert now.state == "running"

    def test_image(self, provider: Provider, world: World, make_request: Make) -> None:
        """A stopped box can be saved; the image is found and boots a box."""
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

    def test_image_checks_tags(self, provider: Provider, make_request: Make) -> None:
        """An image that carries other tags is not deleted."""
        request = make_request()
        box = provider.create(request)
        provider.stop(box)
        image = provider.save(box, an_image(request))
        with pytest.raises(NotAllowed):
            provider.delete_image(dataclasses.replace(image, tags=_foreign(image.tags)))
        assert list(provider.images(request.tags.owner)) == [image]

    def test_adopted_image_is_ours(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """An image of Packer's becomes ours, once, with what it is to be."""
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

    def test_pinned_key_is_remembered(
        self, provider: Provider, make_request: Make
    ) -> None:
        """A host key that takes an exposed one's place is found with the box."""
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

    def test_console(self, provider: Provider, make_request: Make) -> None:
        """The console of a box is text, also when it says nothing."""
        box = provider.create(make_request())
        assert isinstance(provider.console(box), str)

    def test_checks(self, provider: Provider) -> None:
        """Doctor's lines have a name and a sentence; a failed one says what next."""
        lines = provider.checks()
        assert lines
        for line in lines:
            assert line.name
            assert line.detail
            assert line.next or line.ok is not False


class CloudContract(ProviderContract):
    """What is promised of boxes that others can reach, and of calls that get lost."""

    def test_sizes_fit_the_need(self, provider: Provider) -> None:
        """Every candidate has what is needed; the first one is the cheapest."""
        sizes = provider.offers(Requirements("big", 16, 64 << 30))
        assert sizes
        assert all(size.cpus >= 16 and size.memory >= 64 << 30 for size in sizes)
        prices = [size.price for size in sizes if size.price is not None]
        assert prices[:1] == [min(prices)]
        [named, *_] = provider.offers(
            Requirements("named", 1, 1, types=(sizes[0].type,))
        )
        assert named.type == sizes[0].type

    def test_only_the_caller_reaches_ssh(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Nobody but this machine's address is let in at the ssh port."""
        box = provider.create(make_request())
        assert world.ssh_open_to(box.id, world.here)
        assert not world.ssh_open_to(box.id, STRANGER)

    def test_ssh_follows_the_caller(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Who has moved is let in from there, and no longer from before."""
        box = provider.create(make_request())
        assert not provider.allow_my_ip(box)
        before = world.here
        now = world.move()
        assert provider.allow_my_ip(box)
        assert world.ssh_open_to(box.id, now)
        assert not world.ssh_open_to(box.id, before)
        assert not world.ssh_open_to(box.id, STRANGER)
        assert not provider.allow_my_ip(box)

    def test_lost_answer_is_not_the_end(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """A box whose create call lost its answer is returned, and made once."""
        request = make_request()
        world.lose_next_answer()
        box = provider.create(request)
        assert world.lost == 1
        assert box.id == request.box
        assert list(provider.find(request.tags.owner)) == [box]
        provider.delete(box)
        assert not world.belongings(box.id)

    def test_firewalls_are_told_of(
        self, provider: Provider, world: World, make_request: Make
    ) -> None:
        """Each firewall is a leftover of its box, or a free thing of the owner's."""
        box = provider.create(make_request())
        walls = world.walls(box.tags.owner)
        assert walls
        told = {left.id for left in provider.leftovers(box.id)}
        told |= {resource.id for resource in provider.free_objects(box.tags.owner)}
        assert walls <= told
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
    """Remove what costs nothing and nobody uses, as a teardown does."""
    for resource in provider.free_objects(owner, gone):
        if not resource.why:
            provider.remove_free(owner, resource)


def _foreign(tags: Tags) -> Tags:
    return dataclasses.replace(tags, owner="somebody-else")
