from __future__ import annotations

import dataclasses
import re
import string

from hypothesis import given
from hypothesis import strategies as st

from onebox.providers.base import Tags
from onebox.providers.gcp import metadata

ANY = st.text(max_size=80)
TAGS = st.builds(
    Tags,
    owner=ANY,
    project=ANY,
    name=ANY,
    expires=st.floats(0, 1e11, allow_nan=False),
    version=ANY,
    kind=st.sampled_from(["box", "builder", "image"]),
)


@given(ANY)
def test_legal(text: str) -> None:
    """Whatever a text holds, its label is one that Google takes."""
    assert re.fullmatch(r"[-_a-z0-9]{0,63}", metadata.encoded(text))


@given(ANY, ANY)
def test_different(one: str, other: str) -> None:
    """Different texts have different labels."""
    assert (metadata.encoded(one) == metadata.encoded(other)) == (one == other)


@given(st.text(alphabet=string.printable, max_size=20))
def test_readable(text: str) -> None:
    """A label of a text that is short enough can be read back."""
    assert metadata.decoded(metadata.encoded(text)) == text


@given(TAGS)
def test_tags(tags: Tags) -> None:
    """Tags are read from labels and record as they were written."""
    told = metadata.read_record(metadata.record(tags))
    found = metadata.labels("ob-1", tags)
    assert metadata.tags(found, told) == tags
    assert metadata.belongs(found, "ob-1", tags)


@given(TAGS)
def test_record_is_not_believed(tags: Tags) -> None:
    """A record that says otherwise than the labels does not count."""
    other = dataclasses.replace(tags, owner=tags.owner + "x")
    told = metadata.read_record(metadata.record(other))
    found = metadata.tags(metadata.labels("ob-1", tags), told)
    assert found is not None
    assert found.owner != other.owner


@given(TAGS)
def test_belongs(tags: Tags) -> None:
    """Another owner, project, name or id is another box."""
    found = metadata.labels("ob-1", tags)
    assert not metadata.belongs(found, "ob-2", tags)
    for name in ("owner", "project", "name"):
        other = dataclasses.replace(tags, **{name: getattr(tags, name) + "x"})
        assert not metadata.belongs(found, "ob-1", other)
    assert not metadata.belongs({}, "ob-1", tags)
