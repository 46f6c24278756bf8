"""A box that has come up is one only once all that it needs has been done there."""

from __future__ import annotations

import signal

import pytest

from onebox.errors import BoxFailed
from onebox.providers.base import Box
from onebox.providers.local import Local
from onebox.providers.localbox import processes
from onebox.stages import arrival, provision

from ..conftest import send
from .test_disks import Line, line

__all__ = ["line"]


def test_an_errand_without_an_answer(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A box that falls silent over what its provider wants done there goes again.
    """

    def freeze(box: Box) -> bytes:
        send(signal.SIGSTOP, processes.marked(box.id))
        return b"pass"

    def delete(box: Box) -> None:
        send(signal.SIGCONT, processes.marked(box.id))
        Local.delete(line.cloud, box)

    monkeypatch.setattr(arrival, "ERRAND_SECONDS", 2.0)
    monkeypatch.setattr(line.cloud, "delete", delete)
    monkeypatch.setattr(line.cloud, "errand", freeze)
    with pytest.raises(BoxFailed, match="end itself: no answer within 2 s"):
        line.type(provision)

    assert {} == line.boxes()
