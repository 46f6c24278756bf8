"""
A client that is killed at any call leaves nothing that is not found.

The calls are drawn at random: ONEBOX_TEST_KILLS is their number, ONEBOX_TEST_SEED the
seed.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import time
from pathlib import Path

import pytest

from tests.fakes.aws.account import Account, Kill

from ..boxes import MakeRequest
from . import box_life
from .conftest import MakeProvider

KILLS = int(os.environ.get("ONEBOX_TEST_KILLS", "12"))
SEED = int(os.environ.get("ONEBOX_TEST_SEED", "4"))
LAG = 0.2

# The longest life of a box has fewer calls: at the last ones the client survives.
MOST = {False: 42, True: 66}


def _variables() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k.startswith("AWS_")}


def test_a_kill_at_any_call_leaves_at_most_one_box(
    make_provider: MakeProvider,
    make_request: MakeRequest,
    account: Account,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The next command finds and deletes everything; other boxes stay."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([box_life.__name__])
    provider = make_provider()
    theirs = make_request()
    tags = dataclasses.replace(theirs.tags, owner="somebody-else")
    decoy = provider.create(dataclasses.replace(theirs, tags=tags))
    dice, survived = random.Random(SEED), 0
    account.faults.lag = LAG
    for number in range(KILLS):
        spot = bool(dice.getrandbits(1))
        request = make_request(spot=spot)
        gate = tmp_path / f"gate-{number}"
        os.mkfifo(gate)
        process = processes.Process(
            target=box_life.live, args=(_variables(), request, str(gate))
        )
        process.start()
        calls, after = dice.randint(1, MOST[spot]), bool(dice.getrandbits(1))
        assert process.pid is not None
        account.kill = Kill(process.pid, calls, after)
        with gate.open("wb"):
            pass
        process.join(300)
        account.kill = None
        what = f"seed {SEED}, number {number}: call {calls}, after={after}, spot={spot}"
        assert process.exitcode in (0, -9), what
        survived += process.exitcode == 0
        # The next command finds the box by the intent in its journal.
        until = time.monotonic() + 2 * LAG
        found = provider.get(request.box, request.offer.place)
        while found is None and time.monotonic() < until:
            time.sleep(0.05)
            found = provider.get(request.box, request.offer.place)
        if found is not None:
            provider.delete(found)
        machines = account.instances(request.box)
        plain = [one for one in machines if not _tag(one, "onebox:swapping")]
        assert len(plain) <= 2, what
        assert not account.alive(request.box), what
        assert not account.volumes(request.box), what
        assert not provider.leftovers(request.box, request.offer.place), what
        account.forget_ended()
    assert len(account.alive(decoy.id)) == 1
    provider.delete(decoy)
    with capsys.disabled():
        killed = KILLS - survived
        print(f"\n{killed} clients killed, {survived} had ended before: 0 leaked")


def _tag(resource: object, key: str) -> str:
    tags: list[dict[str, str]] = resource.get_tags()  # type: ignore[attr-defined]
    return next((tag["value"] for tag in tags if tag["key"] == key), "")
