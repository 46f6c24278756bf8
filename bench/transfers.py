"""Measure push and fetch against tar and rsync, on loopback and on slow lines."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import data
from lab import FAST, Lab, Ours, Peer, has
from line import ceiling, line
from measure import Row, Way, alternately, log

MIB = 1 << 20


@dataclass(frozen=True)
class Scale:
    """Bytes of a big file, bytes on a thin (slow) line, the number of small files."""

    big: int
    thin: int
    many: int

    def part(self, share: float) -> Scale:
        """Return a scale with this share of each amount."""
        return Scale(
            *(max(int(whole * share), 1) for whole in (self.big, self.thin, self.many))
        )


FULL = Scale(big=2048 * MIB, thin=64 * MIB, many=10_000)

# Copies a folder to a folder. True means a push, from this machine to the far one.
Copy = Callable[[Peer, bool, Path, Path], None]


@dataclass(frozen=True)
class Against:
    """A peer, and the highest ratio to it. Without *copy*, the line is the peer."""

    name: str
    target: float
    copy: Copy | None = None
    needs: str = ""


@dataclass(frozen=True)
class Transfer:
    """
    One row of the table.

    *change* changes the files before each transfer; with None, everything is sent
    again. *also* are further measurements by direction, which show a limit of onebox.
    """

    name: str
    what: str
    make: Callable[[Path, Scale], None]
    against: Sequence[Against]
    change: Callable[[Path], None] | None = None
    bits: float = 0
    round_trip: float = 0
    master: bool = True
    directions: Sequence[str] = ("push", "fetch")
    also: Mapping[str, Against] = field(default_factory=dict)


def _tar(*options: str, filter: str = "") -> Copy:
    def copy(peer: Peer, up: bool, source: Path, target: Path) -> None:
        move = peer.tar_up if up else peer.tar_down
        move(source, target, *options, filter=filter)

    return copy


def _rsync(*options: str) -> Copy:
    def copy(peer: Peer, up: bool, source: Path, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        far = "bench:"
        peer.rsync(
            f"{'' if up else far}{source}/", f"{far if up else ''}{target}/", *options
        )

    return copy


def _cp(peer: Peer, up: bool, source: Path, target: Path) -> None:
    """Copy on this machine: the cost of replacing a file atomically."""
    fresh = target.with_name(f"{target.name}.new")
    subprocess.run(["cp", "-r", source, fresh], check=True)
    data.empty(target)
    fresh.replace(target)


def _big(folder: Path, scale: Scale) -> None:
    data.one_file(folder, scale.big)


def _thin(folder: Path, scale: Scale) -> None:
    data.one_file(folder, scale.thin)


def _many(folder: Path, scale: Scale) -> None:
    data.many_files(folder, scale.many, 10 << 10)


def _half(folder: Path, scale: Scale) -> None:
    data.many_files(folder, scale.many, 10 << 10, half=True)


_RSYNC = Against("rsync, open master", 1.5, _rsync(), needs="rsync")
_LINE = "bytes ÷ bandwidth"

TRANSFERS = [
    Transfer(
        "big",
        "one incompressible file",
        _big,
        [Against("tar over one ssh, aes128-gcm", 1.1, _tar(*FAST))],
        master=False,
    ),
    Transfer(
        "many",
        "10 KiB files",
        _many,
        [
            Against("tar, open master", 1.5, _tar()),
            Against("rsync, open master", 1.0, _rsync(), needs="rsync"),
        ],
    ),
    Transfer(
        "changed",
        "10 KiB files, 10 changed",
        _many,
        [_RSYNC],
        change=lambda folder: data.change_some(folder, 10),
    ),
    Transfer(
        "same",
        "10 KiB files, nothing changed",
        _many,
        [Against("rsync, open master", 1.0, _rsync(), needs="rsync")],
        change=lambda folder: None,
    ),
    Transfer(
        "same-far",
        "the same, 30 ms round trip",
        _many,
        [Against("rsync, open master", 0.25, _rsync(), needs="rsync")],
        change=lambda folder: None,
        round_trip=0.03,
    ),
    Transfer(
        "middle",
        "one file, 1 MiB in its middle changed",
        _big,
        [
            Against("rsync --inplace", 1.5, _rsync("--inplace"), needs="rsync"),
            Against("tar, open master (sent anew)", 1.0, _tar()),
        ],
        change=lambda folder: data.change_middle(folder, MIB),
        also={"fetch": Against("cp and mv here", 1.0, _cp)},
    ),
    Transfer(
        "fat",
        "one incompressible file, 1 Gbit/s, 50 ms",
        _big,
        [Against(_LINE, 1.3)],
        bits=1e9,
        round_trip=0.05,
    ),
    Transfer(
        "thin",
        "one incompressible file, 20 Mbit/s, 30 ms",
        _thin,
        [Against(_LINE, 1.1)],
        bits=20e6,
        round_trip=0.03,
    ),
    Transfer(
        "thin-half",
        "half compressible 10 KiB files, 20 Mbit/s, 30 ms",
        _half,
        [Against("tar, zstd -1, open master", 1.1, _tar(filter="zstd -1"), "zstd")],
        bits=20e6,
        round_trip=0.03,
    ),
]


def measure(
    transfer: Transfer, direction: str, scale: Scale, rounds: int, with_inv: bool
) -> Iterator[Row]:
    """Measure one transfer; with *with_inv*, also the `inv` command."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab.open(need=4 * scale.big))
        port = None
        if transfer.bits or transfer.round_trip:
            log(f"    the relay alone carries {ceiling() * 8 / 1e9:.1f} Gbit/s")
            port = stack.enter_context(
                line(
                    lab.box.port,
                    bits=transfer.bits,
                    round_trip=transfer.round_trip,
                )
            )
        peer = stack.enter_context(lab.peer(port))
        ours = stack.enter_context(lab.ours(port))
        yield from _compare(
            transfer, direction, scale, rounds, with_inv, lab, peer, ours
        )


