"""
Hear from the cloud's metadata service that it takes the box back.

What it says becomes the file `notice`, upon which the watch acts. All of this
happens in a thread of its own: a metadata service that hangs, lies or is not
there delays nothing else.
"""

from __future__ import annotations

import calendar
import json
import os
import threading
import time
from typing import Callable, Dict, Optional, Tuple

from .box import Box

Address = Tuple[str, int]

SERVICE: Address = ("169.254.169.254", 80)
# It answers from the same machine, or not at all.
TIMEOUT = 3.0
LONGEST_ANSWER = 1 << 16
TOKEN_SECONDS = 21600
# What Google gives at the most, from the moment it tells.
GCE_SECONDS = 30.0


def listen(at: Box, address: Address = SERVICE) -> None:
    """Begin to ask the metadata service, if the box's cloud has one that tells."""
    if at.notice in ASK:
        ask, pause = ASK[at.notice]
        asking = threading.Thread(target=_listen, args=(at, ask, pause, address))
        asking.daemon = True
        asking.start()


def _listen(
    at: Box, ask: Callable[[Address], Optional[float]], pause: float, address: Address
) -> None:
    # Half of what a watch would load otherwise, also where there is no cloud.
    from http.client import HTTPException

    while True:
        try:
            goes = ask(address)
            if goes is not None:
                _write(at, goes)
                return
        except (OSError, ValueError, KeyError, TypeError, HTTPException):
            # Nobody there, or not what it should be: it may be better next time.
            pass
        time.sleep(pause)


def _ec2(address: Address) -> Optional[float]:
    head = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
    status, token = _request(address, "PUT", "/latest/api/token", head)
    if status != 200:
        return None
    head = {"X-aws-ec2-metadata-token": token.decode("ascii").strip()}
    status, told = _request(
        address, "GET", "/latest/meta-data/spot/instance-action", head
    )
    if status != 200:
        return None
    moment = str(json.loads(told)["time"])
    return float(calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")))


def _gce(address: Address) -> Optional[float]:
    path = "/computeMetadata/v1/instance/preempted"
    status, told = _request(address, "GET", path, {"Metadata-Flavor": "Google"})
    if status == 200 and told.strip() == b"TRUE":
        return time.time() + GCE_SECONDS
    return None


# How to ask, and how many seconds to wait before asking again.
ASK = {"ec2": (_ec2, 5.0), "gce": (_gce, 1.0)}


def _request(
    address: Address, method: str, path: str, head: Dict[str, str]
) -> Tuple[int, bytes]:
    # Not urllib: that would look for proxies.
    from http.client import HTTPConnection

    connection = HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request(method, path, headers=head)
        answer = connection.getresponse()
        return answer.status, answer.read(LONGEST_ANSWER)
    finally:
        connection.close()


def _write(at: Box, goes: float) -> None:
    """Leave the notice, whole or not at all. Raises `OSError` on a full disk."""
    fresh = at.path("notice.new")
    with open(fresh, "w", encoding="ascii") as file:
        json.dump({"at": goes}, file)
        os.fchmod(file.fileno(), 0o644)
    os.replace(fresh, at.path("notice"))
