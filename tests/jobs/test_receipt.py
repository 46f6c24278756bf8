"""Receipts are typed values, and their JSON form loses nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from onebox.jobs import receipt
from onebox.jobs.receipt import OutputCount, Peak, Receipt, ReceiptBox
from onebox.jobs.run_record import EarlierBox, RunTotals

BOX = ReceiptBox(
    id="ob-1",
    name="main",
    provider="aws",
    place="us-east-1a",
    size="small",
    type="m7i.large",
    cpus=2,
    memory=8 << 30,
    spot=True,
    machine_per_hour=0.1,
    machine_on_demand_per_hour=None,
    extras_per_hour={"100 GB disk": 0.01},
    egress_per_gb=0.09,
    image="",
)


def make_receipt(**changes: object) -> Receipt:
    """Return the receipt of a finished job."""
    values: dict[str, object] = {
        "job": "20261112-120000-abcd",
        "command": "python train.py",
        "exit": 0,
        "cause": "exit",
        "signal": None,
        "started": 1.0,
        "ended": 61.0,
        "seconds": 60.0,
        "box": BOX,
        "peak": Peak(1 << 30, None),
        "log_bytes": 10,
        "log_gone": 0,
    }
    return Receipt(**{**values, **changes})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    ("changes", "cost"),
    [
        ({"box": replace(BOX, machine_per_hour=0.0, extras_per_hour={})}, "$0>"),
        (
            {"box": replace(BOX, machine_per_hour=60.0, extras_per_hour={})},
            "at least $1.00>",
        ),
        ({"box": replace(BOX, machine_per_hour=None)}, "cost unknown>"),
        ({"costs": {"machine": 2.0}}, ", $2.00>"),
    ],
)
def test_text_of_a_receipt_without_costs_has_the_cost_of_its_own_time(
    changes: dict[str, object], cost: str
) -> None:
    """A free box has no unknown cost."""
    assert repr(make_receipt(**changes)).endswith(cost)


@pytest.mark.parametrize(
    "whole",
    [
        make_receipt(),
        make_receipt(
            attempts=RunTotals(
                ("a", "b"), 2, 90.0, None, (EarlierBox(0.1, None, 9.0),)
            ),
            key={"image": "ubuntu-24.04"},
            outputs=OutputCount(0, 0),
            costs={"machine": 0.5, "outputs": None},
            stages={"run": 60.0},
        ),
    ],
)
def test_a_receipt_is_the_same_after_it_was_written_and_read(whole: Receipt) -> None:
    """Decoding the JSON form of a receipt returns an equal receipt."""
    assert Receipt.decode(whole.encode()) == whole


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b"3", b"{}", b'{"box": null}'],
)
def test_a_damaged_receipt_counts_as_missing(tmp_path: Path, damage: bytes) -> None:
    """A file that holds no receipt is treated like a file that does not exist."""
    path = tmp_path / "receipt.json"
    assert receipt.read(path) is None
    path.write_bytes(damage)
    assert receipt.read(path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": "long"},
        {"seconds": None},
        {"started": 1e300},
        {"ended": float("nan")},
        {"exit": 10**400},
        {"command": 5},
        {"costs": {"machine": "much"}},
        {"costs": [1]},
        {"peak": {"memory": [], "cpu_seconds": 1}},
        {"box": {**asdict(BOX), "extras_per_hour": None}},
        {"attempts": {"jobs": [], "boxes": 1, "seconds": 1, "cost": "", "earlier": []}},
    ],
)
def test_a_receipt_with_a_wrong_value_counts_as_missing(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """A project that was cloned may bring any receipt."""
    document = make_receipt().to_dict()
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps({**document, **change}))
    assert receipt.read(path) is None


def test_texts_of_a_receipt_cannot_control_a_terminal(tmp_path: Path) -> None:
    """Only tabs and line breaks stay, which a command may have."""
    path = tmp_path / "receipt.json"
    texts = {"command": "a\n\tb\x1b[2J", "advice": "\x9b31m", "cause": "\x1b]0;x\x07"}
    path.write_text(json.dumps({**make_receipt().to_dict(), **texts}))
    found = receipt.read(path)
    assert found is not None
    assert found.command == "a\n\tb\\x1b[2J"
    assert (found.advice, found.cause) == ("\\x9b31m", "\\x1b]0;x\\x07")


def test_a_receipt_without_one_of_its_fields_counts_as_missing(tmp_path: Path) -> None:
    """A receipt is read whole or not at all."""
    document = json.loads(make_receipt().encode())
    del document["exit"]
    path = tmp_path / "receipt.json"
    path.write_text(json.dumps(document))
    assert receipt.read(path) is None


def test_cost_of_a_run_includes_its_earlier_boxes() -> None:
    """Each box is billed for at least a minute."""
    earlier = (EarlierBox(60.0, 120.0, 1.0),)
    run = make_receipt(attempts=RunTotals(("a", "b"), 2, 90.0, None, earlier))
    costs = receipt.costs_of(run, lifetime=3600.0)
    assert costs["earlier boxes"] == pytest.approx(1.0)
    assert costs["machine"] == pytest.approx(0.1)
