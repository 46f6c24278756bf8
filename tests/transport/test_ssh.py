"""The way to a box holds against two real ssh servers, through a bad line."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import random
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from onebox.agent import protocol
from onebox.context import BoxContext
from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    HostKeyMismatch,
    OneboxError,
    ProtocolError,
)
from onebox.jobs import client as client_module
from onebox.providers.base import Box
from onebox.remote import agent_bundle, connection, ssh_config
from onebox.remote import keys as owner_keys
from onebox.remote.channel import AgentChannel
from onebox.transfer import fetch_outputs, push_files

from ..ending import ends_with_us
from ..providers.sshbox import Keys, wait_until
from .relay import Relay
from .sshd import SSHD, Embedded, OpenSsh, Server
from .sshd import a_box as sshd_box

needs_sshd = pytest.mark.skipif(
    not Path(SSHD).exists(), reason=f"no OpenSSH server: {SSHD} is missing"
)
# In each of three tests, for each of two servers.
CUTS = 6
OpenDoor = Callable[..., connection.SSHConnection]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The user's key, the host key of every box, and one of a stranger."""
    return Keys.make(tmp_path_factory.mktemp("keys"))


@pytest.fixture(
    scope="module", params=[pytest.param("sshd", marks=needs_sshd), "embedded"]
)
def lasting(request: pytest.FixtureRequest, keys: Keys) -> Iterator[Server]:
    """A box behind OpenSSH's server, and then one behind the local provider's."""
    with tempfile.TemporaryDirectory(prefix="onebox-", dir="/var/tmp") as base:
        ends_with_us(Path(base))
        kind = {"sshd": OpenSsh, "embedded": Embedded}[request.param]
        made: Server = kind(Path(base), keys)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def server(lasting: Server) -> Iterator[Server]:
    """That box, as good as new."""
    yield lasting
    lasting.refresh()


@pytest.fixture
def sshd(tmp_path: Path, keys: Keys) -> Iterator[OpenSsh]:
    """A box behind OpenSSH's server, of which a test may take anything away."""
    made = OpenSsh(tmp_path / "box", keys)
    yield made
    made.close()


