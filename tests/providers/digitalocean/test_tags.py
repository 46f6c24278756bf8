"""What is written into DigitalOcean's plain tags is read back as it was."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebox.errors import ProviderError
from onebox.providers.base import BootConfig, HostKey, Image, Offer, Request, Tags
from onebox.providers.digitalocean import metadata

KEY = metadata.key_text("0f" * 32)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
TIMES = st.floats(0, 4e9)
PRICES = st.none() | st.floats(1e-6, 1e4)
WORD = re.compile(r"[a-z0-9_:-]{1,255}")


@given(NAMES, NAMES, NAMES, NAMES, NAMES, TIMES, PRICES, PRICES)
def test_box(
    owner: str,
    project: str,
    name: str,
    version: str,
    size: str,
    expires: float,
    price: float | None,
    on_demand: float | None,
) -> None:
    """Whatever the names and numbers: legal tags, in any case, say the same again."""
    made = Tags(owner, project, name, expires, version, kind="builder")
    request = Request(
        "ob-1",
        made,
        Offer(size, "c-4", 4, 8 << 30, price, on_demand),
        None,
        "ssh-ed25519 AAAA",
        HostKey("private", KEY),
        BootConfig(expires, 1, 1, b""),
    )
    words = metadata.of_box(request)
    assert all(WORD.fullmatch(word) for word in words)
    for variant in (words, [word.upper() for word in words], words[::-1]):
        marks = metadata.read([*variant, "web", "onebox-colour:red"])
        assert marks is not None
        assert (marks.box, marks.tags, marks.size) == ("ob-1", made, size)
        assert (marks.price, marks.on_demand) == (price, on_demand)
        assert (marks.bootstrap_key, marks.pinned) == (KEY, "")


@given(NAMES, NAMES, NAMES, st.text("0123456789abcdef", max_size=16), TIMES)
def test_image(owner: str, name: str, id: str, recipe: str, expires: float) -> None:
    """All of an image is in one legal tag, or it is refused."""
    made = Tags(owner, "p", "n", expires, "0.1", kind="image")
    image = Image(id, name, recipe, 0.0, 0, "x86_64", made, base="debian-12-x64 17")
    try:
        word = metadata.of_image(image)
    except ProviderError as error:
        assert "too long" in error.message
        return
    assert WORD.fullmatch(word)
    assert metadata.read_image(["web", word.upper()]) == image


@pytest.mark.parametrize("missing", ["owner", "project", "name", "kind", "box"])
def test_incomplete(missing: str) -> None:
    """A droplet that lacks one of the tags that say whose it is is none of ours."""
    words = [
        "onebox-owner:o",
        "onebox-project:p",
        "onebox-name:n",
        "onebox-kind:box",
        "onebox-box:b",
        "onebox-expires:12_2e5",
    ]
    marks = metadata.read(words)
    assert marks is not None
    assert marks.tags.expires == 12.5
    assert metadata.read([w for w in words if missing not in w]) is None
    assert metadata.read([w.replace("kind:box", "kind:cat") for w in words]) is None


def test_two_host_keys() -> None:
    """The key that the box has given itself counts, not the one it was made with."""
    words = ["owner", "project", "name", "box", "expires"]
    base = [f"onebox-{word}:1" for word in words] + ["onebox-kind:box"]
    old, new = "aa" * 32, "bb" * 32
    marks = metadata.read([*base, f"onebox-exposed:{old}", f"onebox-hostkey:{new}"])
    assert marks is not None
    assert marks.bootstrap_key == metadata.key_text(old)
    assert marks.pinned == metadata.key_text(new)


@pytest.mark.parametrize("key", ["", "ssh-ed25519", "ssh-rsa AAAAB3NzaC1yc2E=", "a b!"])
def test_no_key(key: str) -> None:
    """What is no ed25519 key is refused, not mangled."""
    with pytest.raises(ProviderError, match="no ed25519"):
        metadata.key_bytes(key)


def test_long_name() -> None:
    """A name that no tag can hold is refused."""
    with pytest.raises(ProviderError, match="too long"):
        metadata.tag("name", "x" * 256)


def test_same_size() -> None:
    """A size keeps the price of the day it was taken."""
    size = Offer("c-4", "c-4", 4, 8, 9.0, 9.0)
    marks = metadata.read(
        [
            *(f"onebox-{key}:1" for key in ("owner", "project", "name", "box")),
            "onebox-kind:box",
            "onebox-expires:1",
            "onebox-size:small",
            "onebox-price:0_2e5",
        ]
    )
    assert marks is not None
    kept = dataclasses.replace(size, name="small", price=0.5, on_demand=None)
    assert metadata.same_size(marks, size) == kept
