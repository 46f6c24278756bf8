"""
Poll the cloud's metadata service for the announcement of a preemption.

The announcement is written to the file `notice`, which the watchdog reads. The
polling runs in its own thread, so that a metadata service that hangs, sends
nonsense or is missing delays nothing else.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Callable, Dict, Optional, Tuple

from .box import BoxConfig, replace_file

Address = Tuple[str, int]
# A query returns the moment of the preemption in seconds since the epoch, or None if
# no preemption is announced.
Query = Callable[[Address], Optional[float]]

SERVICE: Address = ("169.254.169.254", 80)
# A request may take this many seconds. The metadata service runs on the machine's own
# host, so it answers quickly or not at all.
TIMEOUT = 3.0
LONGEST_ANSWER = 1 << 16
TOKEN_SECONDS = 21600
# Google stops the machine at most this many seconds after the announcement.
GCE_SECONDS = 30.0


def listen(box: BoxConfig, address: Address = SERVICE) -> None:
    """Start the polling thread, if the box's cloud announces preemptions."""
    if box.notice in QUERIES:
        query, pause = QUERIES[box.notice]
        thread = threading.Thread(target=_poll, args=(box, query, pause, address))
        thread.daemon = True
        thread.start()


def _poll(box: BoxConfig, query: Query, pause: float, address: Address) -> None:
    # http.client is imported here, because it is half of all that the watchdog would
    # load. On a cloud that announces no preemption, the watchdog does not need it.
    from http.client import HTTPException

    while True:
        try:
            moment = query(address)
            if moment is not None:
                data = json.dumps({"at": moment}).encode("ascii")
                replace_file(box.path("notice"), data, 0o644, sync=False)
                return
        except (OSError, ValueError, KeyError, TypeError, HTTPException):
            # The service is missing, its answer is invalid, or the disk is full. The
            # loop tries again after the pause.
            pass
        time.sleep(pause)


def _ec2(address: Address) -> Optional[float]:
    headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
    status, token = request(address, "PUT", "/latest/api/token", headers)
    if status != 200:
        return None
    headers = {"X-aws-ec2-metadata-token": token.decode("ascii").strip()}
    status, body = request(
        address, "GET", "/latest/meta-data/spot/instance-action", headers
    )
    if status != 200:
        return None
    # Most boxes never get here, and the module costs an agent 5 ms of its start.
    import calendar

    moment = str(json.loads(body)["time"])
    return float(calendar.timegm(time.strptime(moment, "%Y-%m-%dT%H:%M:%SZ")))


def _gce(address: Address) -> Optional[float]:
    path = "/computeMetadata/v1/instance/preempted"
    status, body = request(address, "GET", path, {"Metadata-Flavor": "Google"})
    if status == 200 and body.strip() == b"TRUE":
        return time.time() + GCE_SECONDS
    return None


# Each metadata service has a query and a pause in seconds between two queries.
QUERIES: Dict[str, Tuple[Query, float]] = {"ec2": (_ec2, 5.0), "gce": (_gce, 1.0)}


def request(
    address: Address, method: str, path: str, headers: Dict[str, str]
) -> Tuple[int, bytes]:
    """Send a request to the metadata service; return status and body of the answer."""
    # urllib is not used here, because it would send the request to a proxy.
    from http.client import HTTPConnection

    connection = HTTPConnection(*address, timeout=TIMEOUT)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(LONGEST_ANSWER)
    finally:
        connection.close()
