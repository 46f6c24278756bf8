"""The operations of S3's multipart uploads."""

from __future__ import annotations

import secrets
import xml.etree.ElementTree as ET
from typing import Callable

from tests.fakes.object_stores import s3_write
from tests.fakes.object_stores.messages import Reply
from tests.fakes.object_stores.objects import Upload, Version
from tests.fakes.object_stores.s3_body import content, local, malformed_xml, read_xml
from tests.fakes.object_stores.s3_call import Call
from tests.fakes.object_stores.s3_errors import RefusedError, iso, text, xml

_MOST = 1000
_LAST_PART = 10_000
# Only these have a checksum of all bytes that parts can be combined to.
_COMBINES = ("CRC32", "CRC32C", "CRC64NVME")


def create(call: Call) -> Reply:
    """Begin an upload; its checksum is fixed here."""
    call.permit("s3:PutObject", call.key)
    algorithm = call.get("x-amz-checksum-algorithm")
    default = "FULL_OBJECT" if algorithm in ("", "CRC64NVME") else "COMPOSITE"
    kind = call.get("x-amz-checksum-type", default)
    wrong = (
        algorithm == "CRC64NVME"
        if kind == "COMPOSITE"
        else algorithm
        not in (
            "",
            *_COMBINES,
        )
    )
    if wrong:
        raise RefusedError(
            400,
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm} checksum "
            "algorithm.",
        )
    upload = Upload(
        secrets.token_urlsafe(48),
        call.bucket_name,
        call.key,
        s3_write.kept(call),
        algorithm,
        kind,
        call.get("x-amz-storage-class", "STANDARD"),
        call.account.now(),
    )
    call.account.uploads[upload.id] = upload
    reply = xml(
        f"<InitiateMultipartUploadResult><Bucket>{call.bucket_name}</Bucket>"
        f"<Key>{text(call.key)}</Key><UploadId>{upload.id}</UploadId>"
        "</InitiateMultipartUploadResult>"
    )
    if algorithm:
        reply.headers["x-amz-checksum-algorithm"] = algorithm
        reply.headers["x-amz-checksum-type"] = kind
    return reply


def upload_part(call: Call) -> Reply:
    """Put a part; one of the same number is replaced."""
    call.permit("s3:PutObject", call.key)
    upload = _upload(call)
    number = call.operation.number("partNumber", 1)
    if not 1 <= number <= _LAST_PART:
        raise RefusedError(
            400,
            "InvalidArgument",
            "Part number must be an integer between 1 and 10000, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=number,
        )
    data, algorithm, _ = content(call)
    s3_write.check_size(call, len(data))
    # An upload without algorithm takes parts with any: botocore sends CRC32 then.
    needs = upload.algorithm if upload.checksum_type == "COMPOSITE" else algorithm
    if upload.algorithm and algorithm != (needs and upload.algorithm):
        raise RefusedError(
            400,
            "InvalidRequest",
            "Checksum Type mismatch occurred, expected checksum Type: "
            f"{upload.algorithm.lower()}, actual checksum Type: "
            f"{algorithm.lower() or 'null'}",
        )
    version = s3_write.make(
        data,
        call.account.now(),
        algorithm=algorithm or upload.algorithm,
        headers={},
    )
    upload.parts[number] = version
    return Reply(200, s3_write.described(version))


