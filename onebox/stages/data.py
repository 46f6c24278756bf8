"""Have the box download the data that [push] data names by an address."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from onebox import formatting, project_data, project_files
from onebox.agent.file_names import show
from onebox.errors import InputError, OneboxError, UsageError
from onebox.providers.values import Check
from onebox.settings.job_tables import overlap
from onebox.stages.plan_values import PlannedDownload
from onebox.transfer import data_download, push_rate
from onebox.transfer.data_download import Downloaded
from onebox.transfer.data_listing import DataListing
from onebox.transfer.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from onebox.context import BoxContext

# How often the objects are listed again because they change during a download.
PASSES = 3
# The rate for estimates as long as none is known, in bytes a second.
_EXAMPLE = 200 << 20


def check(context: BoxContext) -> None:
    """
    Raise an error if the configured data cannot be files of the box.

    Raises:
        InputError: A place of downloaded files is among the outputs, or the project has
            files there that are pushed.

        UsageError: The boxes of this provider have no disk of their own.
    """
    sources = context.settings.push.sources
    setting = f"{context.settings.source('push.data')}: [push] data"
    if sources and not context.provider.downloads_data:
        raise UsageError(
            f"{setting}: {context.provider_name} has no box that could download "
            f"{sources[0].shown}",
            next="let the job read it from there",
        )
    image = context.settings.image
    if context.settings.push.into_image and (image.packer or image.use):
        way = "packer" if image.packer else "use"
        where = context.settings.source("push.into_image")
        raise InputError(
            f"{where}: [push] into_image excludes [image] {way}: onebox does not build "
            "that image",
            next="let the template download the data, or remove into_image",
        )
    for source in sources:
        for output in project_files.output_roots(context):
            if overlap(source.target, output.strip("/")):
                raise InputError(
                    f"{setting}: {source.target} is among the outputs ({output}), so "
                    "downloaded files would count as results",
                    next=f'give it another place: "{source.shown} -> FOLDER/"',
                )


def check_disk(context: BoxContext) -> None:
    """
    List the data, and raise InputError if it is larger than the disk of a new box.

    Raises:
        OneboxError: The data cannot be listed.
    """
    listing = project_data.find(context)
    settings = context.settings
    table = settings.providers[context.provider_name]
    disk = settings.size.disk or getattr(table, "disk", None)
    if disk is not None and listing.bytes > disk:
        raise InputError(
            f"[push] data: {formatting.byte_count(listing.bytes)} are larger than the "
            f"disk of a box, {formatting.byte_count(disk)}",
            next=f'set a larger disk = "…" in [{context.provider_name}]',
        )


def checks(context: BoxContext) -> Iterator[Check]:
    """Yield a line of `inv doctor` for each address."""
    for source in context.settings.push.sources:
        try:
            found = next(iter(project_data.stores(context).of(source).find(source)), [])
        except OneboxError as error:
            yield Check("data", False, error.message, error.next or "inv plan")
            continue
        if found:
            yield Check("data", True, f"{source.shown} can be read")
        else:
            reason = f"there is no object below {source.shown}"
            yield Check("data", False, reason, "correct [push] data")


def check_pushed(context: BoxContext, paths: Iterable[bytes]) -> None:
    """
    Raise InputError if a file that is pushed is where downloaded files belong.

    Args:
        paths: The paths of the files that are pushed.
    """
    targets = [
        (os.fsencode(source.target), source) for source in context.settings.push.sources
    ]
    for path in paths if targets else ():
        for target, source in targets:
            below = path == target or path.startswith(target + b"/")
            if below or target.startswith(path + b"/"):
                raise InputError(
                    f"{show(path)} is pushed, and [push] data downloads {source.shown} "
                    "to the same place",
                    next=f'give it another place: "{source.shown} -> FOLDER/", or '
                    "ignore the file in .gitignore",
                )


def add_digest(context: BoxContext, digest: str) -> str:
    """Return the digest of code and local data, combined with that of the objects."""
    if not context.settings.push.sources:
        return digest
    text = f"{digest} {project_data.find(context).digest}"
    return hashlib.sha256(text.encode()).hexdigest()


def plan(
    context: BoxContext, *, compare: bool, has_box: bool
) -> PlannedDownload | None:
    """
    Return what the box would download, None if [push] data has no addresses.

    Args:
        compare: Whether the box runs, so that its files are compared.

        has_box: Whether there is a box, so that no new disk is needed.
    """
    sources = context.settings.push.sources
    if not sources:
        return None
    if not has_box:
        check_disk(context)
    listing = project_data.find(context)
    files, size, deleted = len(listing.files), listing.bytes, 0
    if compare:
        result = context.call_resuming(
            lambda channel: data_download.missing(channel, listing)
        )
        files, size, deleted = result.missing, result.bytes, result.deleted
    return PlannedDownload(
        sources=tuple(source.shown for source in sources),
        files=len(listing.files),
        bytes=listing.bytes,
        missing=files,
        missing_bytes=size,
        deleted=deleted,
        bytes_per_second=push_rate.last(_rate_file(context), context.provider_name),
    )


def download(context: BoxContext) -> None:
    """
    Have the box download what it lacks, and remove what is not listed any more.

    Raises:
        InputError: The objects keep changing.

        OneboxError: The download cannot go on; what has arrived stays on the box.
    """
    if not context.settings.push.sources:
        return
    listing = project_data.find(context)
    with context.chain.timed("data"), context.screen.stage("data") as line:
        line.doing("comparing")
        began = time.monotonic()
        done: list[Downloaded] = []
        for attempt in range(PASSES):
            if attempt:
                listing = project_data.find(context, again=True)
            result = _download(context, listing, line.progress)
            done.append(result)
            if not result.changed:
                break
        else:
            names = [show(file.path) for file in done[-1].changed]
            raise InputError(
                "objects change while the box downloads them: "
                f"{formatting.first_names(names)}",
                next="inv push, when nothing writes to them",
            )
        size = sum(one.bytes for one in done)
        spent = time.monotonic() - began
        push_rate.remember(_rate_file(context), context.provider.name, size, spent)
        line.end(*_describe(context, listing, done))


def _download(
    context: BoxContext, listing: DataListing, progress: Progress
) -> Downloaded:
    found: Downloaded = context.call_resuming(
        lambda channel: data_download.download(
            channel, listing, project_data.stores(context), progress
        )
    )
    return found


def describe_time(size: int, rate: float | None) -> str:
    """
    Return how long a download of *size* bytes takes, "" for a small one.

    Args:
        rate: The rate of the last download, None if it is unknown.
    """
    if size < push_rate.BIG:
        return ""
    speed = f"{formatting.byte_count(rate or _EXAMPLE)}/s"
    about = f"about {formatting.seconds(size / (rate or _EXAMPLE))}"
    if rate is None:
        return f"{about} at a guess of {speed}"
    return f"{about} at the {speed} of the last download"


def describe_sources(context: BoxContext, listing: DataListing) -> str:
    """Return a phrase that names the addresses, with what is there."""
    phrases = []
    for source in context.settings.push.sources:
        files = listing.of(source)
        size = formatting.byte_count(sum(file.found.size for file in files))
        if source.is_folder:
            size = f"{formatting.count(len(files), 'object')}, {size}"
        slash = "/" if source.is_folder else ""
        place = formatting.path(f"{source.target}{slash}")
        phrases.append(f"{source.shown} → {place} ({size})")
    return formatting.first_names(phrases)


def _describe(
    context: BoxContext, listing: DataListing, done: list[Downloaded]
) -> tuple[str, str]:
    """Return the result and the detail of the stage's line."""
    files = sum(one.files for one in done)
    deleted = sum(one.deleted for one in done)
    sources = describe_sources(context, listing)
    taken = sum(one.from_image for one in done)
    if not files and not deleted and not taken:
        return "up to date", sources
    parts = [sources]
    if taken:
        parts.append(f"{taken:,} from the image")
    if 0 < files < len(listing.files):
        parts.append(f"{files:,} downloaded")
    if deleted:
        parts.append(f"{deleted:,} deleted")
    unchecked = files - sum(one.checked for one in done)
    if files and not unchecked:
        parts.append("checksums equal")
    elif unchecked > 0:
        parts.append(f"{unchecked:,} without a checksum: sizes equal")
    return "", ", ".join(parts)


def _rate_file(context: BoxContext) -> Path:
    """Return the file with the rates of the project's last downloads."""
    return context.store.directory.parent / "download_rates.json"
