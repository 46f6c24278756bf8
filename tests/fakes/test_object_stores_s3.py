"""The fake S3 refuses what S3 refuses, and its faults are those of a network."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.fakes.object_stores import checksums
from tests.fakes.object_stores.client import MakeClient, Response, s3_clients, send
from tests.fakes.object_stores.s3 import S3
from tests.fakes.object_stores.sigv4 import Credential

KEYS = ["/lead", "a\x01b", "a\nb", "a//b", "dir/a", "dir/b/c", "s +%25&?#ü", "x/../y"]
KEYS += ["z" * 1024, "😀"]

# Each starts a server.
pytestmark = pytest.mark.slow


@pytest.fixture
def store() -> Iterator[S3]:
    """A running store with the bucket "b"."""
    store = S3()
    store.create_bucket("b")
    with store.running():
        yield store


@pytest.fixture
def client(store: S3) -> Iterator[MakeClient]:
    """A function that returns boto3's client."""
    with s3_clients(store) as make:
        yield make


@pytest.fixture
def link(client: MakeClient) -> Callable[..., str]:
    """A function that returns a signed link for GET."""

    def make(key: str, seconds: int = 60, **more: Any) -> str:
        signer = client(more.pop("credential", None))
        where = {"Bucket": "b", "Key": key, **more}
        url = signer.generate_presigned_url("get_object", where, seconds)
        return str(url)

    return make


def code(call: Callable[[], object]) -> tuple[int, str]:
    """Return status and code of the error that a call of boto3 ends with."""
    with pytest.raises(ClientError) as caught:
        call()
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]


def refusal(response: Response) -> tuple[int, str]:
    """Return status and code of an error response."""
    return response.status, response.body.decode().partition("<Code>")[2].split("<")[0]


@pytest.mark.parametrize("key", KEYS)
def test_any_key_can_be_listed_and_read(
    store: S3, client: MakeClient, link: Callable[..., str], key: str
) -> None:
    """So it is with S3, where a key is any text of UTF-8."""
    store.put("b", key, key.encode())
    s3 = client()
    assert [key] == [one["Key"] for one in s3.list_objects_v2(Bucket="b")["Contents"]]
    with s3.get_object(Bucket="b", Key=key)["Body"] as body:
        assert key.encode() == body.read()
    assert key.encode() == send(link(key)).body


def test_a_virtual_host_is_a_bucket(store: S3) -> None:
    """The key is the whole path then."""
    store.create_bucket("open", public=True)
    store.put("open", "/k", b"data")
    headers = {"Host": "open.s3.us-east-1.amazonaws.com"}
    assert b"data" == send(f"{store.address}//k", headers=headers).body


def test_a_request_without_signature_is_refused(store: S3) -> None:
    """Unless everyone may read the bucket."""
    store.put("b", "k", b"data")
    url = f"{store.address}/b/k"
    assert (403, "AccessDenied") == refusal(send(url))
    store.buckets["b"].public = True
    assert b"data" == send(url).body
    assert (403, "AccessDenied") == refusal(send(url, "PUT", body=b"x"))


@pytest.mark.parametrize(
    ("pattern", "other"),
    [
        (r"/b/k\?", "/b/k0?"),
        ("Expires=60", "Expires=61"),
        (r"Date=\d{4}", "Date=2020"),
        ("Signature=", "Signature=0"),
    ],
)
def test_a_changed_link_is_refused(
    store: S3, link: Callable[..., str], pattern: str, other: str
) -> None:
    """The signature covers method, path and each parameter."""
    store.put("b", "k", b"data")
    store.put("b", "k0", b"other")
    changed, count = re.subn(pattern, other, link("k"))
    assert 1 == count
    assert 403 == send(link("k"), "HEAD").status
    status, name = refusal(send(changed))
    assert 403 == status
    assert ("AccessDenied" if "Date" in pattern else "SignatureDoesNotMatch") == name


def test_an_unknown_key_or_secret_is_refused(store: S3, client: MakeClient) -> None:
    """With the codes of S3."""
    wrong = Credential(store.user.key, "wrong")
    assert (403, "SignatureDoesNotMatch") == code(
        lambda: client(wrong).list_objects_v2(Bucket="b")
    )
    unknown = Credential("AKIAUNKNOWN", "x")
    assert (403, "InvalidAccessKeyId") == code(
        lambda: client(unknown).list_objects_v2(Bucket="b")
    )


