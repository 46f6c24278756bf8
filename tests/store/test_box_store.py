"""Any history of updates, intents and crashes leaves a correct store."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from onebox.store.box_store import BoxStore
from onebox.store.record import Record

text = st.text(max_size=20)


dollars = st.none() | st.floats(0, 1e6)


changes = st.fixed_dictionaries(
    {},
    optional={
        "box": text,
        "job": text,
        "hourly": dollars,
        "deadline": st.floats(0, 1e10),
        "temporary": st.booleans(),
    },
)


class StoreHistory(RuleBasedStateMachine):
    """Updates, intents and crashes in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="onebox-"))
        self.crashes = 0
        self.store = BoxStore(self.base / "0")
        self.expected = Record()
        self.open: list[str] = []
        self.count = 0

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    @rule(what=changes)
    def update(self, what: dict[str, Any]) -> None:
        """Update the record."""
        self.store.update(**what)
        self.expected = Record(**{**asdict(self.expected), **what})

    @rule()
    def forget(self) -> None:
        """Forget the box."""
        self.store.forget()
        self.expected = Record()

    @rule(how=st.sampled_from(["done", "failed", "undone"]))
    def begin_intent(self, how: str) -> None:
        """Begin an intent, and end it in one of three ways."""
        self.count += 1
        name = str(self.count)
        try:
            with self.store.intent("create", box=name) as outcome:
                outcome.undone = how == "undone"
                if how != "done":
                    raise KeyError
        except KeyError:
            if how == "failed":
                self.open.append(name)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close_intent(self, data: st.DataObject) -> None:
        """Close an open intent, as a later command does."""
        name = data.draw(st.sampled_from(self.open))
        (intent,) = [i for i in self.store.open_intents() if i.box == name]
        self.store.close_intent(intent, "closed")
        self.open.remove(name)

    @rule(draft=st.binary(max_size=20))
    def crash(self, draft: bytes) -> None:
        """Continue with what is on the disk, perhaps with a draft."""
        self.crashes += 1
        place = self.base / str(self.crashes)
        if self.store.directory.exists():
            shutil.copytree(self.store.directory, place)
            (place / ".state.json-abcdef").write_bytes(draft)
        self.store = BoxStore(place)

    @rule(part=st.floats(0, 1))
    def crash_during_intent(self, part: float) -> None:
        """Cut the line of an intent: without its end the body has not begun."""
        journal = self.store.directory / "journal"
        before = journal.stat().st_size if journal.exists() else 0
        self.begin_intent("failed")
        added = journal.stat().st_size - before
        kept = round(part * added)
        os.truncate(journal, before + kept)
        if kept < added - 1:
            self.open.pop()
        self.crash(b"")

    @precondition(lambda self: (self.store.directory / "state.json").exists())
    @rule(part=st.floats(0, 0.99))
    def damage_record(self, part: float) -> None:
        """Cut off the end of the record."""
        path = self.store.directory / "state.json"
        os.truncate(path, int(part * path.stat().st_size))
        self.expected = Record()

    @invariant()
    def equals_the_model(self) -> None:
        """Record and open intents are equal to the model."""
        assert self.expected == self.store.record
        assert self.open == [intent.box for intent in self.store.open_intents()]


TestStoreHistory = StoreHistory.TestCase


TestStoreHistory.settings = settings(max_examples=25, stateful_step_count=15)
