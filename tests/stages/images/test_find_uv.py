"""uv comes from whatever index there is, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import platform
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from onebox.images import find_uv, python_env

LIBC = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
HERE = f"{LIBC}_2_17_{platform.machine()}"
if sys.platform == "darwin":
    HERE = f"macosx_11_0_{platform.machine()}"
USER = "Basic " + base64.b64encode(b"me:pass word").decode()


def wheel(text: str) -> bytes:
    """Return a wheel that holds a program."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("uv-1.0.data/scripts/uv", text)
        archive.writestr("uv-1.0.data/scripts/uvx", "x")
    return out.getvalue()


class Index:
    """A package index on this machine, which has what *files* says."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.yanked: set[str] = set()
        self.json = True
        self.wrong_hash = False
        self.failures = 0
        self.asked: list[str] = []
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.headers.get("Authorization", ""))
                if index.failures:
                    index.failures -= 1
                    self.send_error(503)
                    return
                name = self.path.rsplit("/", 1)[-1]
                body, kind = index.files.get(name, b""), "application/zip"
                if self.path == "/simple/uv/":
                    body, kind = index.page()
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

    def page(self) -> tuple[bytes, str]:
        """Return the list of files, and its type."""
        sums = {
            name: hashlib.sha256(b"" if self.wrong_hash else data).hexdigest()
            for name, data in self.files.items()
        }
        if self.json:
            listed = [
                {
                    "filename": name,
                    "url": f"../../files/{name}",
                    "hashes": {"sha256": sums[name]},
                    "yanked": name in self.yanked,
                }
                for name in self.files
            ]
            return json.dumps({"files": listed}).encode(), find_uv.JSON
        links = [
            f'<a href="../../files/{name}#sha256={sums[name]}"'
            f"{' data-yanked' if name in self.yanked else ''}>x</a>"
            for name in self.files
        ]
        return "".join(links).encode(), "text/html; charset=UTF-8"


@pytest.fixture
def index() -> Iterator[Index]:
    """An index with several versions for this machine, and others."""
    made = Index()
    made.files = {
        f"uv-0.9.0-py3-none-{HERE}.whl": wheel("old"),
        f"uv-0.10.1-py3-none-{HERE}.{HERE}.whl": wheel("right"),
        f"uv-0.11.0-py3-none-{HERE}.whl": wheel("yanked"),
        f"uv-0.12.0rc1-py3-none-{HERE}.whl": wheel("candidate"),
        "uv-0.13.0-py3-none-manylinux_2_17_mips.whl": wheel("other machine"),
        "uv-0.13.0-py3-none-win_amd64.whl": wheel("other system"),
        "uv-0.13.0.tar.gz": b"sources",
    }
    made.yanked = {f"uv-0.11.0-py3-none-{HERE}.whl"}
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.parametrize("as_json", [True, False])
def test_newest_for_this_machine(index: Index, tmp_path: Path, as_json: bool) -> None:
    """The newest release that runs here is taken, whichever way it is listed."""
    index.json = as_json
    find_uv.main(index.url, str(tmp_path))

    assert "right" == (tmp_path / "uv").read_text()
    assert 0o700 == (tmp_path / "uv").stat().st_mode & 0o777


def test_another_hash(index: Index, tmp_path: Path) -> None:
    """What is not what the index says is not taken."""
    index.wrong_hash = True
    with pytest.raises(SystemExit, match="not what its index says"):
        find_uv.main(index.url, str(tmp_path))
    assert [] == list(tmp_path.iterdir())


def test_none_for_this_machine(index: Index, tmp_path: Path) -> None:
    """An index without one is named, and what to do about it; no password is."""
    index.files = {}
    url = index.url.replace("//", "//me:pass%20word@")
    with pytest.raises(SystemExit, match="has no uv for this machine") as stopped:
        find_uv.main(url, str(tmp_path))
    assert "pass" not in str(stopped.value)


def test_own_index_with_a_password(index: Index, tmp_path: Path) -> None:
    """The user of an index's address is told to that server, in each request."""
    index.failures = 1
    find_uv.main(index.url.replace("//", "//me:pass%20word@"), str(tmp_path))

    assert [USER] * 3 == index.asked


def test_no_other_kind_of_address(tmp_path: Path) -> None:
    """Only the web is a place that uv comes from."""
    with pytest.raises(SystemExit, match="no address"):
        find_uv.main(f"file://{tmp_path}", str(tmp_path))


def test_as_text_by_a_bare_python(index: Index, tmp_path: Path) -> None:
    """It runs as it is sent: as a text, with nothing beside it and no site-packages."""
    subprocess.run(
        [sys.executable, "-IS", "-c", python_env.FIND_UV.read_text(), index.url, "."],
        cwd=tmp_path,
        check=True,
    )
    assert "right" == (tmp_path / "uv").read_text()
