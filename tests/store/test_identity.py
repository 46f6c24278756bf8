"""The owner's id, and random ids."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest

from onebox.errors import StateError
from onebox.store.identity import owner, random_id
from tests.store.processes import names, output_of, start_python


def test_owner_id_is_created_once_and_valid_in_every_cloud(tmp_path: Path) -> None:
    """The owner's id is created once, in a form that every cloud's tags accept."""
    made = owner(tmp_path / "config")

    assert 12 == len(made)
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert made == owner(tmp_path / "config")
    assert ["owner"] == names(tmp_path / "config")


def test_concurrent_first_commands_get_one_owner_id(tmp_path: Path) -> None:
    """Several first commands at the same time get the same id."""
    code = (
        "import sys; from pathlib import Path; from onebox.store.identity import "
        "owner\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "print(owner(Path(sys.argv[1])))"
    )
    commands = [start_python(code, tmp_path / "config") for _ in range(4)]
    for command in commands:
        assert command.stdout is not None
        command.stdout.readline()
    for command in commands:
        assert command.stdin is not None
        command.stdin.write("\n")
        command.stdin.flush()

    assert {owner(tmp_path / "config")} == {output_of(c).strip() for c in commands}


def test_concurrent_threads_get_one_owner_id(tmp_path: Path) -> None:
    """If two threads find no id, both use the one that was written first."""
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
def test_damaged_owner_id_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    """A damaged id raises an error, because boxes still have the old id."""
    (tmp_path / "owner").write_bytes(content)
    with pytest.raises(StateError, match="owner"):
        owner(tmp_path)

    assert content == (tmp_path / "owner").read_bytes()


def test_error_names_the_directory_that_cannot_be_created(tmp_path: Path) -> None:
    """A directory that cannot be created raises a StateError that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="file"):
        owner(tmp_path / "file" / "config")


def test_random_ids_are_unique_and_valid_in_names() -> None:
    """Ids are valid in names of every cloud, and are never repeated."""
    made = {random_id() for _ in range(1000)}

    assert 1000 == len(made)
    assert all(re.fullmatch("[a-z2-7]{10}", each) for each in made)
