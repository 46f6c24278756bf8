"""
Tell a URL that a job has ended; the box does so if no client is there to do it.

Either the box or the client notifies, never both. The one that notifies creates the
file `notified` in the job's directory first, and only one of them can create it. A
client that follows the job has some time to do so before the box.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from typing import List

from .exit_record import StoredExitRecord

NAME = "notified"
# Each client that follows the job holds a shared lock on this file.
FOLLOWERS = "followers"
# Times in seconds. A client that follows the job at its end has CLIENT_WAIT to claim
# the notification, but only GONE_WAIT once it no longer follows.
CLIENT_WAIT = 60.0
GONE_WAIT = 5.0
# A request may take TIMEOUT, and all attempts together twice as long.
TIMEOUT = 5.0
ATTEMPTS = 2
PAUSE = 0.5
SCHEMES = ("http", "https")


def claim(directory: str) -> bool:
    """Return whether the caller has to notify; only the first call returns True."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        os.close(os.open(os.path.join(directory, NAME), flags, 0o600))
    except FileExistsError:
        return False
    return True


def follow(directory: str) -> int:
    """Return a descriptor; while it is open, this process follows the job."""
    path = os.path.join(directory, FOLLOWERS)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_SH)
    return fd


def has_follower(directory: str) -> bool:
    """Return whether a client follows the job."""
    try:
        fd = os.open(os.path.join(directory, FOLLOWERS), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def after_end(
    directory: str, url: str, record: StoredExitRecord, followed: bool
) -> None:
    """
    Post to *url* that a job has ended, unless a client claims the notification.

    *followed* is whether a client followed the job at its end. If none did, one may be
    about to: a job can end before the client that has started it follows, or before
    that client has locked the file of the followers. A failure is written to stderr,
    without the URL.
    """
    age = 0.0
    with contextlib.suppress(FileNotFoundError):
        age = time.time() - os.stat(os.path.join(directory, FOLLOWERS)).st_mtime
    followed = followed or (age < GONE_WAIT and record.cause == "exit")
    left_at = now = time.monotonic()
    end = now + CLIENT_WAIT
    while followed and now < min(end, left_at + GONE_WAIT):
        if os.path.exists(os.path.join(directory, NAME)):
            return
        time.sleep(0.1)
        now = time.monotonic()
        if has_follower(directory):
            left_at = now
    if not claim(directory):
        return
    report = {
        "schema_version": 1,
        "kind": "receipt",
        "job": record.job,
        "exit": record.code,
        "cause": record.cause,
        "signal": record.signal,
        "started": record.started,
        "ended": record.ended,
        "seconds": record.seconds,
        "sent_by": "box",
    }
    problem = post(url, json.dumps(report).encode("ascii"))
    if problem:
        # A client that attaches later may notify instead.
        os.unlink(os.path.join(directory, NAME))
        sys.stderr.write("notification: %s\n" % problem)
        sys.stderr.flush()


def post(url: str, data: bytes) -> str:
    """
    Post a JSON document; return what went wrong, "" if the server has accepted it.

    A request that fails is repeated once, unless the server refuses it (4xx).
    Redirects are not followed. The returned text does not contain the URL, which may
    contain a token.
    """
    outcome: List[str] = []
    # The timeout of a socket starts again at each byte. This thread is abandoned if a
    # server sends its answer too slowly.
    thread = threading.Thread(target=_try, args=(url, data, outcome), daemon=True)
    thread.start()
    thread.join(ATTEMPTS * (TIMEOUT + PAUSE) + 1)
    return outcome[-1] if outcome else "no answer within %g s" % TIMEOUT


def _try(url: str, data: bytes, outcome: List[str]) -> None:
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        problem = _post_once(url, data)
        outcome.append(problem)
        if not problem or problem.startswith("HTTP status 4"):
            return


def _post_once(url: str, data: bytes) -> str:
    # These modules are imported here, because few boxes need them and they load slowly.
    import http.client
    import socket
    import urllib.error
    import urllib.request

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    if url.partition(":")[0].lower() not in SCHEMES:
        return "not an http or https URL"
    headers = {"Content-Type": "application/json", "User-Agent": "onebox"}
    try:
        request = urllib.request.Request(url, data, headers, method="POST")  # noqa: S310 - checked above
        with opener.open(request, timeout=TIMEOUT):
            return ""
    except urllib.error.HTTPError as error:
        return "HTTP status %d" % error.code
    except urllib.error.URLError as error:
        reason = error.reason
        if isinstance(reason, socket.timeout):
            return "no answer within %g s" % TIMEOUT
        return (isinstance(reason, OSError) and reason.strerror) or "no connection"
    except socket.timeout:
        return "no answer within %g s" % TIMEOUT
    except OSError as error:
        return error.strerror or "the connection broke"
    except (http.client.HTTPException, ValueError) as error:
        # The text of these errors may contain the URL.
        return "%s" % type(error).__name__
