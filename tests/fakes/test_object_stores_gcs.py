"""The fake Cloud Storage refuses what Google refuses."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession
from google.oauth2 import service_account

from tests.fakes.gcp.credentials import EMAIL
from tests.fakes.object_stores import checksums
from tests.fakes.object_stores.client import Response, Signer, send
from tests.fakes.object_stores.gcs import GCS

READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
COMPUTE = "https://www.googleapis.com/auth/compute"
KEYS = ["/lead", "a\x01b", "a//b", "dir/a", "s +%25&?#ü", "x/../y", "z" * 1024, "😀"]
# google-auth declares types, but not those of these.
_CREDENTIALS: Any = service_account.Credentials
_SESSION: Any = AuthorizedSession

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


def ask(store: GCS, path: str, token: str | None = None, **how: Any) -> Response:
    """Send a request to the JSON API with a token."""
    given = store.token() if token is None else token
    headers = {"Authorization": f"Bearer {given}"} if given else {}
    headers |= how.pop("headers", {})
    return send(f"{store.address}/storage/v1/{path}", headers=headers, **how)


def reason(response: Response) -> tuple[int, str]:
    """Return status and reason of an error of the JSON API."""
    return response.status, json.loads(response.body)["error"]["errors"][0]["reason"]


def code(response: Response) -> tuple[int, str]:
    """Return status and code of an error of the XML API."""
    return response.status, response.body.decode().partition("<Code>")[2].split("<")[0]


@pytest.mark.parametrize("key", KEYS)
def test_any_key_can_be_listed_and_read(store: GCS, sign: Signer, key: str) -> None:
    """In both APIs."""
    version = store.put("b", key, key.encode())
    (one,) = json.loads(ask(store, "b/b/o").body)["items"]
    assert (key, str(version.generation)) == (one["name"], one["generation"])
    path = f"b/b/o/{quote(key, safe='')}"
    assert one == json.loads(ask(store, path).body)
    assert key.encode() == ask(store, f"{path}?alt=media").body
    assert key.encode() == send(sign(key)).body


def test_a_request_without_token_is_refused(store: GCS, sign: Signer) -> None:
    """Unless everyone may read the bucket."""
    store.put("b", "k", b"data")
    answer = ask(store, "b/b/o/k", token="")
    assert (401, "required") == reason(answer)
    assert "Bearer" in answer.headers["www-authenticate"]
    assert (403, "AccessDenied") == code(send(f"{store.address}/b/k"))
    store.buckets["b"].public = True
    assert b"data" == send(f"{store.address}/b/k").body
    assert 200 == ask(store, "b/b/o", token="").status


def test_a_token_counts(store: GCS) -> None:
    """An unknown or expired one is refused, and one for another service."""
    assert (401, "authError") == reason(ask(store, "b/b/o", token="ya29.made-up"))
    token = store.token(seconds=100, scopes=[READ_ONLY])
    assert 200 == ask(store, "b/b/o", token).status
    store.clock_offset = 101
    assert (401, "authError") == reason(ask(store, "b/b/o", token))
    store.put("b", "k", b"data")
    compute = store.token(scopes=[COMPUTE])
    answer = ask(store, "b/b/o", compute)
    assert (403, "forbidden") == reason(answer)
    assert b"scope" in answer.body
    reads = store.token(scopes=[READ_ONLY])
    assert (403, "forbidden") == reason(ask(store, "b/b/o/k", reads, method="DELETE"))


@pytest.mark.parametrize("self_signed", [False, True])
def test_the_sdk_gets_a_token(store: GCS, tmp_path: Path, self_signed: bool) -> None:
    """Of the endpoint in the key file, or it signs one itself."""
    file = store.key_file(tmp_path / "key.json")
    credentials = _CREDENTIALS.from_service_account_file(
        str(file), scopes=[READ_ONLY], always_use_jwt_access=self_signed
    )
    with _SESSION(credentials) as session:
        assert session.get(f"{store.address}/storage/v1/b/b/o").ok
        session.close()
    paths = [one.path for one in store.requests]
    assert (["/token"] if not self_signed else []) + ["/storage/v1/b/b/o"] == paths
    store.state.accounts.keys.clear()
    assert 401 == ask(store, "b/b/o", credentials.token if self_signed else "x").status


@pytest.mark.parametrize("self_signed", [False, True])
def test_another_key_gets_no_token(
    store: GCS, tmp_path: Path, self_signed: bool
) -> None:
    """Although it is for the same account."""
    old = store.key_file(tmp_path / "old.json")
    store.key_file(tmp_path / "new.json")
    credentials = _CREDENTIALS.from_service_account_file(
        str(old), scopes=[READ_ONLY], always_use_jwt_access=self_signed
    )
    with _SESSION(credentials, refresh_timeout=5) as session:
        if self_signed:
            answer = session.get(f"{store.address}/storage/v1/b/b/o")
            assert 401 == answer.status_code
        else:
            with pytest.raises(RefreshError, match="Invalid JWT Signature"):
                session.get(f"{store.address}/storage/v1/b/b/o")
        session.close()


def test_a_permission_can_be_denied(store: GCS, sign: Signer) -> None:
    """A link can do what the account that has signed it may do."""
    store.put("b", "open/k", b"data")
    store.put("b", "shut/k", b"data")
    store.deny("storage.objects.get", "b/shut/")
    assert 200 == ask(store, "b/b/o/open%2Fk").status
    answer = ask(store, "b/b/o/shut%2Fk")
    assert (403, "forbidden") == reason(answer)
    assert f"{EMAIL} does not have storage.objects.get access".encode() in answer.body
    assert (403, "AccessDenied") == code(send(sign("shut/k")))
    wanted = "permissions=storage.objects.list&permissions=storage.objects.create"
    store.deny("storage.objects.create", "b")
    found = json.loads(ask(store, f"b/b/iam/testPermissions?{wanted}").body)
    assert ["storage.objects.list"] == found["permissions"]


def test_missing_things_are_named(store: GCS, sign: Signer) -> None:
    """An object is hidden from who may not list."""
    assert (404, "notFound") == reason(ask(store, "b/none/o"))
    answer = ask(store, "b/b/o/k")
    assert (404, "notFound") == reason(answer)
    assert b"No such object: b/k" in answer.body
    assert (404, "NoSuchKey") == code(send(sign("k")))
    store.deny("storage.objects.list", "b")
    assert (403, "forbidden") == reason(ask(store, "b/b/o/k"))
    assert "US" == json.loads(ask(store, "b/b").body)["location"]
    store.deny("storage.buckets.get", "b")
    assert (403, "forbidden") == reason(ask(store, "b/b"))


@pytest.mark.parametrize(
    "path",
    [
        "b/b/o?prefx=a",
        "b/b/o?maxResults=many",
        "b/b/o?fields=itmes(name)",
        "b/b/o?fields=items(name",
        "b/b/o?fields=items(name,colour)",
        "b/b/o?pageToken=made-up",
        "b/b/objects",
        "b/b/o/k?generation=x",
    ],
)
def test_undescribed_requests_are_refused(store: GCS, path: str) -> None:
    """Google's description is the measure."""
    store.put("b", "k", b"data")
    assert 400 == ask(store, path).status