def test_a_header_that_is_not_signed_is_refused(
    store: S3, link: Callable[..., str]
) -> None:
    """This holds for x-amz-* headers only: Range and If-Match need no signature."""
    store.put("b", "k", b"data")
    url = link("k")
    assert b"at" == send(url, headers={"Range": "bytes=1-2"}).body
    extra = {"x-amz-checksum-mode": "ENABLED"}
    assert (403, "AccessDenied") == refusal(send(url, headers=extra))


def test_a_link_ends(store: S3, link: Callable[..., str]) -> None:
    """By the clock of the store."""
    store.put("b", "k", b"data")
    url = link("k", seconds=60)
    assert 200 == send(url).status
    store.clock_offset = 70
    late = send(url)
    assert (403, "AccessDenied") == refusal(late)
    assert b"Request has expired" in late.body
    store.clock_offset = -3600
    assert b"Request is not yet valid" in send(url).body
    assert 400 == send(link("k", seconds=604801)).status


def test_a_wrong_clock_is_refused(store: S3, client: MakeClient) -> None:
    """A signature in a header may be 15 minutes off."""
    s3 = client()
    store.clock_offset = 890
    s3.list_objects_v2(Bucket="b")
    store.clock_offset = -1800
    assert (403, "RequestTimeTooSkewed") == code(
        lambda: client().list_objects_v2(Bucket="b")
    )


def test_a_session_token_counts(
    store: S3, client: MakeClient, link: Callable[..., str]
) -> None:
    """A missing, wrong or expired one is refused, each with its own code."""
    role = store.temporary(seconds=100)
    store.put("b", "k", b"data")
    url = link("k", credential=role, seconds=1000)
    client(role).list_objects_v2(Bucket="b")
    assert b"data" == send(url).body
    bare = Credential(role.key, role.secret)
    assert (403, "InvalidAccessKeyId") == code(
        lambda: client(bare).list_objects_v2(Bucket="b")
    )
    wrong = Credential(role.key, role.secret, "wrong")
    assert (400, "InvalidToken") == code(
        lambda: client(wrong).list_objects_v2(Bucket="b")
    )
    # The link ends with the credentials that have signed it.
    store.clock_offset = 200
    assert (400, "ExpiredToken") == refusal(send(url))
    assert (400, "ExpiredToken") == code(
        lambda: client(role).list_objects_v2(Bucket="b")
    )


def test_version_2_signatures_are_refused(store: S3) -> None:
    """boto3 makes such links by default in the oldest regions."""
    old = boto3.client(
        "s3",
        endpoint_url=store.address,
        region_name="us-east-1",
        aws_access_key_id=store.user.key,
        aws_secret_access_key=store.user.secret,
        config=Config(signature_version="s3"),
    )
    url = old.generate_presigned_url("get_object", {"Bucket": "b", "Key": "k"})
    old.close()
    assert (400, "InvalidRequest") == refusal(send(url))


def test_missing_things_are_named(store: S3, client: MakeClient) -> None:
    """A key is hidden from who may not list."""
    s3 = client()
    assert (404, "NoSuchBucket") == code(lambda: s3.get_object(Bucket="none", Key="k"))
    assert (404, "NoSuchKey") == code(lambda: s3.get_object(Bucket="b", Key="k"))
    assert (404, "404") == code(lambda: s3.head_object(Bucket="b", Key="k"))
    store.deny("s3:ListBucket", "b")
    assert (403, "AccessDenied") == code(lambda: s3.get_object(Bucket="b", Key="k"))
    assert (403, "403") == code(lambda: s3.head_bucket(Bucket="b"))


def test_an_action_can_be_denied_for_a_prefix(store: S3, client: MakeClient) -> None:
    """The message names caller, action and object."""
    store.put("b", "open/k", b"data")
    store.put("b", "shut/k", b"data")
    store.deny("s3:GetObject", "b/shut/")
    s3 = client()
    with s3.get_object(Bucket="b", Key="open/k")["Body"] as body:
        assert b"data" == body.read()
    with pytest.raises(ClientError, match=r"s3:GetObject.*arn:aws:s3:::b/shut/k"):
        s3.get_object(Bucket="b", Key="shut/k")


def test_another_region_is_refused(store: S3, client: MakeClient) -> None:
    """The response names the right one, and boto3 asks again there."""
    store.create_bucket("eu", "eu-central-1")
    store.put("eu", "k", b"data")
    with client().get_object(Bucket="eu", Key="k")["Body"] as body:
        assert b"data" == body.read()
    assert any("expecting 'eu-central-1'" in one for one in store.refused)
    assert [400, 200] == [one.status for one in store.requests]
    location = client(region="eu-central-1").get_bucket_location(Bucket="eu")
    assert "eu-central-1" == location["LocationConstraint"]
    assert client().get_bucket_location(Bucket="b")["LocationConstraint"] is None
    store.endpoint_region = "us-east-1"
    answer = send(f"{store.address}/eu/k")
    assert (301, "PermanentRedirect") == refusal(answer)
    assert "eu-central-1" == answer.headers["x-amz-bucket-region"]