def _compare(
    transfer: Transfer,
    direction: str,
    scale: Scale,
    rounds: int,
    with_inv: bool,
    lab: Lab,
    peer: Peer,
    ours: Ours,
) -> Iterator[Row]:
    up = direction == "push"
    source = lab.data if up else lab.work / "results"
    if source.exists():
        source.rmdir()
    transfer.make(source, scale)
    if transfer.master:
        peer.open_master()
        ours.warm()

    def before() -> None:
        if transfer.change is not None:
            transfer.change(source)
        else:
            _forget(lab, up)
        if not transfer.master:
            ours.cool()

    against = [one for one in transfer.against if not one.needs or has(one.needs)]
    also = [one for way, one in transfer.also.items() if way == direction]
    ways = [Way("onebox", ours.push if up else ours.fetch, before)]
    for count, one in enumerate([*against, *also]):
        if one.copy is not None:
            target = lab.peers / str(count)
            work = partial(one.copy, peer, up, source, target)
            ways.append(Way(one.name, work, before))
    if with_inv:
        ways.append(Way(f"inv {direction}", lambda: lab.run_inv(direction), before))
    if transfer.change is not None:
        for way in ways:
            way.work()
    times = dict(zip((way.name for way in ways), alternately(rounds, ways)))
    if not transfer.bits:
        ways[0].work()
        if not data.same(source, lab.work / "data" if up else lab.results):
            raise AssertionError("the copy differs from the original")
    total = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    beside = [(one.name, times[one.name]) for one in also]
    beside += [(way.name, times[way.name]) for way in ways if way.name[:4] == "inv "]
    for one in against:
        limit = total * 8 / transfer.bits if transfer.bits else 0.0
        yield Row(
            f"{direction}-{transfer.name}",
            transfer.what,
            one.name,
            times["onebox"],
            times.get(one.name, limit),
            one.target,
            beside=beside,
        )


def _forget(lab: Lab, up: bool) -> None:
    """Remove all traces of earlier transfers at both ends."""
    folders = [lab.root / "files", lab.peers, lab.project / ".onebox"]
    for folder in [*folders, lab.work if up else lab.results]:
        data.empty(folder)
    lab.index.unlink(missing_ok=True)
