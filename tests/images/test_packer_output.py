"""What Packer says with -machine-readable is read as it means it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from onebox.errors import Busy
from onebox.images import packer_output
from onebox.images.packer_output import PackerLine, Tail

CLOUD = """\
1600000000,,ui,say,==> amazon-ebs: hello%!(PACKER_COMMA) world\\nnext
1600000000,amazon-ebs,artifact-count,2
1600000000,amazon-ebs,artifact,0,builder-id,mitchellh.amazonebs
1600000000,amazon-ebs,artifact,0,id,us-east-1:ami-1%!(PACKER_COMMA)us-west-2:ami-2
1600000000,amazon-ebs,artifact,0,end
"""
NULL = """\
1600000000,null,artifact,0,builder-id,fnoeding.null
1600000000,null,artifact,0,id,Null
"""
LEFT = """\
1600000000,,ui,error,Error cleaning up. Please delete the group manually: sg-1
1600000000,amazon-ebs,error,it went wrong
1600000000,,ui,error,==> from a script's stderr
"""


def test_lines() -> None:
    """Commas and line ends are what they were; other words are passed on."""
    first, *_ = packer_output.parse(CLOUD)
    assert "==> amazon-ebs: hello, world\nnext" == first.text
    assert [PackerLine("", "ui", ("say", "panic: x"))] == packer_output.parse(
        "panic: x\n"
    )


def test_artifact() -> None:
    """The id of what was built, in every region; the null builder builds nothing."""
    assert "us-east-1:ami-1,us-west-2:ami-2" == packer_output.artifact(
        packer_output.parse(CLOUD + NULL)
    )
    assert "" == packer_output.artifact(packer_output.parse(NULL))
    assert "" == packer_output.artifact([])


def test_manifest(tmp_path: Path) -> None:
    """A manifest counts if this run has written it."""
    path = tmp_path / packer_output.MANIFEST
    builds = [
        {"artifact_id": "old", "packer_run_uuid": "1"},
        {"artifact_id": "us-east-1:ami-1", "packer_run_uuid": "2"},
    ]
    path.write_text(json.dumps({"builds": builds, "last_run_uuid": "2"}))
    written = path.stat().st_mtime

    read = packer_output.artifact_of_manifest
    assert "us-east-1:ami-1" == read(path, written - 1)
    assert "" == read(path, written + 1)
    path.write_text("{")
    assert "" == read(path, written - 1)
    assert "" == read(tmp_path / "none", 0.0)


def test_what_went_wrong_and_what_is_left() -> None:
    """Errors are Packer's own, not a script's; what it has left behind is named."""
    lines = packer_output.parse(LEFT)
    assert ["it went wrong"] == packer_output.errors(lines)
    (left,) = packer_output.leftovers(lines)
    assert left.endswith("manually: sg-1")


def test_tail_goes_on_where_it_was(tmp_path: Path) -> None:
    """An interrupted reader gets every line once, the last one though unfinished."""
    path = tmp_path / "out"
    path.write_bytes(b"1,,ui,say,one\n1,,ui,say,two\n1,,ui,sa")
    tail = Tail(path)
    lines = tail.lines(lambda: True)
    assert ["one", "two"] == [next(lines).text, next(lines).text]
    lines.close()  # type: ignore[attr-defined]
    with path.open("ab") as file:
        file.write(b"y,three\n1,,ui,say,four")

    assert ["three", "four"] == [line.text for line in tail.lines(lambda: False)]


def test_waiting_for_its_end(tmp_path: Path) -> None:
    """Whoever holds the file open is at work; it is waited for, and that is said."""
    path, said = tmp_path / "out", threading.Event()
    packer_output.wait_for_end(path, said.set)
    fd = packer_output.lock(path)
    waiting = threading.Thread(
        target=packer_output.wait_for_end, args=(path, said.set), daemon=True
    )
    waiting.start()
    assert said.wait(20)
    assert waiting.is_alive()
    os.close(fd)
    waiting.join(20)
    assert not waiting.is_alive()


def test_one_at_a_time(tmp_path: Path) -> None:
    """A second Packer is refused in a sentence, and the first one's words stay."""
    path = tmp_path / "out"
    fd = packer_output.lock(path)
    os.write(fd, b"1,,ui,say,one\n")
    with pytest.raises(Busy, match="another onebox command"):
        packer_output.lock(path)
    os.close(fd)

    assert ["one"] == [line.text for line in packer_output.read(path)]
    os.close(packer_output.lock(path))
    assert [] == packer_output.read(path)