@pytest.fixture
def relay(server: Server) -> Iterator[Relay]:
    """A line to the box, good at first."""
    with Relay(server.box.port) as line:
        yield line


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, as a socket's may not be long."""
    with tempfile.TemporaryDirectory(prefix="o", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def open_door(keys: Keys, tmp_path: Path) -> Iterator[OpenDoor]:
    """A function that returns a new way to a box; all closed afterwards."""
    made: list[connection.SSHConnection] = []

    def open_one(box: Box, *, key: str = "user") -> connection.SSHConnection:
        folder = tmp_path / f"door {len(made)} 100%d"
        made.append(connection.SSHConnection(box, folder, keys.directory / key))
        return made[-1]

    yield open_one
    for door in made:
        door.forget()


@pytest.fixture
def door(server: Server, relay: Relay, open_door: OpenDoor) -> connection.SSHConnection:
    """A way to the box, through the relay."""
    return open_door(server.at(relay.port))


# -- getting in ------------------------------------------------------------------


def test_the_pinned_key_lets_us_in(
    door: connection.SSHConnection, server: Server
) -> None:
    """The first connection trusts the pinned key, and it is the box that answers."""
    assert door.channel().request("hello")["box"] == server.box.id
    assert door.channel() is door.channel()


def test_an_older_agent_is_renewed(server: Server, open_door: OpenDoor) -> None:
    """A box made by another version of onebox gets today's agent, and keeps it."""
    pyz = server.pyz
    with zipfile.ZipFile(pyz, "a") as archive:
        archive.writestr("agent/of_old.py", "")
    assert pyz.read_bytes() != agent_bundle.bundle()

    told = open_door(server.box).channel().request("hello")

    assert agent_bundle.version() == told["agent"]
    assert pyz.read_bytes() == agent_bundle.bundle()


def test_another_machine_gets_nothing(
    server: Server, relay: Relay, keys: Keys, open_door: OpenDoor
) -> None:
    """Another host key ends it at once, before a user name or key was offered."""
    stranger = dataclasses.replace(
        server.at(relay.port), host_key=keys.public("stranger")
    )
    before = server.log.stat().st_size
    with pytest.raises(HostKeyMismatch) as caught:
        open_door(stranger).open_when_up(60, never, never)
    assert caught.value.code == 76
    sent = relay.to_server
    # No more than what ssh says in the clear before it knows who answers.
    assert 0 < sent < 3000
    assert b"userauth-request" not in server.log.read_bytes()[before:]
    open_door(server.at(relay.port)).channel()
    assert relay.to_server - sent > sent
    if isinstance(server, OpenSsh):
        assert b"userauth-request" in server.log.read_bytes()[before:]


def test_a_key_that_is_refused_for_good(server: Server, open_door: OpenDoor) -> None:
    """Our key may be let in a little later, but not after any time."""
    door = open_door(server.box, key="stranger")
    with pytest.raises(ConnectionLost, match="Permission denied"):
        door.channel()
    ticks: list[float] = []
    with pytest.raises(BoxFailed, match="does not accept our ssh key"):
        door.open_when_up(60, never, lambda: ticks.append(1), grace=0.2)
    assert ticks


@needs_sshd
def test_a_key_that_comes_late(sshd: OpenSsh, open_door: OpenDoor) -> None:
    """Keys that are written a moment after sshd has started are waited for."""
    keys_file = sshd.root.parent / "authorized_keys"
    late = keys_file.rename(keys_file.with_name("late"))
    door = open_door(sshd.box)

    def tick() -> None:
        if late.exists():
            late.rename(keys_file)

    assert door.open_when_up(60, never, tick).request("hello")["box"] == sshd.box.id


def test_a_box_that_is_not_up_yet(server: Server, open_door: OpenDoor) -> None:
    """A closed port is asked again until it opens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with contextlib.ExitStack() as later:

        def tick() -> None:
            with contextlib.suppress(OSError):
                later.enter_context(Relay(server.box.port, at=port))

        door = open_door(server.at(port))
        link = door.open_when_up(60, never, tick)
        assert link.request("hello")["box"] == server.box.id
        door.forget()


@pytest.mark.parametrize("how", ["closed", "mute", "chatty"])
def test_a_box_that_never_comes_up(how: str, keys: Keys, open_door: OpenDoor) -> None:
    """The wait ends in its time, whether nothing, silence or noise answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        box = a_box(listener.getsockname()[1], keys)
        if how == "chatty":
            threading.Thread(target=chatter, args=[listener], daemon=True).start()
        elif how == "closed":
            listener.close()
        with pytest.raises(BoxFailed, match="did not answer within 1 s"):
            open_door(box).open_when_up(1, never, never)
        if how == "chatty":
            listener.shutdown(socket.SHUT_RDWR)


def test_the_wait_ends_when_the_box_is_gone(keys: Keys, open_door: OpenDoor) -> None:
    """What `alive` raises ends the wait at its first look."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        box = a_box(taken.getsockname()[1], keys)

    def gone() -> None:
        raise BoxFailed("gone")

    with pytest.raises(BoxFailed, match=r"^gone$"):
        open_door(box).open_when_up(3600, gone, never)


def test_wait_ends_for_a_box_that_is_silent_after_the_handshake(
    server: Server, relay: Relay, open_door: OpenDoor
) -> None:
    """A box that goes mute after it was reached ends the wait, too."""
    door = open_door(server.at(relay.port))
    door.channel()
    relay.stall()
    second = open_door(server.at(relay.port))
    with pytest.raises(ConnectionLost, match="does not answer"):
        # Over the shared connection, which is the one that has stalled.
        second.channel(within=1.0)
    assert second.channel().request("hello")["box"] == server.box.id
    assert relay.opened == 2


# -- nothing of the user's ---------------------------------------------------------


@needs_sshd
def test_nothing_of_the_users_takes_part(
    sshd: OpenSsh,
    open_door: OpenDoor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No ssh configuration, agent or known_hosts of the user's or system's is read."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    trap = tmp_path / "trapped"
    (home / ".ssh" / "config").write_text(f"Host *\nProxyCommand touch {trap}\n")
    monkeypatch.setenv("HOME", str(home))
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(home / "agent"))
        agent.listen()
        agent.settimeout(0)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
        door = open_door(sshd.box)
        door.channel()
        with pytest.raises(BlockingIOError):
            agent.accept()
    assert not trap.exists()
    told = subprocess.check_output(
        ["ssh", "-G", *door.argv()[1:]], text=True
    ).splitlines()
    real = {line.split()[0]: line.partition(" ")[2] for line in told}
    assert "proxycommand" not in real
    assert real["userknownhostsfile"].strip('"') == str(door.directory / "known_hosts")
    assert real["globalknownhostsfile"] == "/dev/null"
    assert real["identityagent"] == "none"
    assert sum(line.startswith("identityfile ") for line in told) == 1


@needs_sshd
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is missing")
def test_no_file_of_the_users_is_opened(
    sshd: OpenSsh, open_door: OpenDoor, tmp_path: Path
) -> None:
    """ssh opens nothing in ~/.ssh, wherever it takes that to be, or in /etc/ssh."""
    door = open_door(sshd.box)
    trace = tmp_path / "trace"
    calls = ["strace", "-f", "-o", str(trace), "-e", "trace=open,openat"]
    subprocess.run(
        [*calls, *door.argv("-o", "ControlMaster=no"), "true"],
        stdin=subprocess.DEVNULL,
        check=True,
    )
    opened = trace.read_text()
    assert str(door.config) in opened
    assert "/.ssh/" not in opened
    assert "/etc/ssh/" not in opened


# -- one connection, shared -----------------------------------------------------------


def test_a_second_process_shares_the_connection(
    door: connection.SSHConnection, relay: Relay, keys: Keys, tmp_path: Path
) -> None:
    """Another command uses the connection there is; `forget` closes it for all."""
    door.channel()
    assert client(
        door, keys, tmp_path, "print(door.channel().request('hello')['box'])"
    ) == [door.box.id]
    assert relay.opened == 1
    assert stat.S_ISSOCK(door.socket.stat().st_mode)
    door.forget()
    assert not door.socket.exists()
    assert list(door.directory.iterdir()) == []


@pytest.mark.parametrize("what", ["line", "master"])
def test_what_has_stalled_is_not_shared_again(
    what: str, door: connection.SSHConnection, relay: Relay
) -> None:
    """After a stall of the line or of ssh itself, the next connection is a new one."""
    door.channel()
    master = int(check(door).split("pid=")[1].rstrip(")"))
    if what == "line":
        relay.stall()
    else:
        os.kill(master, signal.SIGSTOP)
    try:
        door.close(force=True)
        assert door.channel().request("hello")["box"] == door.box.id
        assert relay.opened == 2
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(master, signal.SIGKILL)


def test_a_dead_line_is_noticed(door: connection.SSHConnection, relay: Relay) -> None:
    """A line on which nothing comes any more breaks the follower's wait."""
    text = door.config.read_text()
    assert "ServerAliveInterval 15\n" in text
    text = text.replace("ServerAliveInterval 15", "ServerAliveInterval 1")
    door.config.write_text(text.replace("CountMax 4", "CountMax 2"))
    start_job(door, "j-1", "sleep 60")
    link = door.channel()
    link.begin("follow", job="j-1", offset=0)
    relay.stall()
    with pytest.raises(ConnectionLost, match="broke"):
        link.finish()
    door.close(force=True)
    assert door.channel().request("cancel", job="j-1")["state"] == "exited"


def test_a_box_that_has_moved_is_not_met_at_its_old_place(
    server: Server, door: connection.SSHConnection, relay: Relay, open_door: OpenDoor
) -> None:
    """A connection is shared only with who goes to the same address and key."""
    door.channel()
    with Relay(server.box.port) as other:
        moved = open_door(server.at(other.port))
        moved.channel()
        assert other.opened == 1
        moved.forget()


def test_ctrl_c_does_not_reach_the_connection(
    door: connection.SSHConnection, keys: Keys, tmp_path: Path
) -> None:
    """SIGINT to the whole of the client's process group leaves the link alone."""
    code = (
        # Whoever runs the tests in the background has them ignore it.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "door.channel()\n"
        "try: print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt: print(door.channel().request('hello')['box'])\n"
        "print(door.channel().process.poll())"
    )
    with start(door, keys, tmp_path, code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.killpg(process.pid, signal.SIGINT)
        said = process.stdout.read().decode().split()
    assert said == [door.box.id, "None"]
    assert "running" in check(door)


def test_a_request_half_done_is_not_mixed_with_the_next(
    door: connection.SSHConnection, server: Server
) -> None:
    """After an interrupted request the conversation starts anew."""
    first = door.channel()
    start_job(door, "j-1", "sleep 60")
    first.begin("follow", job="j-1", offset=0)
    with pytest.raises(ConnectionLost):
        first.begin("hello")
    assert door.channel() is not first
    assert door.channel().request("hello")["box"] == server.box.id
    door.channel().request("cancel", job="j-1")


def test_a_link_that_was_hung_up_touches_no_other_file(
    door: connection.SSHConnection, tmp_path: Path
) -> None:
    """A closed link never writes into the file that has its number now."""
    link = door.channel()
    numbers = {link.wire.read_fd, link.wire.write_fd}
    link.close()
    files = [(tmp_path / str(n)).open("w+b", buffering=0) for n in range(4)]
    try:
        assert numbers & {file.fileno() for file in files}
        with pytest.raises(ConnectionLost):
            link.request("hello")
        assert all(file.tell() == 0 for file in files)
        assert all(os.fstat(file.fileno()).st_size == 0 for file in files)
    finally:
        for file in files:
            file.close()


# -- a bad line ---------------------------------------------------------------------


def test_a_push_over_a_line_that_breaks(
    server: Server, door: connection.SSHConnection, relay: Relay, tmp_path: Path
) -> None:
    """However often a push is cut, the box ends with exactly our files."""
    chance = seeded()
    root = tmp_path / "project"
    paths = grow(root, chance)
    relay.cuts = [chance.randint(1, 400_000) for _ in range(CUTS)]
    done = until_done(
        door,
        lambda link: push_files.push(link, root, paths, tmp_path / "index", quiet),
    )
    assert relay.was_cut == CUTS
    assert tree(server.work) == tree(root)
    assert done.files == len(paths)


def test_a_fetch_over_a_line_that_breaks(
    server: Server, door: connection.SSHConnection, relay: Relay, tmp_path: Path
) -> None:
    """However often a fetch is cut, we end with exactly the box's files."""
    chance = seeded()
    grow(server.work / "out", chance)
    relay.cuts = [chance.randint(1, 400_000) for _ in range(CUTS)]
    into, memory = tmp_path / "into", tmp_path / "into" / ".onebox"
    until_done(
        door, lambda link: fetch_outputs.fetch(link, ["out"], into, memory, quiet)
    )
    assert relay.was_cut == CUTS
    assert tree(into / "out") == tree(server.work / "out")


def test_a_log_over_a_line_that_breaks(
    server: Server,
    door: connection.SSHConnection,
    relay: Relay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often the line is cut, no byte of the log is lost or repeated."""
    chance = seeded()
    monkeypatch.setattr(client_module, "LONGEST_PAUSE", 0.01)
    text = chance.randbytes(8_000_000)
    (server.work / "text").write_bytes(text)
    start_job(door, "j-1", "cat text; exit 7")
    door.close(force=True)
    relay.cuts = [chance.randint(1, 1_000_000) for _ in range(CUTS)]
    shown = bytearray()
    line = Attached(door)
    log = tmp_path / "logs" / "j-1.log"
    record = client_module.follow(
        cast(BoxContext, line), door.box, "j-1", log, shown.extend
    )
    assert (record.code, relay.was_cut, line.breaks) == (7, CUTS, CUTS)
    assert log.read_bytes() == text
    assert bytes(shown) == text


def test_an_agent_that_hangs_is_left(
    server: Server,
    door: connection.SSHConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An agent that falls silent though ssh is well is not waited for for ever."""
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 2.0)
    start_job(door, "j-1", "echo up; sleep 3; echo end")
    frozen: list[int] = []

    def freeze(data: bytes) -> None:
        if not frozen:
            frozen.extend(serving(server))
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)

    line = Attached(door)
    try:
        record = client_module.follow(
            cast(BoxContext, line), door.box, "j-1", tmp_path / "log", freeze
        )
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert (record.code, line.breaks) == (0, 1)
    assert (tmp_path / "log").read_text() == "up\nend\n"


def serving(server: Server) -> list[int]:
    """Return the pids of the box's agents that are serving somebody.

    A job's supervisor has their command line, but nobody to talk to.
    """
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            mine = words[-3:] == [os.fsencode(server.pyz), b"serve", b""]
            if mine and str((path / "fd" / "0").readlink()) != os.devnull:
                found.append(int(path.name))
    return found


@needs_sshd
def test_resuming_counts_breaks_without_progress(
    sshd: OpenSsh, open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line that breaks again and again is given up, unless it gets on between."""
    door = open_door(sshd.box)
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.01)
    breaks: list[int] = []
    moved = [10, connection.PROGRESS_BYTES, connection.PROGRESS_BYTES] + [10] * 9

    def step(link: AgentChannel) -> None:
        link.moved = moved[len(breaks)]
        raise ConnectionLost("cut")

    with pytest.raises(ConnectionLost):
        door.call_resuming(step, lambda error, attempt: breaks.append(attempt))
    assert breaks == [1, 1, 1, 2, 3, 4, 5]


def test_log_is_followed_live_over_a_slow_connection(
    server: Server, door: connection.SSHConnection, relay: Relay
) -> None:
    """At 30 ms each way, lines come as they are written, and then the end."""
    relay.delay = 0.03
    wait = "while [ ! -e go-$n ]; do sleep 0.05; done"
    start_job(door, "j-1", f"for n in 1 2 3; do echo $n; {wait}; done")
    link = door.channel()
    link.begin("follow", job="j-1", offset=0)
    came = []
    for kind, payload in link.frames(within=60):
        if kind == b"D":
            came.append(payload)
            # The next one is not written before this one has come.
            (server.work / f"go-{len(came)}").touch()
    assert came == [b"1\n", b"2\n", b"3\n"]
    assert protocol.loads(payload)["record"]["code"] == 0


def test_steps_on_an_open_connection_take_no_extra_round_trip(
    server: Server, door: connection.SSHConnection, relay: Relay, tmp_path: Path
) -> None:
    """On a warm connection no step waits for the far end more often than needed."""
    root = tmp_path / "project"
    paths = grow(root, random.Random(1), files=20)
    index, into = tmp_path / "index", tmp_path / "into"
    link = door.channel()
    push_files.push(link, root, paths, index, quiet)
    (server.work / "out").mkdir()
    names = (f"j-{number}" for number in range(100))
    steps: dict[str, Callable[[], object]] = {
        "hello": lambda: link.request("hello"),
        "push": lambda: push_files.push(link, root, paths, index, quiet),
        "run": lambda: run(link, next(names)),
        "fetch": lambda: fetch_outputs.fetch(
            link, ["out"], into, into / ".onebox", quiet
        ),
        "open": lambda: reopened(door).request("hello"),
    }
    relay.delay = 0.025
    # Last: it ends the conversation that the others are held in.
    trips = {name: fewest_turns(relay, step) for name, step in steps.items()}
    most = {"hello": 1, "push": 1, "run": 2, "fetch": 1, "open": 5}
    assert {name: n for name, n in trips.items() if n > most[name]} == {}


# -- boxes that are not as they should be -----------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"Welcome to Ubuntu 24.04 LTS\n",
        b"A\0\0\0\5hello",
        b"A\0\0\0\2[]",
        b"Y\0\0\0\0",
        b"\0" * 5,
        b"\xff" * 9000,
    ],
)
def test_anything_but_frames_is_named_at_once(
    said: bytes, keys: Keys, tmp_path: Path
) -> None:
    """Who does not speak our frames is named at once: no wait, no traceback."""
    code = f"import sys, time; sys.stdout.buffer.write({said!r}); "
    code += "sys.stdout.flush(); time.sleep(60)"
    with AgentChannel([sys.executable, "-c", code]) as link:
        with pytest.raises(ProtocolError, match="not the onebox agent"):
            link.request("hello")
        link.process.kill()


def test_shell_that_prints_a_greeting_is_named(
    door: connection.SSHConnection, server: Server
) -> None:
    """A shell that greets is named as what it is: not our agent."""
    server.pyz.write_text("print('Welcome to \\x1b[31mUbuntu')")
    with pytest.raises(ProtocolError, match=r"not the onebox agent .*Welcome to \\x1b"):
        door.channel()
    with pytest.raises(BoxFailed, match=r"not the onebox agent .*Welcome to \\x1b"):
        door.open_when_up(600, never, never, grace=0.1)


def test_incomplete_frame_ends_the_wait(
    door: connection.SSHConnection, server: Server
) -> None:
    """An agent that says half a frame and no more is not waited for for ever."""
    server.pyz.write_text(
        "import sys, time\nsys.stdout.write('A\\0')\nsys.stdout.flush()\ntime.sleep(60)"
    )
    with pytest.raises(ConnectionLost, match="does not answer"):
        door.channel(within=1.5)


def test_missing_agent_is_reported_after_the_grace_time_of_a_boot(
    door: connection.SSHConnection, server: Server
) -> None:
    """A box without its agent says so at once; while it boots, after a while."""
    agent = server.pyz.rename(server.pyz.with_name("away"))
    breaks: list[int] = []
    with pytest.raises(BoxFailed, match="agent does not run") as caught:
        door.call_resuming(lambda link: None, lambda e, n: breaks.append(n))
    assert "agent.pyz" in caught.value.message
    assert breaks == []
    with pytest.raises(BoxFailed, match="agent does not run"):
        door.open_when_up(60, never, never, grace=0.1)
    link = door.open_when_up(60, never, lambda: put_back(agent, server.pyz))
    assert link.request("hello")["box"] == server.box.id


def test_agent_without_a_description_counts_as_none(
    door: connection.SSHConnection, server: Server
) -> None:
    """An agent that has not been told what its box is counts as none."""
    (server.root / "box.json").rename(server.root / "away")
    with pytest.raises(BoxFailed, match=r"agent does not run.*box\.json"):
        door.channel()


@needs_sshd
def test_box_without_python_is_named(sshd: OpenSsh, open_door: OpenDoor) -> None:
    """A box without python3 is named as such."""
    (sshd.bin / "python3").unlink()
    with pytest.raises(BoxFailed, match="python3: not found"):
        open_door(sshd.box).channel()


def test_messages_of_the_box_are_escaped_and_bounded(
    door: connection.SSHConnection, server: Server
) -> None:
    """Control characters and floods on stderr reach neither screen nor disk."""
    server.pyz.write_text(
        "import sys\nsys.stderr.write('x' * 3000000 + '\\n\\x1b[2Jfatal')\nsys.exit(3)"
    )
    with pytest.raises(BoxFailed) as caught:
        door.channel()
    assert caught.value.message.endswith("run: \\x1b[2Jfatal")
    assert {path.name for path in door.directory.iterdir()} == {
        "config",
        "known_hosts",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"id": "-oProxyCommand=x"},
        {"id": "a b"},
        {"id": "a\nb"},
        {"host": "h\n  ProxyCommand x"},
        {"host": "-oX"},
        {"user": "u\n  ProxyCommand x"},
        {"user": ""},
    ],
)
def test_names_that_ssh_would_take_for_more(
    change: dict[str, Any], keys: Keys, open_door: OpenDoor
) -> None:
    """An id, host or user that is no plain word never gets to ssh."""
    box = dataclasses.replace(a_box(1, keys), **change)
    with pytest.raises(OneboxError):
        open_door(box)


@needs_sshd
def test_the_path_of_the_agent_is_one_word(
    sshd: OpenSsh, tmp_path: Path, open_door: OpenDoor
) -> None:
    """Whatever the agent's path holds, the box's shell does not act on it."""
    odd = tmp_path / "$(touch trap) '`;&"
    sshd.root.rename(odd)
    box = dataclasses.replace(sshd.box, agent=str(odd / "agent.pyz"))
    assert open_door(box).channel().request("hello")["box"] == sshd.box.id
    assert list(tmp_path.rglob("trap")) == []


def test_missing_openssh_client_names_what_to_install(
    keys: Keys, open_door: OpenDoor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without OpenSSH's client there is one clear sentence, and what to install."""
    door = open_door(a_box(1, keys))
    monkeypatch.setenv("PATH", str(tmp_path))
    for what in (door.channel, lambda: owner_keys.identity(tmp_path / "own")):
        with pytest.raises(OneboxError, match="no OpenSSH client") as caught:
            what()
        assert not isinstance(caught.value, ConnectionLost)
        assert "install" in caught.value.next


def test_secrets_stay_off_the_disk_and_the_command_line(
    door: connection.SSHConnection, server: Server
) -> None:
    """A secret travels in a frame: no file of ours and no ssh command holds it."""
    word = secrets.token_hex(16)
    (server.work / "out").mkdir()
    door.channel().request(
        "start",
        job="j-1",
        shell="echo $WORD > out/word; sleep 60",
        env={},
        secrets={"WORD": word},
        outputs=[],
        cancel_grace=1,
    )
    for _ in range(3):
        door.close(force=True)
        door.channel()
    wait_until(lambda: (server.work / "out" / "word").exists())
    for path in door.directory.iterdir():
        assert word not in path.read_text()
    assert len(list(door.directory.iterdir())) == 2
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert word.encode() not in path.read_bytes()
    door.channel().request("cancel", job="j-1")


# -- sockets --------------------------------------------------------------------------


def test_sockets_fit_below_a_long_tmpdir(
    server: Server,
    open_door: OpenDoor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However long TMPDIR and the box's id are, the socket's path is short enough."""
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    named = dataclasses.replace(server.box, id="b" * 64)
    door = open_door(named)
    door.channel()
    assert door.socket.exists()
    # ssh makes the socket under a name that is 17 characters longer.
    assert len(os.fsencode(door.socket)) + 17 < 104
    assert f"/onebox-{os.getuid()}/" in str(door.socket)


def spoil(path: Path, how: str) -> None:
    """Make a socket folder one that must not be used."""
    if how == "open":
        path.chmod(0o777)
    elif how == "file":
        path.rmdir()
        path.touch()
    elif how == "link":
        path.rmdir()
        path.symlink_to(tempfile.mkdtemp(dir=path.parent))
    elif os.getuid() == 0:
        os.chown(path, 1, 1)
    else:
        pytest.skip("only root can make a folder that is another user's")


@pytest.mark.parametrize("where", ["TMPDIR", "XDG_RUNTIME_DIR"])
@pytest.mark.parametrize("how", ["open", "link", "file", "foreign"])
def test_a_socket_folder_that_is_not_ours_is_passed_over(
    where: str, how: str, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A socket folder that others can enter, or have made, is not used.

    There is another one, below the state directory at the latest.
    """
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    environ = {"ONEBOX_STATE": str(short / "state"), where: str(short)}
    name = "onebox" if where == "XDG_RUNTIME_DIR" else f"onebox-{os.getuid()}"
    path = short / name
    assert ssh_config.socket_dir(environ) == path
    spoil(path, how)
    found = ssh_config.socket_dir(environ)
    assert found != path
    assert found.lstat().st_mode & 0o777 == 0o700


def test_sockets_lie_below_state_where_all_of_tmp_is_taken(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another user has taken every name in /tmp, the state directory serves."""
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    monkeypatch.setattr(ssh_config, "SHARED_TMP", short)
    spoil(ssh_config.socket_dir({}), "open")
    environ = {"ONEBOX_STATE": str(short / "state")}
    assert ssh_config.socket_dir(environ) == short / "state" / "ssh"
    environ = {"ONEBOX_STATE": str(short / ("long" * 20))}
    with pytest.raises(OneboxError, match=r"open to others; .*is too long") as caught:
        ssh_config.socket_dir(environ)
    assert "TMPDIR" in caught.value.next


def test_the_longest_socket_folder_is_short_enough_for_ssh(
    server: Server, open_door: OpenDoor, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh makes its socket in the longest folder that we would choose."""
    runtime = short / ("r" * (ssh_config.FOLDER_BYTES - len(f"{short}//onebox")))
    runtime.mkdir()
    found = ssh_config.socket_dir({"XDG_RUNTIME_DIR": str(runtime)})
    assert len(str(found)) == ssh_config.FOLDER_BYTES
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    box = dataclasses.replace(server.box, id=f"box-{'x' * 10}")
    way = open_door(box)
    way.channel()
    assert way.socket.parent == found
    assert len(way.socket.name) == 27
    assert way.socket.exists()


# -- helpers --------------------------------------------------------------------------


class Attached:
    """The parts of a BoxContext that `client.follow` uses."""

    def __init__(self, door: connection.SSHConnection) -> None:
        self._door = door
        self.screen = self.liveness = self
        self.settings = SimpleNamespace(limits=SimpleNamespace(max_log=5 << 30))
        self.breaks = 0
        self.chain = SimpleNamespace(stage="")

    def ssh(self, box: Box) -> connection.SSHConnection:
        """Return the connection to the box."""
        return self._door

    def check(self, box: Box) -> None:
        """Report the box as running; each call follows a broken connection."""
        self.breaks += 1

    def note(self, text: str) -> None:
        """Say nothing."""


def never() -> None:
    """Nothing to say."""


def quiet(*how_far: int) -> None:
    """Show no progress."""


def put_back(file: Path, to: Path) -> None:
    """Rename a file if it is still there."""
    with contextlib.suppress(FileNotFoundError):
        file.rename(to)


def seeded() -> random.Random:
    """Return a source of chance whose seed a failure shows."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    return random.Random(seed)


def grow(root: Path, chance: random.Random, files: int = 60) -> list[bytes]:
    """Make a tree of odd names and random contents; return its paths."""
    stems = [b"plain", b"a b", b"-dash", b"new\nline", b"\xff\xfe", "é".encode()]
    paths = []
    for number in range(files):
        size = chance.choice([0, 1, 1000, 50_000, 150_000])
        path = b"%s/%s-%d" % (chance.choice(stems), chance.choice(stems), number)
        whole = root / os.fsdecode(path)
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_bytes(chance.randbytes(size))
        whole.chmod(chance.choice([0o644, 0o755]))
        paths.append(path)
    return sorted(paths)


def tree(root: Path) -> dict[bytes, tuple[int, bytes]]:
    """Return the modes and contents of all files below a folder."""
    return {
        os.fsencode(path.relative_to(root)): (
            stat.S_IMODE(path.stat().st_mode),
            path.read_bytes(),
        )
        for path in root.rglob("*")
        if path.is_file()
    }


def until_done(
    door: connection.SSHConnection, step: Callable[[AgentChannel], Any]
) -> Any:
    """Do a step again after each break, as long as the relay has cuts to make."""
    for _ in range(CUTS + 1):
        try:
            return step(door.channel())
        except ConnectionLost:
            door.close(force=True)
    raise AssertionError("it broke without a cut")


def fewest_turns(relay: Relay, step: Callable[[], object]) -> int:
    """Return how many round trips a step needs: on a busy machine it may take more."""
    turns = []
    for _ in range(4):
        before = relay.turns
        step()
        turns.append(relay.turns - before)
    return min(turns)


def run(link: AgentChannel, name: str) -> None:
    """Run a job that does nothing, to its end."""
    link.request("start", job=name, argv=["true"])
    assert link.request("follow", job=name, offset=0)["state"] == "exited"


def reopened(door: connection.SSHConnection) -> AgentChannel:
    """Return a new conversation over the shared connection."""
    door.close()
    return door.channel()


def start_job(door: connection.SSHConnection, name: str, line: str) -> None:
    """Start a shell line as a job."""
    door.channel().request(
        "start", job=name, shell=line, env={}, secrets={}, outputs=[], cancel_grace=1
    )


def check(door: connection.SSHConnection) -> str:
    """Ask the shared connection whether it is there."""
    done = subprocess.run(
        door.argv("-O", "check"), capture_output=True, text=True, check=False
    )
    return done.stderr.strip()


def start(
    door: connection.SSHConnection, keys: Keys, scratch: Path, code: str
) -> subprocess.Popen[bytes]:
    """Run code with a `door` to the same box in another process."""
    box = scratch / "box.pickle"
    box.write_bytes(pickle.dumps(door.box))
    whole = (
        "import pathlib, pickle, sys, time\n"
        "from onebox.remote.connection import SSHConnection\n"
        "box, folder, key = map(pathlib.Path, sys.argv[1:])\n"
        f"door = SSHConnection(pickle.loads(box.read_bytes()), folder, key)\n{code}"
    )
    words = [str(box), str(door.directory), str(keys.directory / "user")]
    return subprocess.Popen(
        [sys.executable, "-c", whole, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def client(
    door: connection.SSHConnection, keys: Keys, scratch: Path, code: str
) -> list[str]:
    """Run code in another process to its end; return the words it prints."""
    with start(door, keys, scratch, code) as process:
        out = process.communicate()[0]
    assert process.returncode == 0
    return out.decode().split()


def a_box(port: int, keys: Keys) -> Box:
    """Return a box of which there is no more than a port."""
    return sshd_box(port, "nobody", keys, "/nowhere/agent.pyz")


def chatter(listener: socket.socket) -> None:
    """Greet whoever comes with what is no ssh."""
    while True:
        try:
            guest, _ = listener.accept()
        except OSError:
            return
        with guest, contextlib.suppress(OSError):
            guest.sendall(b"220 mail ready\r\n" * 2000)
