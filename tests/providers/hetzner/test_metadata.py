"""Labels can store any text."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from onebox.providers.hetzner.metadata import from_labels, selector, to_labels

VALUE = re.compile(r"([a-zA-Z0-9]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?)?")
KEY = re.compile(r"[a-z0-9A-Z]([-_.a-z0-9A-Z]*[a-z0-9A-Z])?")


@given(
    st.dictionaries(
        st.sampled_from(["box", "hostkey", "image", "image-name"]), st.text(max_size=60)
    )
)
def test_pairs_are_read_as_they_were_written(pairs: dict[str, str]) -> None:
    """The API accepts the labels of every text."""
    labels = to_labels(pairs)
    assert from_labels({**labels, "team": "blue"}) == pairs
    for key, value in labels.items():
        assert len(key) <= 63 and len(value) <= 63
        assert KEY.fullmatch(key) and VALUE.fullmatch(value)


def test_a_long_value_takes_several_labels() -> None:
    """A selector names all of them, and the label of every object of onebox."""
    labels = to_labels({"hostkey": "ssh-ed25519 " + "A" * 60})
    assert list(labels) == ["onebox-hostkey", "onebox-hostkey.1"]
    assert selector(hostkey="ssh-ed25519 " + "A" * 60).count(",") == 2
    assert from_labels(None) == {}