def complete(call: Call) -> Reply:
    """Make the object of the parts that the request lists."""
    call.permit("s3:PutObject", call.key)
    upload = _upload(call)
    listed = _listed(call, upload)
    s3_write.check_conditions(call)
    sizes = tuple(version.size for _, version in listed)
    expected = call.operation.number("x-amz-mp-object-size", sum(sizes))
    if expected != sum(sizes):
        raise RefusedError(
            400,
            "InvalidRequest",
            "The provided 'x-amz-mp-object-size' header does not match what was "
            "computed.",
        )
    version = s3_write.make(
        b"".join(version.read() for _, version in listed),
        call.account.now(),
        parts=sizes,
        kms=upload.headers.get("x-amz-server-side-encryption") == "aws:kms",
        algorithm=upload.algorithm or s3_write.DEFAULT,
        composite=bool(upload.algorithm) and upload.checksum_type == "COMPOSITE",
        headers=upload.headers,
        storage_class=upload.storage_class,
        versioned=call.bucket.versioned,
    )
    _check_whole(call, version)
    call.bucket.put(call.key, version)
    del call.account.uploads[upload.id]
    sums = ""
    if upload.algorithm:
        tag = f"Checksum{upload.algorithm}"
        sums = f"<{tag}>{version.checksum}</{tag}>"
        sums += f"<ChecksumType>{version.checksum_type}</ChecksumType>"
    reply = xml(
        "<CompleteMultipartUploadResult>"
        f"<Location>{text(call.account.address + call.request.raw_path)}</Location>"
        f"<Bucket>{call.bucket_name}</Bucket><Key>{text(call.key)}</Key>"
        f"<ETag>&quot;{version.etag}&quot;</ETag>{sums}"
        "</CompleteMultipartUploadResult>"
    )
    if version.version_id != "null":
        reply.headers["x-amz-version-id"] = version.version_id
    return reply


def abort(call: Call) -> Reply:
    """Forget an upload and its parts."""
    call.permit("s3:AbortMultipartUpload", call.key)
    del call.account.uploads[_upload(call).id]
    return Reply(204)


def list_parts(call: Call) -> Reply:
    """Return a page of the parts that have arrived."""
    call.permit("s3:ListMultipartUploadParts", call.key)
    upload = _upload(call)
    after = call.operation.number("part-number-marker", 0)
    limit = min(call.operation.number("max-parts", _MOST), _MOST)
    left = sorted(number for number in upload.parts if number > after)
    shown = left[:limit]
    inner = ""
    for number in shown:
        part = upload.parts[number]
        sums = ""
        if part.algorithm:
            tag = f"Checksum{part.algorithm}"
            sums = f"<{tag}>{part.checksum}</{tag}>"
        inner += (
            f"<Part><PartNumber>{number}</PartNumber>"
            f"<LastModified>{iso(part.modified)}</LastModified>"
            f"<ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size}</Size>{sums}</Part>"
        )
    truncated = str(len(left) > len(shown)).lower()
    return xml(
        f"<ListPartsResult><Bucket>{call.bucket_name}</Bucket>"
        f"<Key>{text(call.key)}</Key><UploadId>{upload.id}</UploadId>"
        f"<PartNumberMarker>{after}</PartNumberMarker>"
        f"<NextPartNumberMarker>{shown[-1] if shown else 0}</NextPartNumberMarker>"
        f"<MaxParts>{limit}</MaxParts><IsTruncated>{truncated}</IsTruncated>"
        f"{inner}</ListPartsResult>"
    )


def list_uploads(call: Call) -> Reply:
    """Return the first 1,000 uploads that are not complete."""
    call.permit("s3:ListBucketMultipartUploads")
    if call.get("key-marker") or call.get("delimiter"):
        raise RefusedError(501, "NotImplemented", "this fake lists one page")
    found = [
        upload
        for upload in call.account.uploads.values()
        if upload.bucket == call.bucket_name
        and upload.key.startswith(call.get("prefix"))
    ]
    assert len(found) <= _MOST, "this fake lists one page"
    inner = "".join(
        f"<Upload><Key>{text(one.key)}</Key><UploadId>{one.id}</UploadId>"
        f"<Initiated>{iso(one.started)}</Initiated></Upload>"
        for one in sorted(found, key=lambda one: (one.key, one.started))
    )
    return xml(
        f"<ListMultipartUploadsResult><Bucket>{call.bucket_name}</Bucket>"
        f"<IsTruncated>false</IsTruncated>{inner}</ListMultipartUploadsResult>"
    )


