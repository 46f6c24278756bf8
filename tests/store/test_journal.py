"""The journal of intents: no line is lost, and no damaged line is used."""

from __future__ import annotations

import time

import pytest

from onebox.errors import StateError
from onebox.store.box_store import BoxStore
from tests.store.processes import (
    file_size_limit,
    leave_intent_open,
    output_of,
    start_python,
)


def test_intent_is_on_the_disk_before_its_body_runs(store: BoxStore) -> None:
    """An intent is written before its body runs, and closed afterwards."""
    before = time.time()
    with store.intent("create", box="ob-1", size="m7i.large"):
        (seen,) = BoxStore(store.directory).open_intents()
        assert ("create", "ob-1", "m7i.large") == (
            seen.action,
            seen.box,
            seen.details["size"],
        )
        assert before <= seen.at <= time.time()
    assert [] == store.open_intents()


def test_failed_body_leaves_its_intent_open_unless_it_was_undone(
    store: BoxStore,
) -> None:
    """
    A body that fails leaves its intent open, unless it marks the outcome as
    undone.
    """
    leave_intent_open(store, "create", box="ob-1")
    with pytest.raises(KeyError), store.intent("create", box="ob-2") as outcome:
        outcome.undone = True
        raise KeyError

    assert ["ob-1"] == [intent.box for intent in store.open_intents()]


def test_open_intents_are_listed_oldest_first_until_closed(store: BoxStore) -> None:
    """A closed intent is no longer listed."""
    for box in ("ob-1", "ob-2", "ob-3"):
        leave_intent_open(store, "create", box=box)
    _, second, _ = store.open_intents()
    store.close_intent(second, "removed")

    assert ["ob-1", "ob-3"] == [i.box for i in store.open_intents()]


def test_journal_cut_anywhere_keeps_earlier_and_later_lines(store: BoxStore) -> None:
    """Lines before a cut count, and so do lines that are written after it."""
    path = store.directory / "journal"
    ends: list[tuple[int, list[str]]] = [(0, [])]

    def note() -> None:
        boxes = [str(intent.box) for intent in store.open_intents()]
        ends.append((path.stat().st_size, boxes))

    leave_intent_open(store, "create", box="ob-1")
    note()
    leave_intent_open(store, "delete", box="ob-2")
    note()
    store.close_intent(store.open_intents()[0], "closed")
    note()
    leave_intent_open(store, "create", box="ob-3 ü")
    note()
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        # A line counts even if only its newline is missing.
        expected = next(boxes for end, boxes in reversed(ends) if end <= cut + 1)
        found = [intent.box for intent in store.open_intents()]
        assert expected == found, cut
        if cut % 7 == 0:
            leave_intent_open(store, "create", box="after")
            found = [intent.box for intent in store.open_intents()]
            assert [*expected, "after"] == found, cut


def test_journal_line_with_a_changed_byte_is_ignored(store: BoxStore) -> None:
    """A line whose bytes have changed on the disk is not used."""
    path = store.directory / "journal"
    leave_intent_open(store, "create", box="ob-1")
    leave_intent_open(store, "create", box="ob-2")
    whole = path.read_bytes()
    for place in range(whole.index(b"\n")):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        found = [intent.box for intent in store.open_intents()]
        assert ["ob-2"] == found, place


def test_two_processes_can_write_one_journal(store: BoxStore) -> None:
    """If two processes write one journal, no line of either is lost."""
    code = (
        "import sys; from pathlib import Path; from onebox.store.box_store import "
        "BoxStore\n"
        "store = BoxStore(Path(sys.argv[1]))\n"
        "for n in range(40):\n"
        "    try:\n"
        "        with store.intent('create', box=f'{sys.argv[2]}-{n}', y='x'*n):\n"
        "            if n % 2: raise KeyError\n"
        "    except KeyError: pass\n"
    )
    both = [start_python(code, store.directory, name) for name in "ab"]
    for process in both:
        output_of(process)

    found = [intent.box for intent in store.open_intents()]
    assert {f"{name}-{n}" for name in "ab" for n in range(1, 40, 2)} == set(found)
    assert 40 == len(found)


def test_intent_that_cannot_be_written_completely_does_not_begin(
    store: BoxStore,
) -> None:
    """If the disk has no space for the whole line, the body does not run."""
    leave_intent_open(store, "create", box="ob-1")
    size = (store.directory / "journal").stat().st_size
    for room in (0, 1, 40):
        with (
            file_size_limit(size + room),
            pytest.raises(StateError, match="journal"),
        ):
            with store.intent("create", box="ob-2", pad="x" * 100):
                pytest.fail("begun")
        assert ["ob-1"] == [i.box for i in store.open_intents()]
        size = (store.directory / "journal").stat().st_size
    leave_intent_open(store, "create", box="ob-3")
    assert ["ob-1", "ob-3"] == [i.box for i in store.open_intents()]
