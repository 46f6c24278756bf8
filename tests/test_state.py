"""What this machine remembers: never wrong, never torn, whatever happens to it."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from onebox.errors import Busy, StateError
from onebox.signals import Interrupted, signals_as_exceptions
from onebox.store.atomic_files import private_dir, write_atomically
from onebox.store.box_store import BoxStore
from onebox.store.identity import owner, random_id
from onebox.store.paths import config_dir, local_root, state_dir
from onebox.store.record import Record

ROOT = Path(__file__).parent.parent
STRACE = shutil.which("strace")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BoxStore]:
    """A notebook that has been written in once."""
    made = BoxStore(tmp_path / "state" / "census" / "main")
    made.update(box="ob-first", price=1.5)
    yield made
    made.unlock()


def begin(code: str, *words: object) -> subprocess.Popen[str]:
    """Start Python with some code; it is given *words* as sys.argv[1:]."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], said: str = "") -> str:
    """Return what a process prints until its end."""
    out, _ = process.communicate(said, timeout=60)
    return out


def open_intent(store: BoxStore, do: str, **what: Any) -> None:
    """Begin something and be interrupted in the middle of it."""
    with pytest.raises(KeyError), store.intent(do, **what):
        raise KeyError


def names(directory: Path) -> list[str]:
    """Return the names of what is in a directory."""
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond *size*: then a write is a short one, or fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestPlaces:
    @pytest.mark.parametrize(
        ("environ", "wanted"),
        [
            (
                {"HOME": "/h"},
                (
                    "/h/.local/state/onebox",
                    "/h/.config/onebox",
                    "/h/.local/share/onebox/local",
                ),
            ),
            (
                {
                    "HOME": "/h",
                    "XDG_STATE_HOME": "/s",
                    "XDG_CONFIG_HOME": "/c",
                    "XDG_DATA_HOME": "/d",
                },
                ("/s/onebox", "/c/onebox", "/d/onebox/local"),
            ),
            (
                {
                    "XDG_STATE_HOME": "/s",
                    "ONEBOX_STATE": "/a",
                    "ONEBOX_IDENTITY": "/b",
                    "ONEBOX_LOCAL_ROOT": "/c",
                },
                ("/a", "/b", "/c"),
            ),
        ],
    )
    def test_variables(self, environ: dict[str, str], wanted: tuple[str, ...]) -> None:
        """
        Our own variables come first, then XDG's, then the home directory.
        """
        found = (state_dir(environ), config_dir(environ), local_root(environ))

        assert wanted == tuple(map(str, found))


class TestOwner:
    def test_is_made_once(self, tmp_path: Path) -> None:
        """
        The owner's id is made once, in a form that every cloud's tags take.
        """
        made = owner(tmp_path / "config")

        assert 12 == len(made)
        assert set(made) <= set("abcdefghijklmnopqrstuvwxyz234567")
        assert made == owner(tmp_path / "config")
        assert ["owner"] == names(tmp_path / "config")

    def test_first_commands_agree(self, tmp_path: Path) -> None:
        """
        Several first commands at once end up with one owner.
        """
        code = (
            "import sys; from pathlib import Path; from onebox.store.identity import "
            "owner\n"
            "print('ready', flush=True); sys.stdin.readline()\n"
            "print(owner(Path(sys.argv[1])))"
        )
        commands = [begin(code, tmp_path / "config") for _ in range(4)]
        for command in commands:
            assert command.stdout is not None
            command.stdout.readline()
        for command in commands:
            assert command.stdin is not None
            command.stdin.write("\n")
            command.stdin.flush()

        assert {owner(tmp_path / "config")} == {ended(c).strip() for c in commands}

    def test_threads_agree(self, tmp_path: Path) -> None:
        """
        Two that have both found no owner keep the one that was there first.
        """
        rounds = [tmp_path / str(n) for n in range(20)]
        found: list[list[str]] = [[] for _ in rounds]
        start = threading.Barrier(4)

        def ask() -> None:
            for place, ids in zip(rounds, found):
                start.wait()
                ids.append(owner(place))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert all(4 == len(ids) and 1 == len(set(ids)) for ids in found)

    @pytest.mark.parametrize(
        "content", [b"", b"abc", b"\xff" * 12, b"ABCDEFGHIJKL", b"abcdefghijkl\nx"]
    )
    def test_damaged(self, tmp_path: Path, content: bytes) -> None:
        """
        A damaged id is never replaced in silence: boxes carry the old one.
        """
        (tmp_path / "owner").write_bytes(content)
        with pytest.raises(StateError, match="owner"):
            owner(tmp_path)

        assert content == (tmp_path / "owner").read_bytes()

    def test_no_place(self, tmp_path: Path) -> None:
        """
        A directory that cannot be made is a StateError that names it.
        """
        (tmp_path / "file").write_text("")
        with pytest.raises(StateError, match="file"):
            owner(tmp_path / "file" / "config")