def _upload(call: Call) -> Upload:
    """Return the upload of a call, which must be for its key."""
    upload = call.account.uploads.get(call.get("uploadId"))
    if upload is None or (upload.bucket, upload.key) != (call.bucket_name, call.key):
        raise RefusedError(
            404,
            "NoSuchUpload",
            "The specified upload does not exist. The upload ID may be invalid, or the "
            "upload may have been aborted or completed.",
            UploadId=call.get("uploadId"),
        )
    return upload


def _listed(call: Call, upload: Upload) -> list[tuple[int, Version]]:
    """Return the parts in the document, which must be those that have arrived."""
    root = read_xml(call.request.body, "CompleteMultipartUpload", {"Part"})
    found: list[tuple[int, Version]] = []
    for entry in root:
        fields = _part_fields(entry)
        number = int(fields["PartNumber"])
        if found and number <= found[-1][0]:
            raise RefusedError(
                400,
                "InvalidPartOrder",
                "The list of parts was not in ascending order. Parts must be ordered "
                "by part number.",
                UploadId=upload.id,
            )
        part = upload.parts.get(number)
        composite = bool(upload.algorithm) and upload.checksum_type == "COMPOSITE"
        if composite and f"Checksum{upload.algorithm}" not in fields:
            raise RefusedError(
                400,
                "InvalidRequest",
                f"The upload was created using a {upload.algorithm.lower()} checksum. "
                "The complete request must include the checksum for each part. It was "
                f"missing for part {number} in the request.",
            )
        if part is None or not _names(fields, part, upload):
            raise RefusedError(
                400,
                "InvalidPart",
                "One or more of the specified parts could not be found.  The part may "
                "not have been uploaded, or the specified entity tag may not match the "
                "part's entity tag.",
                UploadId=upload.id,
                PartNumber=number,
                ETag=fields["ETag"].strip('"'),
            )
        found.append((number, part))
    if not found:
        raise malformed_xml()
    for number, part in found[:-1]:
        if part.size < call.account.min_part:
            raise RefusedError(
                400,
                "EntityTooSmall",
                "Your proposed upload is smaller than the minimum allowed size",
                ETag=part.etag,
                MinSizeAllowed=call.account.min_part,
                ProposedSize=part.size,
                PartNumber=number,
            )
    return found


def _names(fields: dict[str, str], part: Version, upload: Upload) -> bool:
    """Return whether an entry of the document is for this part."""
    if fields["ETag"].strip('"') != part.etag:
        return False
    given = fields.get(f"Checksum{part.algorithm}", "")
    if upload.algorithm and upload.checksum_type == "FULL_OBJECT" and not given:
        return True
    # A part with a checksum is another one than that without:
    # https://github.com/aws/aws-sdk-java-v2/issues/6518
    return given == part.checksum


def _part_fields(entry: ET.Element) -> dict[str, str]:
    fields = {local(one.tag): one.text or "" for one in entry}
    known = {"PartNumber", "ETag"}
    extra = {name for name in fields if not name.startswith("Checksum")} - known
    if extra or not known <= set(fields) or not fields["PartNumber"].isdigit():
        raise malformed_xml()
    return fields


def _check_whole(call: Call, version: Version) -> None:
    """Refuse a checksum of the whole object that is not the object's."""
    kind = call.get("x-amz-checksum-type", version.checksum_type)
    own = f"x-amz-checksum-{version.algorithm.lower()}"
    for name, value in call.operation.values.items():
        if not name.startswith("x-amz-checksum-") or name == "x-amz-checksum-type":
            continue
        # The number of parts may be left out of a composite one.
        right = name == own and value in (
            version.checksum,
            version.checksum.partition("-")[0],
        )
        if not right or kind != version.checksum_type:
            raise RefusedError(
                400,
                "BadDigest",
                f"The {name} you specified did not match the calculated checksum.",
            )


HANDLERS: dict[str, Callable[[Call], Reply]] = {
    "CreateMultipartUpload": create,
    "UploadPart": upload_part,
    "CompleteMultipartUpload": complete,
    "AbortMultipartUpload": abort,
    "ListParts": list_parts,
    "ListMultipartUploads": list_uploads,
}
