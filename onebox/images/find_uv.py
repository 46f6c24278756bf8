"""
Bring uv onto a box that has neither pip nor venv, as the clouds' images have not.

This file is not imported but sent to the box and run there, by any Python from 3.8
on: `python3 -I -c <this> <index> <folder>`. It takes the newest uv that the package
index has for this machine, compares its hash and puts the program into the folder.
"""

from __future__ import annotations

import base64
import hashlib
import html.parser
import io
import json
import platform
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

JSON = "application/vnd.pypi.simple.v1+json"
ACCEPT = JSON + ", application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
SECONDS = 60.0
TRIES = 4
# Version 1.2.3 without a pre-release, and the platforms that the wheel is for.
WHEEL = re.compile(r"uv-([0-9]+(?:\.[0-9]+)*)-py3-none-(.+)\.whl")


def main(index: str, folder: str) -> None:
    """Put uv into the folder. Raises SystemExit with a sentence if that fails."""
    page = index.rstrip("/") + "/uv/"
    found = newest(files(page))
    if found is None:
        raise SystemExit(
            f"onebox: {bare(page)} has no uv for this machine ({sys.platform}, "
            f"{platform.machine()}); have the set-up script bring one into PATH"
        )
    url, wanted = found
    wheel = get(url)[0]
    if wanted and hashlib.sha256(wheel).hexdigest() != wanted:
        raise SystemExit(f"onebox: {bare(url)} is not what its index says")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("/scripts/uv")]
        program = Path(folder, "uv")
        program.write_bytes(archive.read(name))
    program.chmod(0o700)


def files(page: str) -> list[dict[str, Any]]:
    """Return the files that an index lists: JSON (PEP 691) or a page (PEP 503)."""
    body, kind, place = get(page)
    if "json" in kind:
        listed = json.loads(body)["files"]
    else:
        links = Links()
        links.feed(body.decode("utf-8", "replace"))
        listed = links.found
    for one in listed:
        one["url"] = keep_user(page, urllib.parse.urljoin(place, one["url"]))
    return list(listed)


class Links(html.parser.HTMLParser):
    """Collects the links of an index's page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a link."""
        told = dict(attrs)
        url, _, mark = (told.get("href") or "").partition("#")
        if tag != "a" or not url:
            return
        name, _, value = mark.partition("=")
        self.found.append(
            {
                "url": url,
                "filename": urllib.parse.unquote(url.rsplit("/", 1)[-1]),
                "hashes": {name: value} if value else {},
                "yanked": "data-yanked" in told,
            }
        )


def newest(listed: list[dict[str, Any]]) -> tuple[str, str] | None:
    """Return address and sha256 of the newest wheel for this machine."""
    best: tuple[tuple[int, ...], str, str] | None = None
    for one in listed:
        match = WHEEL.fullmatch(str(one["filename"]))
        if match is None or one.get("yanked") or not fits(match.group(2)):
            continue
        version = tuple(int(part) for part in match.group(1).split("."))
        if best is None or version > best[0]:
            best = version, str(one["url"]), one.get("hashes", {}).get("sha256", "")
    return None if best is None else best[1:]


def fits(tags: str) -> bool:
    """Tell whether a wheel for these platforms runs here."""
    machine = platform.machine().lower()
    if sys.platform == "darwin":
        return any(
            tag.startswith("macosx_") and tag.endswith(("_" + machine, "_universal2"))
            for tag in tags.split(".")
        )
    family = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    return any(
        tag.startswith(family) and tag.endswith("_" + machine)
        for tag in tags.split(".")
    )


def get(url: str) -> tuple[bytes, str, str]:
    """Return what is at an address, of which type, and where it was in the end."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "http"):
        raise SystemExit(f"onebox: {bare(url)} is no address that uv can come from")
    request = urllib.request.Request(bare(url), headers={"Accept": ACCEPT})  # noqa: S310 (http or https)
    if parts.username:
        said = f"{parts.username}:{parts.password or ''}"
        plain = urllib.parse.unquote(said).encode("utf-8")
        token = base64.b64encode(plain).decode("ascii")
        request.add_header("Authorization", "Basic " + token)
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 (http or https)
                body = answer.read()
                return body, str(answer.headers.get("Content-Type")), answer.geturl()
        except (OSError, ValueError) as error:
            # Of refusals only those that may pass are worth another try.
            code = getattr(error, "code", 503)
            if attempt == TRIES - 1 or (code < 500 and code != 429):
                raise SystemExit(f"onebox: {bare(url)}: {error}") from error
            time.sleep(2.0**attempt)
    raise AssertionError("unreachable")


def bare(url: str) -> str:
    """Return an address without the user and password in it."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2])
    )


def keep_user(page: str, url: str) -> str:
    """Return an address with the page's user in it, if it is the same server's."""
    before, parts = urllib.parse.urlsplit(page), urllib.parse.urlsplit(url)
    if before.username and parts.netloc == before.netloc.rpartition("@")[2]:
        parts = parts._replace(netloc=before.netloc)
    return urllib.parse.urlunsplit(parts)


if __name__ == "__main__":
    main(*sys.argv[1:])
