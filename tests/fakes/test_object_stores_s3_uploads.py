"""The fake S3 takes uploads that S3 takes."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from tests.fakes.object_stores.client import MakeClient, Response, s3_clients, send
from tests.fakes.object_stores.s3 import S3
from tests.fakes.object_stores.tls import Authority

MIB = 1 << 20

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
def s3(client: MakeClient) -> Any:
    """boto3's client."""
    return client()


def code(call: Callable[[], object]) -> tuple[int, str]:
    """Return status and code of the error that a call of boto3 ends with."""
    with pytest.raises(ClientError) as caught:
        call()
    error = caught.value.response
    return error["ResponseMetadata"]["HTTPStatusCode"], error["Error"]["Code"]


def refusal(response: Response) -> tuple[int, str]:
    """Return status and code of an error response."""
    return response.status, response.body.decode().partition("<Code>")[2].split("<")[0]


def live(store: S3, key: str) -> bytes:
    """Return what is stored under a key."""
    version = store.buckets["b"].live(key)
    assert version is not None
    return version.read()


def test_what_was_put_can_be_read(store: S3, s3: Any) -> None:
    """With its type, metadata and checksum."""
    about = {"ContentType": "text/plain", "Metadata": {"job": "1"}}
    put = s3.put_object(Bucket="b", Key="a//b", Body=b"data", **about)
    with s3.get_object(Bucket="b", Key="a//b", ChecksumMode="ENABLED")["Body"] as body:
        assert b"data" == body.read()
    head = s3.head_object(Bucket="b", Key="a//b", ChecksumMode="ENABLED")
    assert about == {name: head[name] for name in about}
    crc = base64.b64encode(zlib.crc32(b"data").to_bytes(4, "big")).decode()
    assert crc == put["ChecksumCRC32"] == head["ChecksumCRC32"]
    assert put["ETag"] == f'"{hashlib.md5(b"data").hexdigest()}"'


@pytest.mark.parametrize(
    ("headers", "status", "expected"),
    [
        ({"Content-MD5": "1B2M2Y8AsgTpgAmY7PhCfg=="}, 400, "BadDigest"),
        ({"Content-MD5": "x"}, 400, "InvalidDigest"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, 400, "BadDigest"),
        ({"x-amz-checksum-sha256": "AAAA"}, 400, "BadDigest"),
        ({"x-amz-sdk-checksum-algorithm": "CRC32"}, 400, "InvalidRequest"),
        ({"x-amz-storage-class": "COLD"}, 400, "InvalidArgument"),
        ({"x-amz-acl": "public-read"}, 400, "AccessControlListNotSupported"),
        ({"x-amz-tagging": "a=b"}, 501, "NotImplemented"),
        ({"x-amz-unknown": "1"}, 400, "InvalidArgument"),
    ],
)  # fmt: skip
def test_a_wrong_checksum_or_header_is_refused(
    store: S3, s3: Any, headers: dict[str, str], status: int, expected: str
) -> None:
    """Nothing is stored then."""
    signed = _signed_put(s3, headers)
    assert (status, expected) == refusal(send(signed, "PUT", headers, b"data"))
    assert store.buckets["b"].live("k") is None


def _signed_put(s3: Any, headers: Mapping[str, str] | None = None) -> str:
    """Return a link for PUT that covers some headers."""
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    url = f"{s3.meta.endpoint_url}/b/k"
    request = AWSRequest("PUT", url, headers=dict(headers or {}))
    credentials = s3._request_signer._credentials
    S3SigV4QueryAuth(credentials, "s3", "us-east-1", expires=60).add_auth(request)
    return str(request.url)


def test_a_link_for_put_takes_one_object(store: S3, s3: Any) -> None:
    """Not more than the most bytes of a PUT, and only with a length."""
    url = s3.generate_presigned_url("put_object", {"Bucket": "b", "Key": "k"})
    assert 200 == send(url, "PUT", body=b"data").status
    assert b"data" == live(store, "k")
    store.max_put = 10
    assert (400, "EntityTooLarge") == refusal(send(url, "PUT", body=b"x" * 11))
    chunked = {"Transfer-Encoding": "chunked"}
    answer = send(url, "PUT", chunked, b"4\r\nlong\r\n0\r\n\r\n")
    assert (501, "NotImplemented") == refusal(answer)
    assert b"data" == live(store, "k")


def test_an_object_can_be_protected(store: S3, s3: Any) -> None:
    """If-None-Match and If-Match are conditions of a PUT."""
    held = {"Bucket": "b", "Key": "k", "IfNoneMatch": "*"}
    etag = s3.put_object(Body=b"first", **held)["ETag"]
    assert (412, "PreconditionFailed") == code(lambda: s3.put_object(Body=b"2", **held))
    held = {"Bucket": "b", "Key": "k", "IfMatch": etag}
    s3.put_object(Body=b"second", **held)
    assert (412, "PreconditionFailed") == code(lambda: s3.put_object(Body=b"3", **held))
    held["Key"] = "none"
    assert (404, "NoSuchKey") == code(lambda: s3.put_object(Body=b"3", **held))
    assert b"second" == live(store, "k")


