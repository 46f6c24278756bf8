"""The pinned uv is installed from any package index, or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import platform
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from onebox.images import install_uv, python_env

MACHINE = (sys.platform, platform.machine().lower())
TAGS, PINNED = install_uv.WHEELS[MACHINE]
NAME = f"uv-{install_uv.VERSION}-py3-none-{TAGS}.whl"
USER = "Basic " + base64.b64encode(b"me:pass word").decode()


def wheel(text: str) -> bytes:
    """Return a wheel whose program `uv` has this text."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        # A fixed date, so that the same text gives the same bytes.
        for name, content in (("uv", text), ("uvx", "x")):
            member = zipfile.ZipInfo(f"uv-1.0.data/scripts/{name}")
            archive.writestr(member, content)
    return out.getvalue()


class Index:
    """A package index on this machine that serves *files*."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.quote = '"'
        self.failures = 0
        self.authorizations: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.authorizations.append(self.headers.get("Authorization", ""))
                if index.failures:
                    index.failures -= 1
                    self.send_error(503)
                    return
                name = self.path.rsplit("/", 1)[-1]
                body, kind = index.files.get(name, b""), "application/zip"
                if self.path == "/simple/uv/":
                    body, kind = index.page(), "text/html; charset=UTF-8"
                elif name not in index.files:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"

    def page(self) -> bytes:
        """Return the index's page of uv."""
        return "".join(
            f"<a href={self.quote}../../files/{name}#sha256=0{self.quote}>{name}</a>\n"
            for name in self.files
        ).encode()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index with the pinned version for this machine, and other files."""
    served = Index()
    served.files = {
        f"uv-0.0.1-py3-none-{TAGS}.whl": wheel("old"),
        f"uv-{install_uv.VERSION}-py3-none-win_amd64.whl": wheel("other system"),
        f"{NAME}.metadata": b"not a wheel",
        NAME: wheel("right"),
        f"uv-99.0-py3-none-{TAGS}.whl": wheel("newer"),
        f"uv-{install_uv.VERSION}.tar.gz": b"sources",
    }
    sha256 = hashlib.sha256(wheel("right")).hexdigest()
    monkeypatch.setitem(install_uv.WHEELS, MACHINE, (TAGS, sha256))
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.mark.parametrize("quote", ['"', "'"])
def test_pinned_version_for_this_machine_is_installed(
    index: Index, tmp_path: Path, quote: str
) -> None:
    """Other versions and wheels for other machines are skipped."""
    index.quote = quote
    install_uv.main(index.url, str(tmp_path))

    assert "right" == (tmp_path / "uv").read_text()
    assert 0o700 == (tmp_path / "uv").stat().st_mode & 0o777


def test_wheel_with_another_hash_is_not_installed(index: Index, tmp_path: Path) -> None:
    """The wheel must have the pinned hash, whatever the index serves."""
    index.files[NAME] = wheel("forged")
    with pytest.raises(SystemExit, match="does not have the sha256 of uv"):
        install_uv.main(index.url, str(tmp_path))
    assert [] == list(tmp_path.iterdir())


def test_error_names_an_index_without_uv_but_not_its_password(
    index: Index, tmp_path: Path
) -> None:
    """The message has the next command, too."""
    index.files = {}
    url = index.url.replace("//", "//me:pass%20word@")
    with pytest.raises(SystemExit, match=r"has no uv .* for this machine") as stopped:
        install_uv.main(url, str(tmp_path))
    assert "set-up script" in str(stopped.value)
    assert "pass" not in str(stopped.value)


def test_machine_without_a_pinned_wheel_is_refused(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No wheel is installed on a machine that no pinned wheel is for."""
    monkeypatch.setattr(platform, "machine", lambda: "mips")
    with pytest.raises(SystemExit, match=r"for this machine \(\w+ mips\)"):
        install_uv.main(index.url, str(tmp_path))
    assert [] == list(tmp_path.iterdir())


def test_password_of_an_index_is_sent_with_each_request(
    index: Index, tmp_path: Path
) -> None:
    """The wheel is on the same server as the page; a 503 is retried."""
    index.failures = 1
    install_uv.main(index.url.replace("//", "//me:pass%20word@"), str(tmp_path))

    assert [USER] * 3 == index.authorizations


def test_only_http_addresses_are_read(tmp_path: Path) -> None:
    """An index must be an http or https address."""
    with pytest.raises(SystemExit, match="not an http"):
        install_uv.main(f"file://{tmp_path}", str(tmp_path))


def test_script_runs_as_text_without_site_packages(
    index: Index, tmp_path: Path
) -> None:
    """The script runs as on a box: as text, with the standard library only."""
    script = python_env.INSTALL_UV.read_text()
    assert PINNED in script
    script = script.replace(PINNED, install_uv.WHEELS[MACHINE][1])
    subprocess.run(
        [sys.executable, "-IS", "-c", script, index.url, "."], cwd=tmp_path, check=True
    )
    assert "right" == (tmp_path / "uv").read_text()