def test_a_list_has_pages_and_chosen_fields(store: GCS) -> None:
    """What is empty is left out."""
    keys = sorted([f"k/{n}" for n in range(1500)] + ["k", "l"])
    store.put_many("b", keys, b"x")
    names, token = [], ""
    fields = "items(name,size),nextPageToken"
    while True:
        extra = f"&pageToken={quote(token)}" if token else ""
        page = json.loads(ask(store, f"b/b/o?fields={fields}{extra}").body)
        assert {"name": page["items"][0]["name"], "size": "1"} == page["items"][0]
        names += [one["name"] for one in page["items"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert keys == names
    found = json.loads(ask(store, "b/b/o?delimiter=/&prefix=k&maxResults=2").body)
    assert (["k/"], ["k"]) == (found["prefixes"], [o["name"] for o in found["items"]])
    found = json.loads(ask(store, "b/b/o?startOffset=k/998").body)
    assert ["k/998", "k/999", "l"] == [one["name"] for one in found["items"]]
    assert {} == json.loads(ask(store, "b/b/o?prefix=none&fields=items").body)


def test_a_changed_link_is_refused(store: GCS, sign: Signer) -> None:
    """The signature covers method, path, parameters and headers."""
    store.put("b", "k", b"data")
    store.put("b", "k0", b"data")
    url = sign("k")
    assert (403, "SignatureDoesNotMatch") == code(send(url.replace("/k?", "/k0?")))
    later = url.replace("Expires=60", "Expires=61")
    assert (403, "SignatureDoesNotMatch") == code(send(later))
    assert (403, "SignatureDoesNotMatch") == code(send(url, "DELETE"))
    other = send(url, headers={"Host": "storage.googleapis.com"})
    assert (403, "SignatureDoesNotMatch") == code(other)
    loose = send(url, headers={"x-goog-if-generation-match": "1"})
    assert (400, "InvalidArgument") == code(loose)
    held = {"x-goog-if-generation-match": "1"}
    assert 412 == send(sign("k", headers=held), headers=held).status
    assert 400 == send(sign("k", seconds=604801)).status
    store.state.accounts.keys.clear()
    assert (403, "SignatureDoesNotMatch") == code(send(url))


def test_a_link_ends(store: GCS, sign: Signer) -> None:
    """By the clock of the store, with the status 400."""
    store.put("b", "k", b"data")
    url = sign("k", seconds=60)
    store.clock_offset = 59
    assert b"data" == send(url).body
    store.clock_offset = 70
    assert (400, "ExpiredToken") == code(send(url))


def test_a_generation_holds_an_object(store: GCS, sign: Signer) -> None:
    """A download in ranges sees when it is replaced."""
    version = store.put("b", "k", b"before")
    url = sign("k", generation=str(version.generation))
    part = send(url, headers={"Range": "bytes=1-3"})
    assert (206, b"efo") == (part.status, part.body)
    assert "bytes 1-3/6" == part.headers["content-range"]
    assert str(version.generation) == part.headers["x-goog-generation"]
    assert (416, "InvalidRange") == code(send(url, headers={"Range": "bytes=6-"}))
    store.put("b", "k", b"after")
    assert (404, "NoSuchKey") == code(send(url))


def test_checksums_are_a_header_each(store: GCS, sign: Signer) -> None:
    """A composed object has no MD5, and its ETag is none."""
    data = b"123456789"
    store.put("b", "k", data)
    store.put("b", "c", data, composite=True)
    crc = base64.b64encode(bytes.fromhex("e3069283")).decode()
    md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
    plain = send(sign("k", method="HEAD"), "HEAD")
    assert [f"crc32c={crc}", f"md5={md5}"] == plain.all["x-goog-hash"]
    assert f'"{hashlib.md5(data).hexdigest()}"' == plain.headers["etag"]
    assert "9" == plain.headers["content-length"]
    composed = send(sign("c"))
    assert [f"crc32c={crc}"] == composed.all["x-goog-hash"]
    assert hashlib.md5(data).hexdigest() not in composed.headers["etag"]
    resource = json.loads(ask(store, "b/b/o/c").body)
    assert (crc, True, False) == (
        resource["crc32c"],
        "componentCount" in resource,
        "md5Hash" in resource,
    )


def test_gzip_is_undone_for_who_does_not_accept_it(store: GCS, sign: Signer) -> None:
    """Then there is no length, no range, and the checksums are of other bytes."""
    packed = gzip.compress(b"data" * 100)
    store.put("b", "k", packed, headers={"Content-Encoding": "gzip"})
    plain = send(sign("k"), headers={"Range": "bytes=0-3"})
    assert (200, b"data" * 100) == (plain.status, plain.body)
    assert "content-length" not in plain.headers
    assert str(len(packed)) == plain.headers["x-goog-stored-content-length"]
    held = {"Accept-Encoding": "gzip", "Range": "bytes=0-3"}
    part = send(sign("k"), headers=held)
    assert (206, packed[:4]) == (part.status, part.body)


def test_errors_can_be_requested(store: GCS, sign: Signer) -> None:
    """In the words of the API."""
    store.put("b", "k", b"data")
    store.fail(429, times=2, retry_after=3)
    assert (429, "rateLimitExceeded") == reason(ask(store, "b/b/o"))
    answer = send(sign("k"))
    assert (429, "3") == (answer.status, answer.headers["retry-after"])
    store.fail(503)
    assert (503, "ServiceUnavailable") == code(send(sign("k")))
    assert b"data" == send(sign("k")).body


@pytest.mark.parametrize("size", [0, 9, 5000, 100_001])
def test_checksums_are_those_of_their_standards(size: int) -> None:
    """A long text is read in lanes, a short one byte by byte."""
    data = bytes(n * 7 % 251 for n in range(size))
    for polynomial, width in ((0x82F63B78, 4), (0x9A6C9329AC4BC9B5, 8)):
        register = (1 << 8 * width) - 1
        for byte in data:
            register ^= byte
            for _ in range(8):
                register = (register >> 1) ^ (polynomial if register & 1 else 0)
        expected = register ^ ((1 << 8 * width) - 1)
        assert expected == checksums.crc(data, polynomial, width)
    check = b"123456789"
    assert "e3069283" == checksums.checksum("CRC32C", check).hex()
    assert "ae8b14860a799888" == checksums.checksum("CRC64NVME", check).hex()
