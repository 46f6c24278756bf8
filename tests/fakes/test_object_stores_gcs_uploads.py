"""The fake Cloud Storage takes uploads that Google takes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.fakes.gcp.credentials import EMAIL
from tests.fakes.object_stores import checksums
from tests.fakes.object_stores.client import Response, Signer, send
from tests.fakes.object_stores.gcs import GCS

GRAIN = 256 << 10
ENDED = (http.client.RemoteDisconnected, ConnectionError)
READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"

# Each starts a server.
pytestmark = pytest.mark.slow


@pytest.fixture
def store() -> Iterator[GCS]:
    """A running store with the bucket "b"."""
    store = GCS()
    store.create_bucket("b")
    with store.running():
        yield store


@pytest.fixture
def sign(store: GCS, tmp_path: Path) -> Signer:
    """A function that returns a signed link."""
    return Signer(store, tmp_path / "key.json")


def ask(
    store: GCS, method: str, path: str, body: bytes = b"", **headers: str
) -> Response:
    """Send a request with a token."""
    given = {"Authorization": f"Bearer {headers.pop('token', '') or store.token()}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return send(f"{store.address}{path}", method, given, body)


def live(store: GCS, key: str) -> bytes:
    """Return what is stored under a key."""
    version = store.buckets["b"].live(key)
    assert version is not None
    return version.read()


def begin(store: GCS, key: str, size: int | None = None, query: str = "") -> str:
    """Begin a resumable upload of the JSON API; return its address."""
    length = {} if size is None else {"X_Upload_Content_Length": str(size)}
    name = quote(key, safe="")
    path = f"/upload/storage/v1/b/b/o?uploadType=resumable&name={name}{query}"
    answer = ask(store, "POST", path, b"{}", **length)
    assert 200 == answer.status, answer.body
    return answer.headers["location"]


def piece(url: str, data: bytes, start: int, end: int, total: object = "*") -> Response:
    """Send a piece of a resumable upload."""
    given = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
    return send(url, "PUT", given, data[start:end])


@pytest.mark.parametrize("key", ["a//b", "s +%25&?#ü", "x/../y", "😀"])
def test_each_way_makes_the_object(store: GCS, sign: Signer, key: str) -> None:
    """In both APIs, in one request or several."""
    name = quote(key, safe="")
    media = f"/upload/storage/v1/b/b/o?uploadType=media&name={name}"
    answer = json.loads(ask(store, "POST", media, b"1", Content_Type="a/b").body)
    assert (key, "1", "a/b") == (answer["name"], answer["size"], answer["contentType"])
    path = f"/b/{quote(key)}"
    assert 200 == ask(store, "PUT", path, b"2").status
    assert b"2" == live(store, key)
    assert 200 == send(sign(key, method="PUT"), "PUT", body=b"3").status
    assert b"3" == live(store, key)
    body = b"--x\r\nContent-Type: application/json\r\n\r\n"
    body += json.dumps({"name": key, "metadata": {"job": "1"}}).encode()
    body += b"\r\n--x\r\nContent-Type: a/b\r\n\r\n4\r\n--x--"
    related = "multipart/related; boundary=x"
    multipart = "/upload/storage/v1/b/b/o?uploadType=multipart"
    answer = json.loads(ask(store, "POST", multipart, body, Content_Type=related).body)
    assert ({"job": "1"}, b"4") == (answer["metadata"], live(store, key))
    answer = json.loads(send(begin(store, key), "PUT", body=b"5").body)
    assert (key, b"5") == (answer["name"], live(store, key))
    start = {"x-goog-resumable": "start"}
    begun = send(sign(key, method="POST", headers=start), "POST", start)
    assert 201 == begun.status
    assert 200 == send(begun.headers["location"], "PUT", body=b"6").status
    assert b"6" == live(store, key)


def test_a_resumable_upload_goes_on_where_it_was(store: GCS) -> None:
    """It keeps whole pieces of 256 KiB of a connection that ends."""
    data = os.urandom(3 * GRAIN + 7)
    url = begin(store, "k", len(data))
    first = piece(url, data, 0, GRAIN, len(data))
    assert (308, f"bytes=0-{GRAIN - 1}") == (first.status, first.headers["range"])
    store.cut_request(at=GRAIN + 1000)
    with pytest.raises(ENDED):
        piece(url, data, GRAIN, len(data), len(data))
    state = send(url, "PUT", {"Content-Range": f"bytes */{len(data)}"})
    assert (308, f"bytes=0-{2 * GRAIN - 1}") == (state.status, state.headers["range"])
    # Bytes that are there already are skipped.
    last = piece(url, data, GRAIN, len(data), len(data))
    assert (200, data) == (last.status, live(store, "k"))
    # The answer can be asked for again.
    again = send(url, "PUT", {"Content-Range": f"bytes */{len(data)}"})
    assert json.loads(last.body) == json.loads(again.body)


@pytest.mark.parametrize(
    ("start", "end", "total"),
    [(0, 1000, "*"), (GRAIN, 2 * GRAIN, "*"), (0, GRAIN, 5 * GRAIN)],
)
def test_a_piece_that_does_not_fit_is_refused(
    store: GCS, start: int, end: int, total: object
) -> None:
    """One of another size, behind a gap, or of another whole."""
    url = begin(store, "k", 3 * GRAIN)
    answer = piece(url, bytes(3 * GRAIN), start, end, total)
    assert 400 == answer.status
    assert store.buckets["b"].live("k") is None


def test_an_upload_can_be_cancelled(store: GCS) -> None:
    """Its address is worth nothing after that."""
    url = begin(store, "k")
    assert 499 == send(url, "DELETE").status
    assert 404 == send(url, "PUT", body=b"data").status
    assert 404 == send(f"{url}x", "PUT", body=b"data").status
    assert store.buckets["b"].live("k") is None


def test_an_empty_object_can_be_uploaded(store: GCS) -> None:
    """With the range that has no bytes."""
    url = begin(store, "k", 0)
    assert 200 == send(url, "PUT", {"Content-Range": "bytes */0"}).status
    assert b"" == live(store, "k")


def test_an_object_can_be_protected(store: GCS, sign: Signer) -> None:
    """The generation 0 is none."""
    held = {"x-goog-if-generation-match": "0"}
    url = sign("k", method="PUT", headers=held)
    late = begin(store, "k", query="&ifGenerationMatch=0")
    assert 200 == send(url, "PUT", held, b"first").status
    assert 412 == send(url, "PUT", held, b"second").status
    assert 412 == send(late, "PUT", body=b"third").status
    media = "/upload/storage/v1/b/b/o?uploadType=media&name=k&ifGenerationMatch=0"
    assert 412 == ask(store, "POST", media, b"fourth").status
    assert b"first" == live(store, "k")
    # Without the signed header, the link is another one.
    assert 400 == send(url, "PUT", body=b"fifth").status


def test_a_link_can_limit_the_size(store: GCS, sign: Signer) -> None:
    """By a header that is signed."""
    held = {"x-goog-content-length-range": "2,4"}
    url = sign("k", method="PUT", headers=held)
    for body in (b"1", b"12345"):
        assert 400 == send(url, "PUT", held, body).status
    assert 200 == send(url, "PUT", held, b"123").status


def test_who_may_not_delete_may_not_replace(store: GCS, sign: Signer) -> None:
    """As with Google, where the role of a creator has one permission only."""
    store.deny("storage.objects.delete", "b/", EMAIL)
    url = sign("k", method="PUT")
    assert 200 == send(url, "PUT", body=b"first").status
    answer = send(url, "PUT", body=b"second")
    assert 403 == answer.status
    assert b"storage.objects.delete" in answer.body
    store.deny("storage.objects.create", "b/shut/", EMAIL)
    assert 403 == send(sign("shut/k", method="PUT"), "PUT", body=b"x").status
    reads = store.token(scopes=[READ_ONLY])
    media = "/upload/storage/v1/b/b/o?uploadType=media&name=other"
    assert 403 == ask(store, "POST", media, b"x", token=reads).status


def test_a_wrong_checksum_is_refused(store: GCS) -> None:
    """Nothing is stored then."""
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    right = checksums.encoded("CRC32C", b"data")
    for given in (
        {"Content_MD5": wrong},
        {"x_goog_hash": f"crc32c={right},md5={wrong}"},
    ):
        assert 400 == ask(store, "PUT", "/b/k", b"data", **given).status
    assert store.buckets["b"].live("k") is None
    given = {"x_goog_hash": f"crc32c={right}"}
    assert 200 == ask(store, "PUT", "/b/k", b"data", **given).status


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("uploadType=none&name=k", b"x"),
        ("uploadType=media", b"x"),
        ("uploadType=media&name=k&colour=red", b"x"),
        ("uploadType=media&name=k&predefinedAcl=publicRead", b"x"),
        ("uploadType=multipart&name=k", b"x"),
        ("uploadType=resumable&name=k", b"not JSON"),
        ("uploadType=resumable&name=k", b'{"colour": "red"}'),
        ("uploadType=resumable&name=k", b'{"size": 5}'),
    ],
)
def test_undescribed_uploads_are_refused(store: GCS, path: str, body: bytes) -> None:
    """Google's description is the measure."""
    answer: Any = ask(store, "POST", f"/upload/storage/v1/b/b/o?{path}", body)
    assert 400 == answer.status
    assert {} == store.state.uploads