@pytest.mark.parametrize(
    ("given", "status", "expected"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=8-100", 206, b"89"),
        ("bytes=4-2", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("lines=1-2", 200, b"0123456789"),
        ("bytes=10-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
def test_ranges(
    store: S3, link: Callable[..., str], given: str, status: int, expected: bytes | None
) -> None:
    """One range is answered; what is not understood is ignored."""
    store.put("b", "k", b"0123456789")
    answer = send(link("k"), headers={"Range": given})
    assert status == answer.status
    if expected is not None:
        assert expected == answer.body
        assert str(len(expected)) == answer.headers["content-length"]
    if status == 416:
        assert "InvalidRange" == refusal(answer)[1]
        assert "bytes */10" == answer.headers["content-range"]
    if status == 206 and expected:
        start = b"0123456789".index(expected)
        end = start + len(expected) - 1
        assert f"bytes {start}-{end}/10" == answer.headers["content-range"]


def test_if_match_holds_an_object(store: S3, link: Callable[..., str]) -> None:
    """A download in ranges sees when it is replaced."""
    etag = f'"{store.put("b", "k", b"before").etag}"'
    assert f'"{hashlib.md5(b"before").hexdigest()}"' == etag
    url = link("k")
    held = {"If-Match": etag, "Range": "bytes=0-1"}
    assert 206 == send(url, headers=held).status
    assert 304 == send(url, headers={"If-None-Match": etag}).status
    store.before(lambda: store.put("b", "k", b"after"), skip=1, key="b/k")
    assert 206 == send(url, headers=held).status
    assert (412, "PreconditionFailed") == refusal(send(url, headers=held))


def test_a_list_has_pages(store: S3, client: MakeClient) -> None:
    """Of at most 1,000 keys, in the order of their bytes."""
    keys = sorted([f"k/{n}" for n in range(1500)] + ["k", "l"])
    store.put_many("b", keys, b"x")
    s3 = client()
    first = s3.list_objects_v2(Bucket="b", MaxKeys=5000)
    assert (1000, True) == (first["KeyCount"], first["IsTruncated"])
    pages = s3.get_paginator("list_objects_v2")
    found = [o["Key"] for p in pages.paginate(Bucket="b") for o in p["Contents"]]
    assert keys == found
    pages = pages.paginate(Bucket="b", Delimiter="/", PaginationConfig={"PageSize": 1})
    listed = [p.get("Contents", []) + p.get("CommonPrefixes", []) for p in pages]
    assert ["k", "k/", "l"] == [o.get("Key") or o["Prefix"] for p in listed for o in p]
    after = s3.list_objects_v2(Bucket="b", Prefix="k/", StartAfter="k/998")
    assert ["k/999"] == [one["Key"] for one in after["Contents"]]
    made_up = base64.b64encode(b"made up").decode()
    bad = {"Bucket": "b", "ContinuationToken": made_up}
    assert (400, "InvalidArgument") == code(lambda: s3.list_objects_v2(**bad))


def test_parts_keep_their_sizes(store: S3, client: MakeClient) -> None:
    """The ETag of an object in parts is the MD5 of their MD5s."""
    data = os.urandom(25)
    store.put("b", "k", data, parts=[10, 10, 5])
    s3 = client()
    md5s = b"".join(
        hashlib.md5(p).digest() for p in (data[:10], data[10:20], data[20:])
    )
    expected = f'"{hashlib.md5(md5s).hexdigest()}-3"'
    for number, size in ((1, 10), (2, 10), (3, 5)):
        head = s3.head_object(Bucket="b", Key="k", PartNumber=number)
        assert (expected, 3, size) == (
            head["ETag"],
            head["PartsCount"],
            head["ContentLength"],
        )
    assert (416, "416") == code(
        lambda: s3.head_object(Bucket="b", Key="k", PartNumber=4)
    )


def test_the_etag_of_an_encrypted_object_is_no_md5(
    store: S3, client: MakeClient
) -> None:
    """And its key may be out of reach."""
    store.put("b", "k", b"data", kms=True)
    head = client().head_object(Bucket="b", Key="k", ChecksumMode="ENABLED")
    assert "aws:kms" == head["ServerSideEncryption"]
    assert hashlib.md5(b"data").hexdigest() not in head["ETag"]
    assert checksums.encoded("CRC32", b"data") == head["ChecksumCRC32"]
    store.deny("kms:Decrypt", "b/k")
    assert (403, "AccessDenied") == code(
        lambda: client().get_object(Bucket="b", Key="k")
    )


def test_a_file_is_sent_as_it_is(
    store: S3, link: Callable[..., str], tmp_path: Path
) -> None:
    """Whole, in part, and with the ETag of its bytes."""
    data = os.urandom(10_000)
    file = tmp_path / "file"
    file.write_bytes(data)
    whole = store.put("b", "k", file)
    parts = store.put("b", "parts", file, parts=[6000, 4000])
    assert store.put("b", "other", data).etag == whole.etag
    assert store.put("b", "other", data, parts=[6000, 4000]).etag == parts.etag
    assert checksums.encoded("CRC32", data) == whole.checksum
    for key in ("k", "parts"):
        assert data == send(link(key)).body
        part = send(link(key), headers={"Range": "bytes=10-19"})
        assert data[10:20] == part.body


def test_an_archived_object_cannot_be_read(store: S3, client: MakeClient) -> None:
    """Though it is listed, and its head is returned."""
    store.put("b", "k", b"data", storage_class="GLACIER")
    assert "GLACIER" == client().head_object(Bucket="b", Key="k")["StorageClass"]
    assert (403, "InvalidObjectState") == code(
        lambda: client().get_object(Bucket="b", Key="k")
    )


def test_unknown_parameters_are_refused(store: S3, link: Callable[..., str]) -> None:
    """The service model is the measure."""
    query = quote("GET", safe="")
    assert (403, "AccessDenied") == refusal(send(f"{store.address}/b?x={query}"))
    store.buckets["b"].public = True
    for query in ("list-type=2&prefx=a", "list-type=2&encoding-type=uri"):
        answer = send(f"{store.address}/b?{query}")
        assert (400, "InvalidArgument") == refusal(answer), query
    assert (405, "MethodNotAllowed") == refusal(send(f"{store.address}/b/k", "POST"))


def test_the_faults_of_a_network(store: S3, link: Callable[..., str]) -> None:
    """Each occurs as often as a test has requested."""
    data = os.urandom(100_000)
    store.put("b", "k", data)
    url = link("k")
    store.fail(503, times=2, retry_after=1, key="b/k")
    for _ in range(2):
        answer = send(url)
        assert (503, "SlowDown") == refusal(answer)
        assert "1" == answer.headers["retry-after"]
    store.cut(at=1000)
    with pytest.raises(http.client.IncompleteRead) as caught:
        send(url)
    assert data[:1000] == caught.value.partial
    store.cut()
    with pytest.raises(http.client.RemoteDisconnected):
        send(url)
    store.corrupt(at=50_000)
    assert data[:100] == send(url, headers={"Range": "bytes=0-99"}).body
    wrong = send(url, headers={"Range": "bytes=50000-50009"}).body
    assert (True, data[50_001:50_010]) == (wrong[0] != data[50_000], wrong[1:])
    store.ignore_range()
    assert (200, data) == (
        (whole := send(url, headers={"Range": "bytes=0-1"})).status,
        whole.body,
    )
    assert data == send(url).body
    assert [503, 503, 200, 0, 206, 206, 200, 200] == [
        one.status for one in store.requests
    ]


def test_a_stall_lasts_as_long_as_requested(
    store: S3, link: Callable[..., str]
) -> None:
    """The bytes before it arrive, the others after it."""
    store.put("b", "k", b"x" * 1000)
    url = link("k")
    stalled = store.stall(at=500, seconds=0.3)
    started = time.monotonic()
    assert 1000 == len(send(url).body)
    assert 1 == stalled.done
    assert time.monotonic() - started >= 0.3


def test_connections_are_served_at_once(store: S3, link: Callable[..., str]) -> None:
    """The log shows the connection of each request."""
    store.put("b", "k", b"x" * 1000)
    url = link("k")
    store.stall(seconds=30, at=1)

    def cut() -> None:
        with pytest.raises(http.client.IncompleteRead):
            send(url)

    slow = threading.Thread(target=cut)
    slow.start()
    while not store.requests:
        time.sleep(0.01)
    for _ in range(3):
        send(url)
    assert 4 == len({one.remote for one in store.requests})
    store.closing.set()
    slow.join()