class TestRecord:
    def test_nothing_yet(self, tmp_path: Path) -> None:
        """
        Without any file the record is empty, and looking makes none.
        """
        assert Record() == BoxStore(tmp_path / "x").record
        assert not (tmp_path / "x").exists()

    def test_round_trip(self, store: BoxStore) -> None:
        """
        What was noted is there for the next command, every field of it.
        """
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

    def test_the_rest_stays(self, store: BoxStore) -> None:
        """
        An update changes what it names and nothing else.
        """
        store.update(job="j1")

        assert Record(box="ob-first", price=1.5, job="j1") == store.record

    def test_unknown_keys_survive(self, store: BoxStore) -> None:
        """
        What another version has noted is kept, through updates.
        """
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

    def test_forget(self, store: BoxStore) -> None:
        """
        A box that is gone leaves an empty record.
        """
        store.forget()

        assert Record() == BoxStore(store.directory).record

    def test_newer_format(self, store: BoxStore) -> None:
        """
        A newer version's record is neither used nor touched: changes are refused.
        """
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
            b'{"price": "1.5"}',
            b'{"deadline": "soon"}',
            b'{"created": true}',
            b'{"temporary": 1}',
        ],
    )
    def test_damaged(self, store: BoxStore, damage: bytes) -> None:
        """
        A record that cannot be right is kept aside, said so, and counts as empty.
        """
        path = store.directory / "state.json"
        said: list[str] = []
        reader = BoxStore(store.directory, said.append)
        for n in (1, 2):
            path.write_bytes(damage)
            assert Record() == reader.record
            superseded = path.with_name(f"state.json.corrupt-{n}")
            assert damage == superseded.read_bytes()
            assert n == len(said)
            assert superseded.name in said[-1]
        assert "ob-new" == reader.update(box="ob-new").box
        assert 2 == len(said)

    def test_cut_at_every_byte(self, store: BoxStore) -> None:
        """
        Whatever part of the file is left, the record is the whole one or empty.
        """
        path = store.directory / "state.json"
        whole, right = path.read_bytes(), store.record
        for cut in range(len(whole)):
            path.write_bytes(whole[:cut])
            assert Record() == store.record, cut
            path.with_name("state.json.corrupt-1").unlink()
        path.write_bytes(whole)
        assert right == store.record

    def test_unreadable(self, store: BoxStore) -> None:
        """
        What is there and cannot be read is a StateError, not an empty record.
        """
        path = store.directory / "state.json"
        path.unlink()
        path.mkdir()
        with pytest.raises(StateError, match=r"state\.json"):
            _ = store.record


