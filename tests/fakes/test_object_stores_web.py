"""The web server does what a test requests of it."""

from __future__ import annotations

import http.client
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.object_stores.client import send
from tests.fakes.object_stores.tls import Authority
from tests.fakes.object_stores.web import File, Web

DATA = bytes(range(256)) * 100
PART = {"Range": "bytes=10-19"}

# Each starts a server.
pytestmark = pytest.mark.slow


@pytest.fixture
def web() -> Iterator[Web]:
    """A running web server."""
    web = Web()
    with web.running():
        yield web


def test_a_range_is_answered_where_the_server_can(web: Web) -> None:
    """Another server sends the whole file."""
    web.put("/a b", File(DATA))
    web.put("/whole", File(DATA, ranges=False))
    part = send(f"{web.address}/a%20b", headers=PART)
    assert (206, DATA[10:20]) == (part.status, part.body)
    assert f"bytes 10-19/{len(DATA)}" == part.headers["content-range"]
    whole = send(f"{web.address}/whole", headers=PART)
    assert (200, DATA) == (whole.status, whole.body)
    assert "accept-ranges" not in whole.headers
    assert 416 == send(f"{web.address}/a%20b", headers={"Range": "bytes=99999-"}).status


def test_a_file_from_the_disk_is_sent(web: Web, tmp_path: Path) -> None:
    """In whole or in part."""
    file = tmp_path / "file"
    file.write_bytes(DATA)
    web.put("/f", File(file))
    assert DATA == send(f"{web.address}/f").body
    assert DATA[10:20] == send(f"{web.address}/f", headers=PART).body
    head = send(f"{web.address}/f", "HEAD")
    assert (str(len(DATA)), b"") == (head.headers["content-length"], head.body)


def test_if_match_and_if_range_compare_strong_etags(web: Web) -> None:
    """A weak one never matches, so that the whole file comes."""
    file = web.put("/f", File(DATA, modified=1_700_000_000))
    etag = send(f"{web.address}/f").headers["etag"]
    for name in ("If-Match", "If-Range"):
        held = {**PART, name: etag}
        assert 206 == send(f"{web.address}/f", headers=held).status
    file.data = DATA[::-1]
    assert 412 == send(f"{web.address}/f", headers={"If-Match": etag}).status
    changed = send(f"{web.address}/f", headers={**PART, "If-Range": etag})
    assert (200, DATA[::-1]) == (changed.status, changed.body)
    file.etag = "weak"
    weak = send(f"{web.address}/f").headers["etag"]
    assert weak.startswith('W/"')
    assert 412 == send(f"{web.address}/f", headers={"If-Match": weak}).status
    assert 200 == send(f"{web.address}/f", headers={**PART, "If-Range": weak}).status
    file.etag = ""
    bare = send(f"{web.address}/f")
    assert ("etag" not in bare.headers, True) == (
        True,
        "last-modified" in bare.headers,
    )


def test_a_length_can_be_missing_or_wrong(web: Web) -> None:
    """A client must notice."""
    web.put("/chunked", File(DATA, chunked=True))
    web.put("/long", File(DATA, declared=len(DATA) + 5))
    web.put("/short", File(DATA, declared=5))
    chunked = send(f"{web.address}/chunked")
    assert (DATA, False) == (chunked.body, "content-length" in chunked.headers)
    with pytest.raises(http.client.IncompleteRead):
        send(f"{web.address}/long")
    assert DATA[:5] == send(f"{web.address}/short").body
    web.cut(at=100)
    with pytest.raises(http.client.IncompleteRead):
        send(f"{web.address}/chunked")


def test_paths_redirect(web: Web) -> None:
    """To anywhere, also to themselves."""
    web.redirect("/loop", f"{web.address}/loop")
    web.redirect("/away", "http://127.0.0.1:9/x", 308)
    loop = send(f"{web.address}/loop")
    assert (302, f"{web.address}/loop") == (loop.status, loop.headers["location"])
    assert 308 == send(f"{web.address}/away").status


def test_a_server_can_be_slow(web: Web) -> None:
    """Each response has the rate that a test sets."""
    web.put("/f", File(DATA))
    web.bytes_per_second = len(DATA) * 4
    started = time.monotonic()
    assert DATA == send(f"{web.address}/f").body
    assert time.monotonic() - started > 0.2


def test_a_server_can_lack_head(web: Web) -> None:
    """As signed links for GET do."""
    web.put("/f", File(DATA, head=False))
    assert 405 == send(f"{web.address}/f", "HEAD").status
    assert 404 == send(f"{web.address}/none").status


def test_https_needs_the_authority(tmp_path: Path) -> None:
    """A certificate that is expired, or of another host, is refused by a client."""
    authority = Authority(tmp_path)
    trusting = ssl.create_default_context(cafile=str(authority.file))
    data = os.urandom(3 << 20)
    web = Web(authority.context())
    web.put("/f", File(data))
    with web.running() as address:
        assert address.startswith("https://")
        assert data == send(f"{address}/f", context=trusting).body
        with pytest.raises(ssl.SSLCertVerificationError):
            send(f"{address}/f", context=ssl.create_default_context())
        # A connection that stays open does not keep the server.
        port = int(address.rpartition(":")[2])
        kept = http.client.HTTPSConnection("127.0.0.1", port, context=trusting)
        kept.request("GET", "/f")
        assert data == kept.getresponse().read()
    kept.close()
    for context in (
        authority.context(valid_days=-1),
        authority.context(hosts=["example.com"]),
    ):
        with Web(context).running() as address:
            with pytest.raises(ssl.SSLCertVerificationError):
                send(f"{address}/f", context=trusting)
