"""The output of Packer with -machine-readable is parsed."""

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


def test_escaped_commas_and_line_ends_are_decoded() -> None:
    """Other text is passed on unchanged."""
    first, *_ = packer_output.parse(CLOUD)
    assert "==> amazon-ebs: hello, world\nnext" == first.text
    assert [PackerLine("", "ui", ("say", "panic: x"))] == packer_output.parse(
        "panic: x\n"
    )


def test_artifact_has_an_id_in_every_region() -> None:
    """The null builder builds no artifact."""
    assert "us-east-1:ami-1,us-west-2:ami-2" == packer_output.artifact(
        packer_output.parse(CLOUD + NULL)
    )
    assert "" == packer_output.artifact(packer_output.parse(NULL))
    assert "" == packer_output.artifact([])


def test_manifest_counts_only_if_this_run_wrote_it(tmp_path: Path) -> None:
    """An older manifest is ignored."""
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


def test_errors_and_leftovers_of_packer_are_reported() -> None:
    """Errors of scripts are not reported as Packer's; leftovers are named."""
    lines = packer_output.parse(LEFT)
    assert ["it went wrong"] == packer_output.errors(lines)
    (left,) = packer_output.leftovers(lines)
    assert left.endswith("manually: sg-1")


def test_interrupted_reader_gets_every_line_once(tmp_path: Path) -> None:
    """The last line counts even without its newline."""
    path = tmp_path / "out"
    path.write_bytes(b"1,,ui,say,one\n1,,ui,say,two\n1,,ui,sa")
    tail = Tail(path)
    lines = tail.lines(lambda: True)
    assert ["one", "two"] == [next(lines).text, next(lines).text]
    lines.close()  # type: ignore[attr-defined]
    with path.open("ab") as file:
        file.write(b"y,three\n1,,ui,say,four")

    assert ["three", "four"] == [line.text for line in tail.lines(lambda: False)]


def test_running_packer_is_waited_for(tmp_path: Path) -> None:
    """A process that has the file open is still running; a message says so."""
    path, printed = tmp_path / "out", threading.Event()
    packer_output.wait_for_end(path, printed.set)
    fd = packer_output.lock(path)
    waiting = threading.Thread(
        target=packer_output.wait_for_end, args=(path, printed.set), daemon=True
    )
    waiting.start()
    assert printed.wait(20)
    assert waiting.is_alive()
    os.close(fd)
    waiting.join(20)
    assert not waiting.is_alive()


def test_second_packer_is_refused(tmp_path: Path) -> None:
    """A second Packer is refused, and the output of the first one stays."""
    path = tmp_path / "out"
    fd = packer_output.lock(path)
    os.write(fd, b"1,,ui,say,one\n")
    with pytest.raises(Busy, match="another onebox command"):
        packer_output.lock(path)
    os.close(fd)

    assert ["one"] == [line.text for line in packer_output.read(path)]
    os.close(packer_output.lock(path))
    assert [] == packer_output.read(path)
