"""
The operation `download`: make files equal to objects of buckets and web servers.

The request is followed by the list of objects, as rows: path, size, time, version. If
the argument *write* is not set, the answer only says what is missing. Otherwise the
agent asks for the links of some objects at a time in an S frame (`links`), and the
client answers with a D frame: a JSON list of rows with the number of the object, its
address (null if the object has changed), headers, whether ranges work, its checksum,
the size of the checksum's pieces, and the headers ETag and Last-Modified of its listed
version. Other S frames say how far the download is: the *files* that are complete, and
the *bytes* that have arrived, of all that this download brings.

If *into_image* is set, the files go to the folder `cache.CACHE` and not into the work
folder. A box of the image moves them to their places when they are wanted.

Answer: *missing* and *bytes* count what had to be downloaded, *from_image* the files
that the image had, *downloaded* and *checked* the files that are complete now, and
those of them that were compared with a checksum. *changed* lists objects that were not
as they had been listed, and *problem* says why the download ended early, with the
number of an object. *deleted* counts the files of an earlier download that were
removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any, Dict, List, Tuple

from .. import protocol
from ..box import BoxConfig, disk_space, touch
from ..file_names import check_path, raw
from ..files import manifest_exchange
from ..files.apply_push import push_lock
from ..files.file_ops import refusing
from ..files.striping import Incoming, Pulse
from . import cache, removal
from .engine import Engine, Link, Problem
from .limits import MOST_CHANGED
from .partial_file import name_of
from .placing import Placing
from .record import DownloadRecord, Wanted

REPORT_SECONDS = 0.2


def download(
    channel: protocol.Channel, box: BoxConfig, request: Dict[str, Any]
) -> Dict[str, Any]:
    """Compare the downloaded files with a list of objects, or download what differs."""
    write = bool(request["write"])
    with refusing(), contextlib.ExitStack() as stack:
        os.makedirs(box.path("files"), exist_ok=True)
        if write:
            stack.enter_context(push_lock(box))
        frames = stack.enter_context(contextlib.closing(Incoming(channel, box)))
        into_image = bool(request.get("into_image"))
        record = DownloadRecord(box)
        wanted = [_wanted(row) for row in manifest_exchange.receive_rows(frames)]
        missing, gone = _compare(box, record, wanted, into_image)
        answer: Dict[str, Any] = {
            "missing": len(missing),
            "bytes": sum(wanted[at].size for at in missing),
            "deleted": len(gone),
            "from_image": 0,
            "downloaded": 0,
            "checked": 0,
            "changed": [],
            "problem": None,
        }
        if not write:
            return answer
        removal.remove(box, record, gone)
        if not into_image:
            missing = cache.take(box, record, wanted, missing)
        staging = cache.staging(box) if into_image else removal.staging(box)
        answer["from_image"] = answer["missing"] - len(missing)
        answer["missing"] = len(missing)
        answer["bytes"] = sum(wanted[at].size for at in missing)
        begun = removal.remove_partial(staging, (name_of(wanted[at]) for at in missing))
        _check_space(box, answer["bytes"] - begun)
        placing = cache.Cache(box) if into_image else Placing(box, record)
        engine = Engine(box, staging, wanted, missing, placing)
        try:
            _run(channel, box, engine)
        except Problem as problem:
            answer["problem"] = {
                "kind": problem.kind,
                "object": problem.index,
                "message": problem.message,
            }
        else:
            engine.finish()
        finally:
            engine.close()
        answer["downloaded"], answer["checked"] = engine.done, engine.checked
        answer["changed"] = sorted(engine.changed)[:MOST_CHANGED]
        return answer


def _compare(
    box: BoxConfig, record: DownloadRecord, wanted: List[Wanted], into_image: bool
) -> Tuple[List[int], List[bytes]]:
    """Return the objects that are missing, and the paths that are not wanted."""
    if into_image:
        kept = cache.Cache(box)
        missing = [at for at, one in enumerate(wanted) if not kept.has(one)]
        kept.close()
        return missing, []
    missing = [at for at, one in enumerate(wanted) if not record.has(one)]
    paths = {one.path for one in wanted}
    return missing, [path for path in record.paths() if path not in paths]


def _run(channel: protocol.Channel, box: BoxConfig, engine: Engine) -> None:
    alive = Pulse(channel, box)
    reported = 0.0
    expected = 0
    while not engine.is_finished:
        asked = engine.to_ask()
        if asked:
            channel.send_json(b"S", {"links": asked})
            expected += 1
        also = [channel.read_fd] if expected else []
        readable = engine.step(also, REPORT_SECONDS)
        # A frame may be in the channel's buffer already.
        while expected and (readable or channel.next_kind()):
            readable = []
            kind, payload = channel.receive()
            if kind == b"P":
                touch(box.path("lease"))
            elif kind == b"D":
                expected -= 1
                _take_links(engine, payload)
            else:
                raise protocol.Refused("order", "expected links, got %r" % kind)
        if not expected:
            alive()
        now = time.monotonic()
        if now > reported + REPORT_SECONDS:
            reported = now
            report = {
                "files": engine.done,
                "of_files": engine.count,
                "bytes": max(engine.moved, 0),
                "of_bytes": engine.total,
            }
            channel.send_json(b"S", report)


def _take_links(engine: Engine, payload: bytes) -> None:
    rows: List[Any] = json.loads(payload)
    for index, url, *rest in rows:
        if url is None:
            engine.skip(index)
            continue
        headers, ranges, md5, piece, etag, modified = rest
        names = {str(name): str(value) for name, value in headers.items()}
        link = Link(
            *(str(url), names, bool(ranges), str(md5), int(piece)),
            *(str(etag), str(modified)),
        )
        engine.take(index, link)


def _wanted(row: Any) -> Wanted:
    path, size, mtime_ns, version = row
    wanted = Wanted(raw(path), int(size), int(mtime_ns), raw(version))
    check_path(wanted.path)
    if wanted.size < 0:
        raise ValueError("a negative size")
    return wanted


def _check_space(box: BoxConfig, size: int) -> None:
    """Raise `Refused` if the disk has too little space for what is missing."""
    free = disk_space(box.work)[0]
    if size > free:
        raise protocol.Refused(
            "disk", "the box's disk has %d bytes free, %d are needed" % (free, size)
        )
