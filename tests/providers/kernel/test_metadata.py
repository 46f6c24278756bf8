"""Metadata of boxes as text pairs, and the check of who owns an object."""

from __future__ import annotations

import dataclasses
import re
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.errors import NotAllowed, ProviderError
from onebox.providers.costs import Cost
from onebox.providers.kernel.alphabet import Alphabet
from onebox.providers.kernel.metadata import (
    BoxMetadata,
    check_owner,
    check_same_owner,
    identity,
)
from onebox.providers.values import Offer, Tags

WORDS = st.text(string.printable.strip(), min_size=1, max_size=12)
SECONDS = st.floats(1, 4e9)
PRICES = st.none() | st.floats(1e-6, 1e4)
LOWER = string.ascii_lowercase + string.digits + "-"
TAGS = Tags("owner", "project", "main", 12.5, "0.1")

METADATA = st.builds(
    BoxMetadata,
    box=WORDS,
    tags=st.builds(
        Tags,
        owner=WORDS,
        project=WORDS,
        name=WORDS,
        deadline=SECONDS,
        version=WORDS,
        kind=st.sampled_from(["box", "builder", "image"]),
    ),
    offer=st.builds(
        Offer,
        name=WORDS,
        type=WORDS,
        cpus=st.integers(1, 999),
        memory=st.integers(1, 1 << 50),
        machine_price=PRICES,
        machine_on_demand=PRICES,
        spot=st.booleans(),
        place=st.just(""),
        cores=st.none() | st.integers(1, 999),
        arch=st.sampled_from(["", "x86_64", "aarch64"]),
        extras=st.just((Cost("100 GB disk", 0.01), Cost("public IPv4", None))),
        priced=st.just(0.0),
    ),
    image=st.just("") | WORDS,
    host_key=WORDS,
    bootstrap_key=st.booleans(),
    deadline=SECONDS,
    user_key=st.just("") | WORDS,
    setup_grace=SECONDS,
    idle_grace=SECONDS,
    system=st.just("") | WORDS,
    notes=st.lists(WORDS, max_size=3).map(tuple),
    no_alarm=st.booleans(),
    swapping=st.booleans(),
    rescue=st.booleans(),
)


@given(METADATA)
def test_metadata_is_read_from_its_pairs_as_it_was_written(box: BoxMetadata) -> None:
    """A box can be read back completely from the cloud alone."""
    pairs = box.to_pairs()
    assert all(pairs.values())
    assert BoxMetadata.from_pairs({**pairs, "colour": "red"}) == box


@given(METADATA)
def test_a_new_deadline_is_in_the_tags_too(box: BoxMetadata) -> None:
    """A search for expired boxes must not find a box that was started again."""
    later = box.with_deadline(5e9)
    assert (later.deadline, later.tags.deadline) == (5e9, 5e9)
    assert BoxMetadata.from_pairs(later.to_pairs()) == later


@pytest.mark.parametrize(
    "missing", ["managed", "owner", "project", "name", "kind", "box"]
)
def test_an_object_without_a_provable_owner_is_not_onebox_s(missing: str) -> None:
    """Nothing is read from an object that lacks a part of the identity."""
    pairs = identity(TAGS, "ob-1")
    assert BoxMetadata.from_pairs(pairs) is not None
    del pairs[missing]
    assert BoxMetadata.from_pairs(pairs) is None
    assert BoxMetadata.from_pairs({**identity(TAGS, "ob-1"), "kind": "cat"}) is None


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "x", ""])
def test_a_number_that_is_not_finite_is_unknown(text: str) -> None:
    """A changed tag can never make a box cost or live forever."""
    pairs = {**identity(TAGS, "ob-1"), "price": text, "deadline": text}
    box = BoxMetadata.from_pairs({**pairs, "expires": "12.5"})
    assert box is not None
    assert (box.offer.machine_price, box.deadline) == (None, 12.5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"owner": "other"}, "owner"),
        ({"project": "other"}, "project"),
        ({"name": "other"}, "name"),
        ({"kind": "builder"}, "kind"),
    ],
)
def test_an_object_of_another_identity_is_not_touched(
    change: dict[str, Any], named: str
) -> None:
    """The message names what differs."""
    other = identity(dataclasses.replace(TAGS, **change), "ob-1")
    with pytest.raises(NotAllowed, match=f"another {named} .*was not touched"):
        check_owner("droplet 7", other, identity(TAGS, "ob-1"))


@pytest.mark.parametrize("missing", list(identity(TAGS, "ob-1")))
def test_an_object_that_lacks_a_pair_is_not_touched(missing: str) -> None:
    """An owner that is not recorded is not the owner that is expected."""
    expected = identity(TAGS, "ob-1")
    found = {key: value for key, value in expected.items() if key != missing}
    with pytest.raises(NotAllowed, match="was not touched"):
        check_owner("droplet 7", found, expected)


def test_the_identity_of_a_box_includes_its_id() -> None:
    """Two boxes may have the same name, one after the other."""
    expected = identity(TAGS, "ob-1")
    check_owner("droplet 7", {**expected, "colour": "red"}, expected)
    with pytest.raises(NotAllowed, match="another box"):
        check_owner("droplet 7", identity(TAGS, "ob-2"), expected)
    with pytest.raises(NotAllowed):
        check_owner("droplet 7", None, expected)
    check_owner("droplet 7", identity(TAGS, "ob-2"), identity(TAGS))


def test_an_object_that_all_boxes_share_belongs_to_one_owner() -> None:
    """A firewall rule or an ssh key of another owner stays."""
    check_same_owner("rule r", "owner", "owner")
    for other in ("", "other"):
        with pytest.raises(NotAllowed, match="rule r"):
            check_same_owner("rule r", other, "owner")


@given(st.text(max_size=80), st.sampled_from([LOWER, string.printable[:62] + " +./"]))
def test_every_text_survives_every_alphabet(text: str, plain: str) -> None:
    """Encoding loses nothing, and uses no other character than it may."""
    for escape in "_=":
        alphabet = Alphabet(plain, escape, 1000)
        coded = alphabet.encode(text)
        assert set(coded) <= {*plain, escape}
        assert alphabet.decode(coded) == text


def test_a_text_that_is_too_long_is_refused_or_cut_with_a_hash() -> None:
    """Two texts with the same beginning never become the same."""
    with pytest.raises(ProviderError, match="too long"):
        Alphabet(LOWER, "_", 63).encode("x" * 64)
    cut = Alphabet(LOWER, "_", 63, shorten=True)
    one, other = cut.encode("x" * 64), cut.encode("x" * 65)
    assert one != other
    assert re.fullmatch(r"x{40}_h[0-9a-f]{20}", one)
    assert cut.decode(one) == "x" * 40
