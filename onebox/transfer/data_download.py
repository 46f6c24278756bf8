"""
Have the box download objects, and make links for it while it does.

A broken connection raises `ConnectionLost`; the same call over a new channel continues
the download.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from onebox import formatting
from onebox.agent import protocol
from onebox.agent.downloads.limits import MOST_LINKS
from onebox.agent.file_names import show, text
from onebox.agent.files import manifest_exchange
from onebox.errors import BoxFailed, InputError, NotAllowed, OneboxError, ProtocolError
from onebox.providers.object_stores import ObjectStores
from onebox.remote import data_answers
from onebox.remote.channel import AgentChannel, AgentError
from onebox.remote.data_answers import DownloadReport, DownloadResult
from onebox.transfer.data_listing import DataFile, DataListing
from onebox.transfer.progress import Progress

# Links are made by so many threads, because some need a request of their own.
_THREADS = 8


@dataclass(frozen=True)
class Downloaded:
    """
    What a download did.

    *files* and *bytes* count what was missing on the box and in its image, *from_image*
    the files that the image had, *checked* the files that were compared with a checksum
    of their store, *deleted* the files that were removed.
    *changed* are objects that were not as they had been listed.
    """

    files: int
    bytes: int
    checked: int
    deleted: int
    from_image: int = 0
    changed: Sequence[DataFile] = ()


def missing(channel: AgentChannel, listing: DataListing) -> DownloadResult:
    """Return what a download would do on this box."""
    channel.begin("download", write=False)
    _send_files(channel, listing)
    return DownloadResult.parse(channel.finish(), len(listing.files))


def download(
    channel: AgentChannel,
    listing: DataListing,
    stores: ObjectStores,
    progress: Progress,
    *,
    into_image: bool = False,
) -> Downloaded:
    """
    Make the box's files equal to the listed objects; remove those that are not listed.

    Args:
        progress: Is called with the files and bytes that are done, and with all of
            them.

        into_image: Put the files where boxes of the image find them, and not into the
            project's folder.

    Raises:
        OneboxError: The download cannot go on; what has arrived stays on the box.
    """
    count = len(listing.files)
    asked: dict[int, int] = {}
    moved = 0
    with ThreadPoolExecutor(_THREADS) as threads:
        channel.begin("download", write=True, into_image=into_image)
        _send_files(channel, listing)
        for kind, payload in _frames(channel):
            value = protocol.loads(payload)
            if kind == b"A":
                return _result(listing, DownloadResult.parse(value, count))
            if kind != b"S":
                raise ProtocolError(f"unexpected frame {kind!r} in a download")
            found = data_answers.note(value, count)
            if isinstance(found, DownloadReport):
                # A connection over which the box reports progress is a good one.
                channel.moved += max(found.bytes - moved, 0)
                moved = found.bytes
                progress(found.files, found.of_files, found.bytes, found.of_bytes)
                continue
            for index in found:
                asked[index] = asked.get(index, 0) + 1
                if asked[index] > MOST_LINKS:
                    raise ProtocolError("the box asks for a link again and again")
            rows = list(threads.map(lambda at: _link(listing, stores, at), found))
            channel.send(b"D", json.dumps(rows, separators=(",", ":")).encode())
    raise AssertionError  # `frames` ends with an answer


def _frames(channel: AgentChannel) -> Iterator[tuple[bytes, bytes]]:
    try:
        yield from channel.frames()
    except AgentError as error:
        if error.kind == "disk":
            raise BoxFailed(
                error.message, next='a larger disk = "…", or less of [push] data'
            ) from error
        raise


def _send_files(channel: AgentChannel, listing: DataListing) -> None:
    rows = (
        [
            text(file.path),
            file.found.size,
            int(file.found.modified * 1e9),
            file.found.version,
        ]
        for file in listing.files
    )
    manifest_exchange.send_rows(channel.send, rows)


def _link(listing: DataListing, stores: ObjectStores, index: int) -> list[Any]:
    file = listing.files[index]
    link = stores.of(file.source).link(file.source, file.found)
    if link is None:
        return [index, None]
    return [
        *(index, link.url, dict(link.headers), link.ranges, link.md5, link.piece),
        *(link.etag, link.modified),
    ]


def _result(listing: DataListing, result: DownloadResult) -> Downloaded:
    if result.problem is not None:
        raise _explained(listing, result)
    return Downloaded(
        files=result.missing,
        bytes=result.bytes,
        checked=result.checked,
        deleted=result.deleted,
        from_image=result.from_image,
        changed=[listing.files[index] for index in result.changed],
    )


def _explained(listing: DataListing, result: DownloadResult) -> OneboxError:
    """Return the error for a download that ended early."""
    problem = result.problem
    assert problem is not None
    file = listing.files[problem.index]
    name = file.source.shown
    if file.source.is_folder:
        key = file.found.key.encode("utf-8", "surrogateescape")
        name = f"{file.source.scheme}://{file.source.bucket}/{show(key)}"
    arrived = f"{result.downloaded:,} of {formatting.count(result.missing, 'file')}"
    what = f"the box cannot download {name}: {problem.message} ({arrived} arrived)"
    again = "the same command again; a box that is kept has what arrived"
    if "InvalidObjectState" in problem.message:
        return InputError(what, next="restore it from the archive first")
    if problem.kind == "denied":
        return NotAllowed(what, next="allow the credentials here to read it")
    if problem.kind == "expired":
        return NotAllowed(what, next="renew the credentials here")
    if problem.kind == "checksum":
        return InputError(
            f"{name} arrives with a wrong checksum, again",
            next="look at the object: its store may be damaged",
        )
    if problem.kind == "disk":
        return BoxFailed(what, next='a larger disk = "…", or less of [push] data')
    if problem.kind == "unreachable":
        return BoxFailed(what, next="the box needs a route to that host")
    return BoxFailed(what, next=again)
