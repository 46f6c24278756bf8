"""
Install a pinned uv on a box that has no pip, as the clouds' base images have none.

This file is not imported but sent to the box, where any Python from 3.8 on runs it:
`python3 -I -c <this file> <index> <folder>`. It finds the wheel for the machine on a
package index (PEP 503), compares its sha256 with the pinned one, and writes the
program uv to the folder.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import platform
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

VERSION = "0.9.18"
# The platform tags and the sha256 of uv's wheel for each system and machine, from
# `pip download uv==VERSION --no-deps --platform TAG`. The musllinux builds are static,
# so they also run on a system with glibc.
WHEELS = {
    ("linux", "x86_64"): (
        "musllinux_1_1_x86_64",
        "17bedf2b0791e87d889e1c7f125bd5de77e4b7579aec372fa06ba832e07c957e",
    ),
    ("linux", "aarch64"): (
        "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64",
        "edf965e9a5c55f74020ac82285eb0dfe7fac4f325ad0a7afc816290269ecfec1",
    ),
    ("darwin", "x86_64"): (
        "macosx_10_12_x86_64",
        "d91abfd2649987996e3778729140c305ef0f6ff5909f55aac35c3c372544a24f",
    ),
    ("darwin", "arm64"): (
        "macosx_11_0_arm64",
        "cf33f4146fd97e94cdebe6afc5122208eea8c55b65ca4127f5a5643c9717c8b8",
    ),
}
TIMEOUT_SECONDS = 60.0
TRIES = 4


def main(index: str, folder: str) -> None:
    """Install uv in *folder*. Raises SystemExit with a message if that fails."""
    page_url = index.rstrip("/") + "/uv/"
    machine = (sys.platform, platform.machine().lower())
    tags, sha256 = WHEELS.get(machine, ("", ""))
    name = f"uv-{VERSION}-py3-none-{tags}.whl"
    page, final_url = get(page_url)
    link = re.search(
        rf"""href\s*=\s*["']([^"'#]*{re.escape(name)})["'#]""",
        page.decode("utf-8", "replace"),
    )
    if not tags or link is None:
        raise SystemExit(
            f"onebox: {without_user(page_url)} has no uv {VERSION} for this machine "
            f"({' '.join(machine)}); install uv in the set-up script"
        )
    url = urllib.parse.urljoin(final_url, html.unescape(link.group(1)))
    wheel, _ = get(with_user_of(page_url, url))
    if hashlib.sha256(wheel).hexdigest() != sha256:
        raise SystemExit(
            f"onebox: {without_user(url)} does not have the sha256 of uv {VERSION}"
        )
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        (member,) = [n for n in archive.namelist() if n.endswith("/scripts/uv")]
        program = Path(folder, "uv")
        program.write_bytes(archive.read(member))
    program.chmod(0o700)


def get(url: str) -> tuple[bytes, str]:
    """Return the content at a URL, and the final URL after all redirects."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "http"):
        raise SystemExit(f"onebox: {without_user(url)} is not an http(s) address")
    # This header asks for the HTML page of PEP 503. Without it, some indexes would
    # answer with JSON.
    headers = {"Accept": "application/vnd.pypi.simple.v1+html, text/html, */*;q=0.1"}
    if parts.username:
        user = urllib.parse.unquote(f"{parts.username}:{parts.password or ''}")
        token = base64.b64encode(user.encode("utf-8")).decode("ascii")
        headers["Authorization"] = "Basic " + token
    request = urllib.request.Request(without_user(url), headers=headers)  # noqa: S310 (http or https)
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 (http or https)
                return response.read(), response.geturl()
        except (OSError, ValueError) as error:
            # A broken connection, an error of the server (5xx) and "too many requests"
            # (429) are retried. Any other HTTP error is a refusal and is final.
            code = getattr(error, "code", 503)
            if attempt == TRIES - 1 or (code < 500 and code != 429):
                raise SystemExit(f"onebox: {without_user(url)}: {error}") from error
            time.sleep(2.0**attempt)
    raise AssertionError("unreachable")


def without_user(url: str) -> str:
    """Return a URL without its user and password."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(
        parts._replace(netloc=parts.netloc.rpartition("@")[2])
    )


def with_user_of(page_url: str, url: str) -> str:
    """
    Return *url*, with the user and password of *page_url* if it is on the same server.
    """
    page, parts = urllib.parse.urlsplit(page_url), urllib.parse.urlsplit(url)
    if page.username and parts.netloc == page.netloc.rpartition("@")[2]:
        parts = parts._replace(netloc=page.netloc)
    return urllib.parse.urlunsplit(parts)


if __name__ == "__main__":
    main(*sys.argv[1:])