def test_an_upload_in_parts(store: S3, s3: Any, tmp_path: Path) -> None:
    """The SDK's own transfer: parts of 5 MiB, several at once."""
    data = os.urandom(12 * MIB + 5)
    config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
    s3.upload_fileobj(io.BytesIO(data), "b", "k", Config=config)
    assert data == live(store, "k")
    head = s3.head_object(Bucket="b", Key="k", PartNumber=1, ChecksumMode="ENABLED")
    assert (5 * MIB, 3) == (head["ContentLength"], head["PartsCount"])
    assert head["ETag"].endswith('-3"')
    whole = s3.head_object(Bucket="b", Key="k", ChecksumMode="ENABLED")
    assert ("COMPOSITE", True) == (
        whole["ChecksumType"],
        whole["ChecksumCRC32"].endswith("-3"),
    )
    file = tmp_path / "file"
    s3.download_file("b", "k", str(file), Config=config)
    assert data == file.read_bytes()
    assert {} == store.uploads


def test_parts_must_be_those_that_have_arrived(store: S3, s3: Any) -> None:
    """In order, large enough, with their ETags and checksums."""
    store.min_part = 10
    where = {"Bucket": "b", "Key": "k"}
    upload = s3.create_multipart_upload(**where)["UploadId"]
    where["UploadId"] = upload
    parts = []
    for number, size in ((1, 10), (2, 9), (3, 1)):
        put = s3.upload_part(PartNumber=number, Body=b"x" * size, **where)
        parts.append(
            {
                "PartNumber": number,
                "ETag": put["ETag"],
                "ChecksumCRC32": put["ChecksumCRC32"],
            }
        )

    def complete(*chosen: dict[str, Any]) -> Any:
        return s3.complete_multipart_upload(
            MultipartUpload={"Parts": list(chosen)}, **where
        )

    one, two, three = parts
    wrong = {**one, "ETag": '"0"'}
    bare = {"PartNumber": 1, "ETag": one["ETag"]}
    assert (400, "EntityTooSmall") == code(lambda: complete(one, two, three))
    assert (400, "InvalidPartOrder") == code(lambda: complete(two, one))
    assert (400, "InvalidPart") == code(lambda: complete(wrong))
    assert (400, "InvalidPart") == code(lambda: complete({**three, "PartNumber": 4}))
    assert (400, "InvalidPart") == code(lambda: complete(bare))
    assert (400, "InvalidArgument") == code(
        lambda: s3.upload_part(PartNumber=10_001, Body=b"", **where)
    )
    listed = s3.list_parts(**where)["Parts"]
    assert [(1, 10), (2, 9), (3, 1)] == [(p["PartNumber"], p["Size"]) for p in listed]
    (pending,) = s3.list_multipart_uploads(Bucket="b")["Uploads"]
    assert ("k", upload) == (pending["Key"], pending["UploadId"])
    complete(one, three)
    assert b"x" * 11 == live(store, "k")
    assert (404, "NoSuchUpload") == code(lambda: complete(one, three))


