"""
Replace the box's ssh host key with a key that was generated on the box.

The box boots with a host key from its user data, which other programs with
access to the cloud account can read.

===========  =========  =====================================================
op           arguments  answer
===========  =========  =====================================================
hostkey_new  --         public: the key that `hostkey_use` will install
hostkey_use  public     public: the key that sshd uses now
===========  =========  =====================================================

Both requests can be repeated, so a client that was killed starts over:

- `hostkey_new` only creates a second key file; a repetition returns the same key;
- `hostkey_use` atomically replaces the key file and then reloads sshd. If it is
  interrupted, sshd may use either key until `hostkey_use` is repeated with the
  same key, or the box boots;
- after `hostkey_use`, sshd uses only the new key.

A client that knows only one of the two keys may be locked out. So a client stores
both keys, then sends `hostkey_use`, and only then forgets the old key. Open
connections are not affected.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import time
from typing import Any, Dict, Iterator, List

from .box import BoxConfig
from .protocol import Channel, Refused

# On a loaded box, a command may take this many seconds, and a reload of sshd as many.
PATIENCE = 30.0
PAUSE = 0.2
# The name of sshd's service depends on the distribution.
SERVICES = ("ssh", "sshd")


def new(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """Generate a second host key, unless it already exists; return its public key."""
    with _exclusive(box):
        fresh = box.host_key + ".new"
        if not _public(box, fresh):
            draft = box.host_key + ".draft"
            _check_run(box, ["rm", "-f", draft, draft + ".pub"])
            options = ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", draft]
            _check_run(box, ["ssh-keygen", *options])
            _check_run(box, ["rm", "-f", draft + ".pub"])
            _rename(box, draft, fresh)
        return {"public": _public(box, fresh)}


def use(channel: Channel, box: BoxConfig, request: Dict[str, Any]) -> Dict[str, Any]:
    """Install the host key that `new` generated, and reload sshd."""
    public = str(request.get("public"))
    with _exclusive(box):
        fresh = box.host_key + ".new"
        if _public(box, fresh) == public:
            _rename(box, fresh, box.host_key)
        elif _public(box, box.host_key) != public:
            raise Refused("hostkey", "this box has no host key %r" % public)
        _reload(box)
        _wait_for(box, public)
    return {"public": public}


OPS = {"hostkey_new": new, "hostkey_use": use}


@contextlib.contextmanager
def _exclusive(box: BoxConfig) -> Iterator[None]:
    """
    Allow one host key request at a time.

    Raises `Refused` if the host key did not come with the user data.
    """
    if not box.host_key:
        raise Refused("hostkey", "this box generated its host keys itself")
    with open(box.path("hostkey.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _public(box: BoxConfig, path: str) -> str:
    """Return the public key of a key file, "" if the file is missing or invalid."""
    done = _run(box, ["ssh-keygen", "-y", "-P", "", "-f", path])
    return " ".join(done.stdout.split()[:2]) if done.returncode == 0 else ""


def _rename(box: BoxConfig, old: str, new: str) -> None:
    _check_run(box, ["sync", old])
    _check_run(box, ["mv", "-f", "-T", old, new])
    _check_run(box, ["sync", os.path.dirname(new)])


def _reload(box: BoxConfig) -> None:
    for service in SERVICES:
        if _run(box, ["systemctl", "reload", service]).returncode == 0:
            return
    raise Refused("hostkey", "sshd could not be reloaded")


def _wait_for(box: BoxConfig, public: str) -> None:
    """Wait until sshd uses the key *public*; a reload takes effect with a delay."""
    where = os.environ.get("SSH_CONNECTION", "").split() or ["", "", "127.0.0.1", "22"]
    scan = ["ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", where[3], where[2]]
    end = time.monotonic() + PATIENCE
    while public not in _run(box, scan).stdout:
        if time.monotonic() > end:
            raise Refused("hostkey", "sshd does not use its new host key")
        time.sleep(PAUSE)


def _check_run(box: BoxConfig, argv: List[str]) -> None:
    done = _run(box, argv)
    if done.returncode:
        raise Refused("hostkey", "%s: %s" % (argv[0], done.stderr.strip()))


def _run(box: BoxConfig, argv: List[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command as root. Raises `Refused` if it exceeds `PATIENCE`."""
    try:
        return subprocess.run(
            box.as_root(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            universal_newlines=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = "%s did not finish within %.0f s" % (argv[0], PATIENCE)
        raise Refused("hostkey", message) from error
