"""The record of a box: complete or empty, never wrong."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from onebox.errors import StateError
from onebox.store.box_store import BoxStore
from onebox.store.record import Record
from tests.store.processes import names


def test_record_without_a_file_is_empty_and_creates_none(tmp_path: Path) -> None:
    """Without a file the record is empty, and reading creates none."""
    assert Record() == BoxStore(tmp_path / "x").record
    assert not (tmp_path / "x").exists()


def test_record_survives_writing_and_reading(store: BoxStore) -> None:
    """Every field of an update is there for the next command."""
    values: dict[Any, Any] = {
        str: "ü\n\0",
        float: 0.1,
        bool: True,
        type(None): 2.5,
    }
    every = {
        name: values[type(default)]
        for name, default in asdict(Record()).items()
        if name != "unknown"
    }
    store.update(**every)

    assert Record(**every) == BoxStore(store.directory).record


def test_update_changes_only_the_given_fields(store: BoxStore) -> None:
    """Other fields of the record stay."""
    store.update(job="j1")

    assert Record(box="ob-first", hourly=1.5, job="j1") == store.record


def test_update_keeps_keys_of_other_versions(store: BoxStore) -> None:
    """Keys that this version does not know stay in the file."""
    path = store.directory / "state.json"
    data = json.loads(path.read_bytes()) | {"later": [1, {"a": None}], "unknown": 1}
    path.write_text(json.dumps(data))
    store.update(job="j1")

    after = json.loads(path.read_bytes())
    assert ([1, {"a": None}], 1, "j1") == (
        after["later"],
        after["unknown"],
        after["job"],
    )


def test_forget_leaves_an_empty_record(store: BoxStore) -> None:
    """The record is empty after `forget`."""
    store.forget()

    assert Record() == BoxStore(store.directory).record


def test_record_of_a_newer_version_is_not_used_and_not_changed(store: BoxStore) -> None:
    """The record counts as empty, and all changes are refused."""
    path = store.directory / "state.json"
    path.write_text('{"format": 2, "box": ["of", "another", "shape"]}')
    before = path.read_bytes()

    assert Record() == store.record
    for change in (
        lambda: store.update(box="x"),
        store.forget,
        lambda: store.lock("inv run"),
    ):
        with pytest.raises(StateError, match="newer onebox"):
            change()
    assert before == path.read_bytes()
    assert ["state.json"] == names(store.directory)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": "x"}',
        b'{"format": null}',
        b'{"format": true}',
        b'{"box": 5}',
        b'{"box": null}',
        b'{"hourly": "1.5"}',
        b'{"deadline": "soon"}',
        b'{"created": true}',
        b'{"temporary": 1}',
    ],
)
def test_damaged_record_is_moved_aside_and_counts_as_empty(
    store: BoxStore, damage: bytes
) -> None:
    """An invalid file is kept under another name, with a warning."""
    path = store.directory / "state.json"
    warnings: list[str] = []
    reader = BoxStore(store.directory, warnings.append)
    for n in (1, 2):
        path.write_bytes(damage)
        assert Record() == reader.record
        superseded = path.with_name(f"state.json.corrupt-{n}")
        assert damage == superseded.read_bytes()
        assert n == len(warnings)
        assert superseded.name in warnings[-1]
    assert "ob-new" == reader.update(box="ob-new").box
    assert 2 == len(warnings)


def test_partial_record_file_is_never_read_as_a_record(store: BoxStore) -> None:
    """Whatever part of the file is left, the record is complete or empty."""
    path = store.directory / "state.json"
    whole, right = path.read_bytes(), store.record
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert Record() == store.record, cut
        path.with_name("state.json.corrupt-1").unlink()
    path.write_bytes(whole)
    assert right == store.record


def test_unreadable_record_raises_an_error(store: BoxStore) -> None:
    """An existing file that cannot be read is a StateError, not an empty record."""
    path = store.directory / "state.json"
    path.unlink()
    path.mkdir()
    with pytest.raises(StateError, match=r"state\.json"):
        _ = store.record