def test_an_upload_can_be_aborted(store: S3, s3: Any) -> None:
    """Its id is worth nothing after that."""
    where = {"Bucket": "b", "Key": "k"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    s3.upload_part(PartNumber=1, Body=b"x", **where)
    s3.abort_multipart_upload(**where)
    assert (404, "NoSuchUpload") == code(
        lambda: s3.upload_part(PartNumber=2, Body=b"x", **where)
    )
    assert (404, "NoSuchUpload") == code(lambda: s3.abort_multipart_upload(**where))
    assert {} == store.uploads


def test_an_error_can_come_with_status_200(store: S3, s3: Any) -> None:
    """As S3 does when it has begun to answer the end of an upload."""
    where = {"Bucket": "b", "Key": "k"}
    where["UploadId"] = s3.create_multipart_upload(**where)["UploadId"]
    part = s3.upload_part(PartNumber=1, Body=b"x", **where)
    one = {
        "PartNumber": 1,
        "ETag": part["ETag"],
        "ChecksumCRC32": part["ChecksumCRC32"],
    }
    store.fail(200, code="InternalError", method="POST")
    with pytest.raises(ClientError, match="InternalError"):
        s3.complete_multipart_upload(MultipartUpload={"Parts": [one]}, **where)
    assert store.buckets["b"].live("k") is None


def test_a_version_stays(client: MakeClient, store: S3) -> None:
    """What is replaced or deleted can be read by its id."""
    store.buckets["b"].versioned = True
    s3 = client()
    where = {"Bucket": "b", "Key": "k"}
    first = s3.put_object(Body=b"1", **where)["VersionId"]
    second = s3.put_object(Body=b"2", **where)["VersionId"]
    for version, expected in ((first, b"1"), (second, b"2")):
        with s3.get_object(VersionId=version, **where)["Body"] as body:
            assert expected == body.read()
    marker = s3.delete_object(**where)
    assert marker["DeleteMarker"]
    assert (404, "NoSuchKey") == code(lambda: s3.get_object(**where))
    assert "Contents" not in s3.list_objects_v2(Bucket="b")
    wrong = {**where, "VersionId": marker["VersionId"]}
    assert (405, "MethodNotAllowed") == code(lambda: s3.get_object(**wrong))
    wrong["VersionId"] = "none"
    assert (404, "NoSuchVersion") == code(lambda: s3.get_object(**wrong))
    s3.delete_object(VersionId=marker["VersionId"], **where)
    with s3.get_object(**where)["Body"] as body:
        assert b"2" == body.read()


def test_objects_are_deleted_together(store: S3, s3: Any) -> None:
    """Those that may not be deleted are errors of their own."""
    for key in ("a", "b/1", "c"):
        store.put("b", key, b"x")
    store.deny("s3:DeleteObject", "b/b/")
    named = [{"Key": key} for key in ("a", "b/1", "none")]
    answer = s3.delete_objects(Bucket="b", Delete={"Objects": named})
    assert ["a", "none"] == [one["Key"] for one in answer["Deleted"]]
    assert [("b/1", "AccessDenied")] == [
        (one["Key"], one["Code"]) for one in answer["Errors"]
    ]
    assert (store.buckets["b"].live("a"), True) == (
        None,
        store.buckets["b"].live("c") is not None,
    )


def _form(fields: Mapping[str, str], data: bytes) -> tuple[dict[str, str], bytes]:
    body = b""
    for name, value in fields.items():
        body += f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode()
        body += f"{value}\r\n".encode()
    body += b'--x\r\nContent-Disposition: form-data; name="file"; filename="f.txt"'
    body += b"\r\n\r\n" + data + b"\r\n--x--\r\n"
    return {"Content-Type": "multipart/form-data; boundary=x"}, body


def _post(post: Mapping[str, Any], data: bytes, **changes: str) -> Response:
    headers, body = _form({**post["fields"], **changes}, data)
    return send(post["url"], "POST", headers, body)


def test_a_form_is_bound_by_its_policy(store: S3, s3: Any) -> None:
    """Key, size, fields, time and signature."""
    data = b"\x00line\r\nother\n\x1a"
    conditions = [["starts-with", "$key", "job/"], ["content-length-range", 1, 100]]
    post = s3.generate_presigned_post("b", "job/${filename}", None, conditions, 60)
    assert 204 == _post(post, data).status
    assert data == live(store, "job/f.txt")
    assert 204 == _post(post, data, key="job/2").status
    assert data == live(store, "job/2")
    assert (403, "AccessDenied") == refusal(_post(post, data, key="other/2"))
    assert (400, "EntityTooLarge") == refusal(_post(post, b"x" * 101))
    assert (400, "EntityTooSmall") == refusal(_post(post, b""))
    extra = _post(post, data, **{"x-amz-meta-a": "1"})
    assert b"Extra input fields: x-amz-meta-a" in extra.body
    policy = json.loads(base64.b64decode(post["fields"]["policy"]))
    policy["conditions"] = policy["conditions"][1:]
    forged = base64.b64encode(json.dumps(policy).encode()).decode()
    assert (403, "SignatureDoesNotMatch") == refusal(_post(post, data, policy=forged))
    store.clock_offset = 61
    late = _post(post, data)
    assert (403, "AccessDenied") == refusal(late)
    assert b"Policy expired" in late.body


def test_a_form_ends_with_the_credentials(store: S3, client: MakeClient) -> None:
    """Temporary ones sign with their token."""
    role = store.temporary(seconds=30)
    post = client(role).generate_presigned_post("b", "k", None, None, 60)
    assert 204 == _post(post, b"data").status
    bare = {**post, "fields": {**post["fields"]}}
    del bare["fields"]["x-amz-security-token"]
    assert 403 == _post(bare, b"data").status
    store.clock_offset = 31
    assert (400, "ExpiredToken") == refusal(_post(post, b"data"))


def test_a_lost_response_has_taken_effect(store: S3, s3: Any) -> None:
    """A request that is cut has not."""
    url = s3.generate_presigned_url("put_object", {"Bucket": "b", "Key": "k"})
    store.cut_request(at=2)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        send(url, "PUT", body=b"data")
    assert store.buckets["b"].live("k") is None
    store.cut()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        send(url, "PUT", body=b"data")
    assert b"data" == live(store, "k")


def test_an_sdk_with_https_sends_its_checksum_last(tmp_path: Path) -> None:
    """In a trailer after chunks."""
    authority = Authority(tmp_path)
    store = S3(tls=authority.context())
    store.create_bucket("b")
    with store.running(), s3_clients(store, authority.file) as make:
        make().put_object(Bucket="b", Key="k", Body=io.BytesIO(b"data" * 1000))
        assert b"data" * 1000 == live(store, "k")
        version = store.buckets["b"].live("k")
        assert version is not None
        assert "CRC32" == version.algorithm
        assert "Content-Encoding" not in version.headers


def test_the_sdk_waits_for_continue_in_vain_nowhere(store: S3, s3: Any) -> None:
    """A PUT with "Expect: 100-continue" begins at once."""
    started = time.monotonic()
    for number in range(5):
        s3.put_object(Bucket="b", Key=str(number), Body=io.BytesIO(b"x"))
    assert time.monotonic() - started < 4