class TestPrivacy:
    def test_modes(self, tmp_path: Path) -> None:
        """
        Only this user can enter a directory of ours or read a file in it.
        """
        before = os.umask(0)
        try:
            owner(tmp_path / "a" / "config")
            store = BoxStore(tmp_path / "a" / "state" / "projects" / "x" / "main")
            store.update(box="b")
            open_intent(store, "create")
            store.lock("inv run")
            store.unlock()
        finally:
            os.umask(before)
        found = {
            (path.is_dir(), stat.S_IMODE(path.stat().st_mode))
            for path in (tmp_path / "a", *(tmp_path / "a").rglob("*"))
        }

        assert {(True, 0o700), (False, 0o600)} == found

    def test_others_are_left_alone(self, tmp_path: Path) -> None:
        """
        A directory that was there already keeps its mode.
        """
        tmp_path.chmod(0o755)
        private_dir(tmp_path / "ours")

        assert 0o755 == stat.S_IMODE(tmp_path.stat().st_mode)


class TestIntents:
    def test_open_until_done(self, store: BoxStore) -> None:
        """
        An intent is on the disk before its body runs, and closed after it.
        """
        with store.intent("create", box="ob-1", size="m7i.large"):
            (seen,) = BoxStore(store.directory).open_intents()
            assert ("create", "ob-1", "m7i.large") == (
                seen.action,
                seen.box,
                seen.details["size"],
            )
            assert abs(time.time() - seen.at) < 60
        assert [] == store.open_intents()

    def test_failed_body(self, store: BoxStore) -> None:
        """
        A body that fails leaves its intent open, unless nothing came of it.
        """
        open_intent(store, "create", box="ob-1")
        with pytest.raises(KeyError), store.intent("create", box="ob-2") as outcome:
            outcome.undone = True
            raise KeyError

        assert ["ob-1"] == [intent.box for intent in store.open_intents()]

    def test_dealt_with(self, store: BoxStore) -> None:
        """
        Open intents are told oldest first, until each has been dealt with.
        """
        for box in ("ob-1", "ob-2", "ob-3"):
            open_intent(store, "create", box=box)
        _, second, _ = store.open_intents()
        store.close_intent(second, "removed")

        assert ["ob-1", "ob-3"] == [i.box for i in store.open_intents()]

    def test_cut_at_every_byte(self, store: BoxStore) -> None:
        """
        What was on the disk before a tear counts, and what comes after it, too.
        """
        path = store.directory / "journal"
        ends: list[tuple[int, list[str]]] = [(0, [])]

        def note() -> None:
            boxes = [str(intent.box) for intent in store.open_intents()]
            ends.append((path.stat().st_size, boxes))

        open_intent(store, "create", box="ob-1")
        note()
        open_intent(store, "delete", box="ob-2")
        note()
        store.close_intent(store.open_intents()[0], "seen to")
        note()
        open_intent(store, "create", box="ob-3 ü")
        note()
        whole = path.read_bytes()
        for cut in range(len(whole) + 1):
            path.write_bytes(whole[:cut])
            # All but the newline of a line is enough to be sure of it.
            wanted = next(boxes for end, boxes in reversed(ends) if end <= cut + 1)
            found = [intent.box for intent in store.open_intents()]
            assert wanted == found, cut
            if cut % 7 == 0:
                open_intent(store, "create", box="after")
                found = [intent.box for intent in store.open_intents()]
                assert [*wanted, "after"] == found, cut

    def test_bytes_changed(self, store: BoxStore) -> None:
        """
        A line that a bad disk has changed is not believed.
        """
        path = store.directory / "journal"
        open_intent(store, "create", box="ob-1")
        open_intent(store, "create", box="ob-2")
        whole = path.read_bytes()
        for place in range(whole.index(b"\n")):
            changed = bytearray(whole)
            changed[place] ^= 1
            path.write_bytes(changed)
            found = [intent.box for intent in store.open_intents()]
            assert ["ob-2"] == found, place

    def test_two_processes(self, store: BoxStore) -> None:
        """
        Two processes write into one journal and no line of either is lost.
        """
        code = (
            "import sys; from pathlib import Path; from onebox.store.box_store import "
            "BoxStore\n"
            "book = BoxStore(Path(sys.argv[1]))\n"
            "for n in range(40):\n"
            "    try:\n"
            "        with book.intent('create', box=f'{sys.argv[2]}-{n}', y='x' * n):\n"
            "            if n % 2: raise KeyError\n"
            "    except KeyError: pass\n"
        )
        both = [begin(code, store.directory, name) for name in "ab"]
        for process in both:
            ended(process)

        found = [intent.box for intent in store.open_intents()]
        assert {f"{name}-{n}" for name in "ab" for n in range(1, 40, 2)} == set(found)
        assert 40 == len(found)

    def test_no_room_for_it(self, store: BoxStore) -> None:
        """
        Without room for the whole line nothing is begun, however much fitted.
        """
        open_intent(store, "create", box="ob-1")
        size = (store.directory / "journal").stat().st_size
        for room in (0, 1, 40):
            with largest_file(size + room), pytest.raises(StateError, match="journal"):
                with store.intent("create", box="ob-2", pad="x" * 100):
                    pytest.fail("begun")
            assert ["ob-1"] == [i.box for i in store.open_intents()]
            size = (store.directory / "journal").stat().st_size
        open_intent(store, "create", box="ob-3")
        assert ["ob-1", "ob-3"] == [i.box for i in store.open_intents()]


