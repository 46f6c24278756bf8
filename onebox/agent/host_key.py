"""
Give the box a host key that nobody else has ever seen.

Its first one went through user data, where whoever may read that finds it.

===========  =========  =====================================================
op           arguments  answer
===========  =========  =====================================================
hostkey_new  --         public: the key that `hostkey_use` would put in place
hostkey_use  public     public: the key that sshd answers with now
===========  =========  =====================================================

Both may be asked for any number of times. A client that was killed begins again:

- after `hostkey_new` nothing has changed but that there is a second key, and
  `hostkey_new` answers with the same one again;
- within `hostkey_use` the key's file is replaced, at once and for good, and then
  sshd is told. It may answer with either key until `hostkey_use` is asked for
  again with the same key, or the box boots;
- after `hostkey_use` it answers with the new one alone.

Whoever knows only one of the two may therefore be locked out: a client writes
down both, then asks for `hostkey_use`, and only then forgets the former key.
Connections that stand are not touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from typing import Any, Dict, Iterator, List

from .box import Box
from .protocol import Channel, Refused

# What a command may take on a box under load, and sshd to begin anew.
PATIENCE = 30.0
PAUSE = 0.2
# What sshd's service is called, by distribution.
SERVICES = ("ssh", "sshd")


def new(channel: Channel, at: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """Make a key beside the one in use, unless that has been done."""
    with _alone(at):
        fresh = at.host_key + ".new"
        if not _public(at, fresh):
            draft = at.host_key + ".draft"
            _do(at, ["rm", "-f", draft, draft + ".pub"])
            words = ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", draft]
            _do(at, ["ssh-keygen", *words])
            _do(at, ["rm", "-f", draft + ".pub"])
            _rename(at, draft, fresh)
        return {"public": _public(at, fresh)}


def use(channel: Channel, at: Box, request: Dict[str, Any]) -> Dict[str, Any]:
    """Have sshd answer new connections with the key that `new` has made."""
    wanted = str(request.get("public"))
    with _alone(at):
        fresh = at.host_key + ".new"
        if _public(at, fresh) == wanted:
            _rename(at, fresh, at.host_key)
        elif _public(at, at.host_key) != wanted:
            raise Refused("hostkey", "this box has no host key %r" % wanted)
        _reload(at)
        _wait_for(at, wanted)
    return {"public": wanted}


OPS = {"hostkey_new": new, "hostkey_use": use}


@contextlib.contextmanager
def _alone(at: Box) -> Iterator[None]:
    if not at.host_key:
        raise Refused("hostkey", "this box has made its host keys itself")
    with open(at.path("hostkey.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _public(at: Box, path: str) -> str:
    """Return the public half of a key, "" if there is no such key."""
    done = _run(at, ["ssh-keygen", "-y", "-P", "", "-f", path])
    return " ".join(done.stdout.split()[:2]) if done.returncode == 0 else ""


def _rename(at: Box, old: str, new: str) -> None:
    _do(at, ["sync", old])
    _do(at, ["mv", "-f", "-T", old, new])
    _do(at, ["sync", os.path.dirname(new)])


def _reload(at: Box) -> None:
    for service in SERVICES:
        if _run(at, ["systemctl", "reload", service]).returncode == 0:
            return
    raise Refused("hostkey", "sshd could not be told of its new host key")


def _wait_for(at: Box, public: str) -> None:
    """Wait until sshd, which hears of it a moment later, answers with this key."""
    where = os.environ.get("SSH_CONNECTION", "").split() or ["", "", "127.0.0.1", "22"]
    scan = ["ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", where[3], where[2]]
    end = time.monotonic() + PATIENCE
    while public not in _run(at, scan).stdout:
        if time.monotonic() > end:
            raise Refused("hostkey", "sshd does not answer with its new host key")
        time.sleep(PAUSE)


def _do(at: Box, argv: List[str]) -> None:
    done = _run(at, argv)
    if done.returncode:
        raise Refused("hostkey", "%s: %s" % (argv[0], done.stderr.strip()))


def _run(at: Box, argv: List[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            at.as_root(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            universal_newlines=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Refused("hostkey", "%s does not end" % argv[0]) from error
