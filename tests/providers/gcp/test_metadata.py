"""Metadata of a box as labels and as a record in its metadata items."""

from __future__ import annotations

import dataclasses
import re
import string
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from onebox.providers.gcp import metadata
from onebox.providers.kernel.metadata import BoxMetadata
from onebox.providers.values import Offer, Tags

ANY = st.text(max_size=80)
TAGS = st.builds(
    Tags,
    owner=ANY,
    project=ANY,
    name=ANY,
    deadline=st.floats(0, 1e11, allow_nan=False),
    version=ANY,
    kind=st.sampled_from(["box", "builder", "image"]),
)


@given(ANY)
def test_the_label_of_any_text_is_legal(text: str) -> None:
    """A label has at most 63 characters of those that Google accepts."""
    assert re.fullmatch(r"[-_a-z0-9]{0,63}", metadata.encoded(text))


@given(ANY, ANY)
def test_different_texts_have_different_labels(one: str, other: str) -> None:
    """A text that is too long is cut, but a hash keeps its label unique."""
    assert (metadata.encoded(one) == metadata.encoded(other)) == (one == other)


@given(st.text(alphabet=string.printable, max_size=20))
def test_a_label_of_a_short_text_is_read_back(text: str) -> None:
    """Nothing is lost as long as the label is not cut."""
    assert metadata.decoded(metadata.encoded(text)) == text


def metadata_of(tags: Tags, box: str = "ob-1") -> BoxMetadata:
    """Return the metadata of a box with these tags."""
    offer = Offer("small", "n2-standard-4", 4, 16 << 30, 0.19, None)
    return BoxMetadata(box, tags, offer, "", "", False, tags.deadline)


def record(tags: Tags, box: str = "ob-1") -> dict[str, str]:
    """Return the pairs in the record of a box with these tags."""
    return metadata.read_record(metadata.box_record(metadata_of(tags, box)))


@given(TAGS)
def test_metadata_is_read_from_labels_and_record_as_it_was_written(tags: Tags) -> None:
    """The record keeps in full what a label cuts."""
    labels = metadata.labels("ob-1", tags)
    assert metadata.read(labels, record(tags)) == metadata_of(tags)
    assert metadata.read_tags(labels, record(tags)) == tags
    assert metadata.is_owned(labels, "ob-1", tags)


@given(TAGS)
def test_a_record_that_contradicts_the_labels_does_not_count(tags: Tags) -> None:
    """Only people of the project can change labels, so labels win."""
    other = dataclasses.replace(tags, owner=tags.owner + "x")
    found = metadata.read(metadata.labels("ob-1", tags), record(other, "ob-2"))
    assert found is not None
    assert found.tags.owner != other.owner
    assert found.box == "ob-1"


@given(TAGS)
def test_another_owner_project_name_kind_or_id_is_another_box(tags: Tags) -> None:
    """Every part of the identity is compared."""
    labels = metadata.labels("ob-1", tags)
    assert not metadata.is_owned(labels, "ob-2", tags)
    for name in ("owner", "project", "name"):
        other = dataclasses.replace(tags, **{name: getattr(tags, name) + "x"})
        assert not metadata.is_owned(labels, "ob-1", other)
    kind: Literal["box", "builder"] = "builder" if tags.kind == "box" else "box"
    other = dataclasses.replace(tags, kind=kind)
    assert not metadata.is_owned(labels, "ob-1", other)
    assert not metadata.is_owned({}, "ob-1", tags)