class TestLock:
    HOLD = (
        "import subprocess, sys; from pathlib import Path\n"
        "from onebox.store.box_store import BoxStore\n"
        "BoxStore(Path(sys.argv[1])).lock('inv run --vm=large')\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); sys.stdin.read()"
    )

    def test_second_process(self, store: BoxStore) -> None:
        """
        A second command is told who works on the box; it goes with that process.
        """
        holder = begin(self.HOLD, store.directory)
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(Busy) as busy:
                store.lock("inv teardown")
            said = busy.value.message
            assert said.startswith(
                f'busy: pid {holder.pid} "inv run --vm=large" since '
            )
            time.strptime(said.rpartition(" ")[2], "%H:%M:%S")
            assert 75 == busy.value.code
            # Looking, and noting an intent of one's own, needs no lock.
            assert "ob-first" == store.record.box

            holder.kill()
            holder.communicate()
            # What it had started lives on, and does not hold the box.
            os.kill(child, 0)
            store.lock("inv teardown")
            text = (store.directory / "lock").read_text()
            assert text.startswith(f'pid {os.getpid()} "inv teardown" since')
        finally:
            os.kill(child, signal.SIGKILL)

    def test_given_free(self, store: BoxStore) -> None:
        """
        A box that was given free can be taken by the next process.
        """
        store.lock("inv run")
        take = (
            "import sys; from pathlib import Path; from onebox.store.box_store import "
            "BoxStore\n"
            "BoxStore(Path(sys.argv[1])).lock('inv logs'); print('mine')"
        )
        store.unlock()

        assert "mine\n" == ended(begin(take, store.directory))

    def test_same_process(self, store: BoxStore) -> None:
        """
        One process may take one box through several notebooks.
        """
        store.lock("inv train")
        BoxStore(store.directory).lock("inv train")

        with pytest.raises(Busy):
            _lock_elsewhere(store.directory)

    def test_refused_by_the_disk(self, store: BoxStore) -> None:
        """
        Who could not write down that the box is theirs does not have it.
        """
        with pytest.raises(StateError, match="lock"), largest_file(0):
            store.lock("inv run")

        _lock_elsewhere(store.directory)
        store.lock("inv run")

    def test_interrupted(
        self, store: BoxStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Ctrl-C at the moment that the box is taken leaves none that cannot be freed.
        """

        def interrupted(fd: int, how: int) -> None:
            monkeypatch.undo()
            fcntl.flock(fd, how)
            signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr("onebox.store.lock.fcntl.flock", interrupted)
        with pytest.raises(Interrupted), signals_as_exceptions(str):
            store.lock("inv run")
        with pytest.raises(Busy):
            _lock_elsewhere(store.directory)
        store.unlock()

        _lock_elsewhere(store.directory)


def _lock_elsewhere(directory: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from onebox.store.box_store import "
        "BoxStore\n"
        "from onebox.errors import Busy\n"
        "try: BoxStore(Path(sys.argv[1])).lock('x')\n"
        "except Busy as busy: print(busy.message)"
    )
    said = ended(begin(code, directory)).strip()
    if said:
        raise Busy(said)


class TestCrash:
    UPDATE = (
        "import sys; from pathlib import Path; from onebox.store.box_store import "
        "BoxStore\n"
        "from onebox.errors import StateError\n"
        "try: BoxStore(Path(sys.argv[1])).update(box='ob-second', job='j' * 5000)\n"
        "except StateError as error: print(error.message)"
    )

    def _strace(self, store: BoxStore, how: str) -> tuple[int, str]:
        if STRACE is None:
            pytest.skip("there is no strace to stop a system call with")
        call = how.partition(":")[0]
        done = subprocess.run(
            [
                *(STRACE, "-f", "-o", "/dev/null"),
                *("-e", f"trace={call}", "-e", f"inject={how}"),
                *(sys.executable, "-B", "-c", self.UPDATE, str(store.directory)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if "ptrace" in done.stderr:
            pytest.skip(f"strace may not trace here: {done.stderr}")
        return done.returncode, done.stdout

    @pytest.mark.parametrize(
        ("call", "when", "new"),
        [
            ("fchmod", 1, False),
            ("write", 1, False),
            ("fsync", 1, False),
            ("renameat", 1, False),
            ("fsync", 2, True),
        ],
    )
    def test_killed_at_a_call(
        self, store: BoxStore, call: str, when: int, new: bool
    ) -> None:
        """
        A kill at any system call of an update leaves the old record or the new.
        """
        before = store.record
        code, _ = self._strace(store, f"{call}:signal=KILL:when={when}")

        assert -signal.SIGKILL == code
        if new:
            assert "ob-second" == store.record.box
        else:
            assert before == store.record
        assert "ob-third" == store.update(box="ob-third").box

    @pytest.mark.parametrize("call", ["write", "fsync"])
    def test_disk_full_at_a_call(self, store: BoxStore, call: str) -> None:
        """
        A disk without room leaves the old record, and is named in one sentence.
        """
        before = store.record
        code, said = self._strace(store, f"{call}:error=ENOSPC:when=1")

        assert 0 == code
        assert "No space left on device" in said
        assert before == store.record
        assert ["state.json"] == names(store.directory)

    def test_no_room(self, store: BoxStore) -> None:
        """
        An update that does not fit leaves the old record, and no draft.
        """
        before = store.record
        for room in (0, 1, 100):
            with largest_file(room), pytest.raises(StateError, match="File too large"):
                store.update(job="j" * 1000)
            assert before == store.record
            assert ["state.json"] == names(store.directory)

    def test_killed_at_any_time(self, store: BoxStore) -> None:
        """
        After a kill at any moment the record is one that was written, and whole.
        """
        code = (
            "import sys; from pathlib import Path; from onebox.store.box_store import "
            "BoxStore\n"
            "book = BoxStore(Path(sys.argv[1]))\n"
            "n = int(book.record.job or 0)\n"
            "while True:\n"
            "    n += 1\n"
            "    with book.intent('create', box=str(n)):\n"
            "        book.update(job=str(n), job_command='x' * n)\n"
            "    print(n, flush=True)\n"
        )
        for _ in range(6):
            process = begin(code, store.directory)
            assert process.stdout is not None
            said = process.stdout.readline()
            time.sleep(random.random() / 20)
            process.kill()
            # Not `communicate`: it knows nothing of what has been read ahead.
            said += process.stdout.read()
            process.communicate()
            seen = int(said.split("\n")[-2])
            record = store.record
            assert int(record.job) in (seen, seen + 1)
            assert "x" * int(record.job) == record.job_command
            left = [int(intent.box) for intent in store.open_intents()]
            assert left in ([], [seen + 1])
            for intent in store.open_intents():
                store.close_intent(intent, "seen to")
        assert [] == list(store.directory.glob("*.corrupt-*"))


class TestWriteAtomically:
    @pytest.mark.parametrize("mode", [0o600, 0o644])
    def test_replaces(self, tmp_path: Path, mode: int) -> None:
        """
        The file has the new content and the mode that was asked for.
        """
        path = tmp_path / "file"
        path.write_text("old")
        write_atomically(path, b"new", mode)

        assert (b"new", mode) == (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        assert ["file"] == names(tmp_path)


def test_random_ids() -> None:
    """
    Ids are legal in names of every cloud, and never the same twice.
    """
    made = {random_id() for _ in range(1000)}

    assert 1000 == len(made)
    assert all(re.fullmatch("[a-z2-7]{10}", each) for each in made)


text = st.text(max_size=20)
dollars = st.none() | st.floats(0, 1e6)
changes = st.fixed_dictionaries(
    {},
    optional={
        "box": text,
        "job": text,
        "price": dollars,
        "deadline": st.floats(0, 1e10),
        "temporary": st.booleans(),
    },
)


class Life(RuleBasedStateMachine):
    """A notebook's life: notes, intents and crashes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="onebox-"))
        self.lives = 0
        self.book = BoxStore(self.base / "0")
        self.wanted = Record()
        self.open: list[str] = []
        self.count = 0

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    @rule(what=changes)
    def note(self, what: dict[str, Any]) -> None:
        """The record changes."""
        self.book.update(**what)
        self.wanted = Record(**{**asdict(self.wanted), **what})

    @rule()
    def forget(self) -> None:
        """The box is gone."""
        self.book.forget()
        self.wanted = Record()

    @rule(how=st.sampled_from(["done", "failed", "undone"]))
    def intend(self, how: str) -> None:
        """Something is begun, and comes to its end or not."""
        self.count += 1
        name = str(self.count)
        try:
            with self.book.intent("create", box=name) as outcome:
                outcome.undone = how == "undone"
                if how != "done":
                    raise KeyError
        except KeyError:
            if how == "failed":
                self.open.append(name)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def deal_with(self, data: st.DataObject) -> None:
        """A later command sees to what was left."""
        name = data.draw(st.sampled_from(self.open))
        (intent,) = [i for i in self.book.open_intents() if i.box == name]
        self.book.close_intent(intent, "seen to")
        self.open.remove(name)

    @rule(draft=st.binary(max_size=20))
    def crash(self, draft: bytes) -> None:
        """All that is left is what is on the disk, perhaps with a draft."""
        self.lives += 1
        place = self.base / str(self.lives)
        if self.book.directory.exists():
            shutil.copytree(self.book.directory, place)
            (place / ".state.json-abcdef").write_bytes(draft)
        self.book = BoxStore(place)

    @rule(part=st.floats(0, 1))
    def crash_while_noting(self, part: float) -> None:
        """The line of an intent is torn somewhere; before it nothing was begun."""
        journal = self.book.directory / "journal"
        before = journal.stat().st_size if journal.exists() else 0
        self.intend("failed")
        added = journal.stat().st_size - before
        kept = round(part * added)
        os.truncate(journal, before + kept)
        if kept < added - 1:
            self.open.pop()
        self.crash(b"")

    @precondition(lambda self: (self.book.directory / "state.json").exists())
    @rule(part=st.floats(0, 0.99))
    def damage(self, part: float) -> None:
        """The disk loses part of the record."""
        path = self.book.directory / "state.json"
        os.truncate(path, int(part * path.stat().st_size))
        self.wanted = Record()

    @invariant()
    def is_right(self) -> None:
        """What is remembered is what happened."""
        assert self.wanted == self.book.record
        assert self.open == [intent.box for intent in self.book.open_intents()]


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=25, stateful_step_count=15)
