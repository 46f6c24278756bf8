"""The record of fetched files is correct after any damage."""

from __future__ import annotations

from onebox.agent.files import manifest
from onebox.transfer import ledger
from tests.transfer.synced_project import SyncedProject, sha256


def test_both_versions_of_an_interrupted_install_count_as_fetched(
    project: SyncedProject,
) -> None:
    """
    After a crash during the install, neither version counts as edited by the user.
    """
    project.job("out/a", b"1")
    project.fetch()
    project.job("out/a", b"2")
    project.fetch()
    ours = ledger.Ledger(project.memory)
    before = manifest.Entry(b"out/a", "f", 0o644, 1, 0, b"", sha256(b"1"))
    ours.mark_installed([before])
    ours.add([before._replace(sha=sha256(b"2"))])
    ours.save()
    project.job("out/a", b"3")

    assert project.fetch().kept_aside == []


def test_ledger_is_appended_to_and_does_not_grow_forever(
    project: SyncedProject,
) -> None:
    """Changed rows are appended; the file is rewritten before it doubles."""
    entries = [
        manifest.Entry(b"out/%d" % at, "f", 0o644, 1, 0, b"", sha256(b"0"))
        for at in range(100)
    ]
    project.memory.mkdir()
    ours = ledger.Ledger(project.memory)
    ours.mark_installed(entries)
    ours.save()
    file = project.memory / "fetched.ledger"
    sizes = [file.stat().st_size]
    for at in range(1, 150):
        entries[7] = entries[7]._replace(sha=sha256(b"%d" % -at))
        ours = ledger.Ledger(project.memory)
        ours.mark_installed(entries)
        ours.save()
        sizes.append(file.stat().st_size)

    assert sizes[0] < sizes[1] < sizes[0] * 1.05
    assert max(sizes) < 2.1 * sizes[0]
    assert sizes[-1] < sizes[-100]
    again = ledger.Ledger(project.memory)
    assert all(again.is_ours(entry) for entry in entries)
    assert not again.is_ours(entries[7]._replace(sha=sha256(b"3")))


def test_ledger_cut_anywhere_keeps_its_earlier_rows(project: SyncedProject) -> None:
    """Rows before the last batch are loaded, and the next save repairs the file."""
    entries = [
        manifest.Entry(b"out/%d" % at, "f", 0o644, 1, 0, b"", sha256(b"0"))
        for at in range(9)
    ]
    project.memory.mkdir()
    ours = ledger.Ledger(project.memory)
    ours.mark_installed(entries)
    ours.save()
    file = project.memory / "fetched.ledger"
    before = file.stat().st_size
    fresh = entries[3]._replace(sha=sha256(b"1"))
    ours.add([fresh])
    ours.save()
    whole = file.read_bytes()

    for end in range(before, len(whole)):
        file.write_bytes(whole[:end])
        connect_with_cut = ledger.Ledger(project.memory)
        assert all(connect_with_cut.is_ours(entry) for entry in entries)
        other = entries[4]._replace(sha=sha256(b"2"))
        for more in (fresh, other):
            connect_with_cut.add([more])
            connect_with_cut.save()
        mended = ledger.Ledger(project.memory)
        assert all(mended.is_ours(entry) for entry in [*entries, fresh, other])
