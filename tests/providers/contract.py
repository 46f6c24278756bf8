"""What every provider must do: a provider's tests subclass `ProviderContract`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import pytest

from onebox.errors import NotAllowed, ProviderError
from onebox.providers.base import Image, Need, Provider, Request, Tags

Make = Callable[..., Request]


class ProviderContract:
    """
    The behaviour suite of `onebox.providers.base.Provider`.

    A subclass gives the fixtures `provider` and `make_request` (a function that
    returns a new request; keywords replace its fields).

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
        sizes = provider.sizes(Need("small", 1, 1 << 20))
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
        assert box.deadline == request.arming.deadline
        assert box.size == request.size
        assert box.image == ""

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

    def test_delete(self, provider: Provider, make_request: Make) -> None:
        """A deleted box is gone, with all that was made for it."""
        request = make_request()
        box = provider.create(request)
        assert provider.leftovers(box.id)
        provider.delete(box)
        assert provider.get(box.id) is None
        assert not provider.leftovers(box.id)
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

    def test_free_things_go_with_the_last_box(
        self, provider: Provider, make_request: Make
    ) -> None:
        """What costs nothing stays while a box uses it, and can be removed after."""
        box = provider.create(make_request())
        owner = box.tags.owner
        for thing in provider.free_things(owner):
            assert box.id in thing.why
            with pytest.raises(ProviderError):
                provider.remove_free(owner, thing)
        provider.delete(box)
        remove_free_things(provider, owner, box.id)
        assert not provider.free_things(owner, [box.id])

    def test_free_things_of_another_stay(
        self, provider: Provider, make_request: Make
    ) -> None:
        """What is another owner's is not told of to us, and not removed for us."""
        request = make_request()
        foreign = provider.create(
            dataclasses.replace(request, tags=_foreign(request.tags))
        )
        owner = request.tags.owner
        assert not provider.free_things(owner, [foreign.id], everywhere=True)
        before = provider.free_things(foreign.tags.owner)
        for thing in before:
            with pytest.raises(NotAllowed):
                provider.remove_free(owner, thing)
        assert provider.free_things(foreign.tags.owner) == before
        provider.delete(foreign)
        remove_free_things(provider, foreign.tags.owner, foreign.id)

    def test_stop_and_start(self, provider: Provider, make_request: Make) -> None:
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

    def test_image(self, provider: Provider, make_request: Make) -> None:
        """A stopped box can be saved; the image is found and boots a box."""
        request = make_request()
        box = provider.create(request)
        provider.stop(box)
        wanted = an_image(request)
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


def an_image(request: Request, name: str = "image") -> Image:
    """Return what a caller wants a box of this request saved as."""
    return Image(
        id=f"im-{request.box}",
        name=name,
        recipe="0123456789abcdef",
        created=0.0,
        size=0,
        arch="",
        tags=dataclasses.replace(request.tags, kind="image"),
    )


def remove_free_things(provider: Provider, owner: str, *gone: str) -> None:
    """Remove what costs nothing and nobody uses, as a teardown does."""
    for thing in provider.free_things(owner, gone):
        if not thing.why:
            provider.remove_free(owner, thing)


def _foreign(tags: Tags) -> Tags:
    return dataclasses.replace(tags, owner="somebody-else")
