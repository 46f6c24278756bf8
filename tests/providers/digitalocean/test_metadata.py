"""Values survive the limited characters of DigitalOcean's tags."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.errors import ProviderError
from onebox.providers.digitalocean import metadata
from onebox.providers.values import BootConfig, HostKey, Image, Offer, Request, Tags

from ..boxes import public_key

KEY = public_key(15)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
TIMES = st.floats(0, 4e9)
PRICES = st.none() | st.floats(1e-6, 1e4)
WORD = re.compile(r"[a-z0-9_:-]{1,255}")
IDENTITY = ("owner", "project", "name", "box")
TAGGED = [
    "onebox-managed",
    *(f"onebox-{key}:1" for key in IDENTITY),
    "onebox-kind:box",
    "onebox-expires:12_2e5",
]


@given(NAMES, NAMES, NAMES, NAMES, NAMES, TIMES, PRICES, PRICES)
def test_tags_in_any_case_and_order_are_read_as_they_were_written(
    owner: str,
    project: str,
    name: str,
    version: str,
    size: str,
    deadline: float,
    price: float | None,
    on_demand: float | None,
) -> None:
    """Whatever the names and numbers are, the tags are legal and read back."""
    tags = Tags(owner, project, name, deadline, version, kind="builder")
    request = Request(
        "ob-1",
        tags,
        Offer(size, "c-4", 4, 8 << 30, price, on_demand),
        None,
        "ssh-ed25519 AAAA",
        HostKey("private", KEY),
        BootConfig(deadline, 1, 1, b""),
    )
    words = metadata.of_box(request)
    assert all(WORD.fullmatch(word) for word in words)
    for variant in (words, [word.upper() for word in words], words[::-1]):
        stored = metadata.read([*variant, "web", "onebox-colour:red"])
        assert stored is not None
        assert (stored.box, stored.tags, stored.offer.name) == ("ob-1", tags, size)
        assert (stored.offer.machine_price, stored.offer.machine_on_demand) == (
            price,
            on_demand,
        )
        assert (stored.host_key, stored.bootstrap_key) == (KEY, True)


@given(NAMES, NAMES, NAMES, st.text("0123456789abcdef", max_size=16), TIMES)
def test_an_image_is_one_legal_tag_or_is_refused(
    owner: str, name: str, id: str, recipe: str, deadline: float
) -> None:
    """All that describes an image fits into one tag, or the image is refused."""
    tags = Tags(owner, "p", "n", deadline, "0.1", kind="image")
    image = Image(id, name, recipe, 0.0, 0, "x86_64", tags, base="debian-12-x64 17")
    try:
        word = metadata.of_image(image)
    except ProviderError as error:
        assert "too long" in error.message
        return
    assert WORD.fullmatch(word)
    assert metadata.read_image(["web", word.upper()]) == image


@pytest.mark.parametrize(
    "missing", [*IDENTITY, "kind", "expires", "managed"], ids=lambda key: f"{key}"
)
def test_a_droplet_without_one_of_its_identity_tags_is_not_onebox_s(
    missing: str,
) -> None:
    """A droplet whose owner, box or deadline is not recorded is not read as a box."""
    stored = metadata.read(TAGGED)
    assert stored is not None
    assert stored.tags.deadline == 12.5
    prefix = f"onebox-{missing}"
    assert metadata.read([w for w in TAGGED if not w.startswith(prefix)]) is None
    assert metadata.read([w.replace("kind:box", "kind:cat") for w in TAGGED]) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_the_key_that_the_box_made_itself_replaces_the_bootstrap_key(
    reverse: bool,
) -> None:
    """A rotation that was interrupted between two tag calls still counts."""
    old, new = public_key(10), public_key(11)
    words = [metadata.tag("bootstrap-key", old), metadata.tag("hostkey", new)]
    stored = metadata.read([*TAGGED, *(words[::-1] if reverse else words)])
    assert stored is not None
    assert (stored.host_key, stored.bootstrap_key) == (new, False)


@given(st.binary(min_size=32, max_size=32))
def test_every_host_key_fits_into_a_tag(seed: bytes) -> None:
    """However many capitals a key has, its tag is legal and reads back."""
    for fill in {*seed, 0xFB, 0xFF}:
        word = metadata.tag("bootstrap-key", public_key(fill))
        assert WORD.fullmatch(word)
        assert metadata.unescape(word.partition(":")[2]) == public_key(fill)


def test_a_name_that_no_tag_can_hold_is_refused() -> None:
    """A name is never cut: two boxes could share the rest."""
    with pytest.raises(ProviderError, match="too long"):
        metadata.tag("name", "x" * 256)


def test_an_offer_keeps_the_price_of_the_day_the_box_was_created() -> None:
    """Prices come from the tags; an unknown one stays unknown."""
    offer = Offer("c-4", "c-4", 4, 8, 9.0, 9.0)
    stored = metadata.read([*TAGGED, "onebox-size:small", "onebox-price:0_2e5"])
    assert stored is not None
    kept = dataclasses.replace(
        offer, name="small", machine_price=0.5, machine_on_demand=None
    )
    assert metadata.with_stored_price(stored, offer) == kept
