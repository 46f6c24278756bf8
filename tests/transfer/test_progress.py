"""Progress of a transfer."""

from __future__ import annotations

from onebox.transfer.progress import INTERVAL, Meter


def test_progress_is_reported_once_in_an_interval() -> None:
    """Progress is reported at most once per interval, however many bytes arrive."""
    clock = [100.0]
    reports: list[tuple[int, int, int, int]] = []
    meter = Meter(lambda *numbers: reports.append(numbers), now=lambda: clock[0])
    assert [meter.moved(1) for _ in range(5)] == [True, False, False, False, False]
    clock[0] += INTERVAL
    assert [meter.moved(1) for _ in range(2)] == [True, False]
    assert len(reports) == 2
