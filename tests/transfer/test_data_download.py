"""The box downloads the objects of a real S3 client's bucket, whatever fails."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from onebox.errors import (
    BoxFailed,
    ConnectionLost,
    InputError,
    NotAllowed,
    OneboxError,
    ProtocolError,
)
from onebox.providers.object_stores import ObjectStores
from onebox.remote.channel import AgentChannel
from onebox.settings.data_sources import DataSource
from onebox.transfer import data_download, data_listing
from onebox.transfer.data_download import Downloaded
from onebox.transfer.data_listing import DataListing
from tests.fakes.agent_box import AgentBox, until
from tests.fakes.object_stores.s3 import S3

MB = 1 << 20
PART = 16 * MB


class Place:
    """
    A bucket, a box that downloads it to `data/`, and what the client here knows.

    Attributes:
        s3: The store; its bucket "bucket" has the objects.
    """

    def __init__(self, s3: S3, box: AgentBox) -> None:
        self.s3 = s3
        self.box = box
        self.stores = ObjectStores({})
        self.source = DataSource.parse("s3://bucket/x/ -> data/")
        self.data = box.work / "data"

    def listing(self, *texts: str) -> DataListing:
        """Return what is in the bucket now, or at other addresses."""
        sources = [*map(DataSource.parse, texts)] or [self.source]
        return data_listing.find(sources, self.stores)

    def download(self, listing: DataListing | None = None) -> Downloaded:
        """Have the box download."""
        with self.box.connect() as channel:
            return data_download.download(
                channel,
                self.listing() if listing is None else listing,
                self.stores,
                lambda *numbers: None,
            )

    def reads(self) -> list[tuple[str, str]]:
        """Return path and range of the objects that were read since the last call."""
        found = [
            (one.path, one.range)
            for one in self.s3.requests
            if one.method == "GET" and one.path.strip("/") != "bucket"
            # A listing reads the first byte of one object.
            if one.range != "bytes=0-0"
        ]
        self.s3.requests.clear()
        return found

    def files(self) -> dict[str, bytes]:
        """Return the downloaded files by their names below `data/`."""
        return {
            str(path.relative_to(self.data)): path.read_bytes()
            for path in self.data.rglob("*")
            if path.is_file()
        }

    @property
    def partial(self) -> list[Path]:
        """The files that are not complete."""
        folder = self.box.root / "files" / "downloads"
        return [*folder.iterdir()] if folder.exists() else []


@pytest.fixture
def place(agent_box: AgentBox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An S3 with an empty bucket, and a box."""
    s3 = S3()
    s3.create_bucket("bucket")
    with s3.running() as address:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        for name, value in {
            "AWS_ENDPOINT_URL_S3": address,
            "AWS_ACCESS_KEY_ID": s3.user.key,
            "AWS_SECRET_ACCESS_KEY": s3.user.secret,
            "AWS_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }.items():
            monkeypatch.setenv(name, value)
        yield Place(s3, agent_box)


def random(size: int) -> bytes:
    """Return bytes that no compression makes smaller."""
    return os.urandom(size)


class TestDownload:
    def test_objects_become_files(self, place: Place) -> None:
        """Names may have any characters; the time is that of the object."""
        objects = {
            "a": b"1",
            "b/c": random(3 * MB),
            "empty": b"",
            "ü n%2F+&<>": b"2",
            "tab\tline\n": b"3",
            "b/d e": b"4",
        }
        for name, data in objects.items():
            place.s3.put("bucket", f"x/{name}", data, modified=1.7e9)
        place.s3.put("bucket", "y/other", b"5")
        place.s3.put("bucket", "x/b/", b"")
        done = place.download()

        assert objects == place.files()
        assert (len(objects), len(objects), ()) == (
            done.files,
            done.checked,
            tuple(done.changed),
        )
        assert {1.7e9} == {
            path.stat().st_mtime for path in place.data.rglob("*") if path.is_file()
        }
        assert [] == place.partial

    @pytest.mark.parametrize("parts", [(), (8 * MB, 8 * MB, 8 * MB, 8 * MB, 8 * MB, 5)])
    def test_a_large_object_is_read_in_parts(
        self, place: Place, parts: tuple[int, ...]
    ) -> None:
        """Its checksum is that of the whole, or that of an upload in parts."""
        data = random(40 * MB + 5)
        place.s3.put("bucket", "x/big", data, parts=parts)
        done = place.download()

        assert data == place.files()["big"]
        assert (1, 1) == (done.files, done.checked)
        assert {
            f"bytes=0-{PART - 1}",
            f"bytes={PART}-{2 * PART - 1}",
            f"bytes={2 * PART}-{len(data) - 1}",
        } == {found for _, found in place.reads()}

    def test_an_object_that_is_there_is_not_read_again(self, place: Place) -> None:
        """Only new versions are read, and what is not listed any more is removed."""
        for name in ("same", "new", "gone", "deep/gone"):
            place.s3.put("bucket", f"x/{name}", b"1")
        place.download()
        place.reads()
        place.s3.put("bucket", "x/new", b"2")
        for name in ("gone", "deep/gone"):
            place.s3.buckets["bucket"].remove(f"x/{name}")
        done = place.download()

        assert {"same": b"1", "new": b"2"} == place.files()
        assert [("/bucket/x/new", "")] == place.reads()
        assert (1, 2) == (done.files, done.deleted)
        assert not (place.data / "deep").exists()

    def test_a_file_that_the_job_has_changed_is_read_again(self, place: Place) -> None:
        """Also if its size and its time are as before."""
        place.s3.put("bucket", "x/a", b"1")
        place.s3.put("bucket", "x/b", b"1")
        place.download()
        before = (place.data / "a").stat()
        (place.data / "a").write_bytes(b"2")
        os.utime(place.data / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
        place.reads()
        place.download()

        assert b"1" == (place.data / "a").read_bytes()
        assert ["/bucket/x/a"] == [path for path, _ in place.reads()]

    def test_a_box_gets_no_credentials(self, place: Place) -> None:
        """It has links to the objects, and only while it downloads."""
        place.s3.put("bucket", "x/a", b"1")
        place.download()
        secrets = [place.s3.user.secret.encode(), b"X-Amz-Signature"]
        for path in [*place.box.home.rglob("*"), *place.box.root.rglob("*")]:
            if path.is_file() and path.suffix not in (".pyz", ".zip"):
                assert not any(one in path.read_bytes() for one in secrets), path

    def test_an_object_without_a_usable_checksum_is_counted(self, place: Place) -> None:
        """The ETag of an object that is encrypted with a key of KMS is no MD5 sum."""
        place.s3.put("bucket", "x/kms", b"1", kms=True)
        place.s3.put("bucket", "x/plain", b"2")
        done = place.download()

        assert (2, 1) == (done.files, done.checked)
        assert {"kms": b"1", "plain": b"2"} == place.files()

    def test_a_bucket_of_another_region_is_found(self, place: Place) -> None:
        """S3 names the region of a bucket when it is asked in another one."""
        place.s3.create_bucket("far", "eu-central-1")
        place.s3.put("far", "a", b"1")
        place.download(place.listing("s3://far/ -> data/"))

        assert {"a": b"1"} == place.files()

    def test_thousands_of_objects_take_one_request_each(self, place: Place) -> None:
        """They are listed in pages, and their links are made in batches."""
        place.s3.put_many("bucket", (f"x/{n:05}" for n in range(1200)), b"data")
        listing = place.listing()
        assert 1200 == len(listing.files)
        place.reads()
        done = place.download(listing)

        assert (1200, 1200) == (done.files, len(list(place.data.iterdir())))
        assert 1200 == len(place.reads())


class TestFaults:
    @pytest.mark.parametrize("size", [3 * MB, 40 * MB])
    def test_what_fails_is_read_again(self, place: Place, size: int) -> None:
        """A broken connection loses no byte."""
        data = random(size)
        place.s3.put("bucket", "x/a", data)
        listing = place.listing()
        place.s3.cut(at=MB + 3, key="bucket/x/*")
        place.s3.fail(503, key="bucket/x/*")
        place.s3.fail(429, key="bucket/x/*", retry_after=0)
        place.s3.cut(key="bucket/x/*")
        done = place.download(listing)

        assert data == place.files()["a"]
        assert 1 == done.checked

    def test_bytes_that_are_wrong_once_are_read_again(self, place: Place) -> None:
        """The checksum finds them."""
        data = random(10 * MB)
        place.s3.put("bucket", "x/a", data)
        listing = place.listing()
        fault = place.s3.corrupt(at=5 * MB, key="bucket/x/*")
        done = place.download(listing)

        assert 1 == fault.done
        assert data == place.files()["a"]
        assert 1 == done.checked

    def test_an_upload_with_parts_of_several_sizes_has_no_usable_checksum(
        self, place: Place
    ) -> None:
        """Its sum is one of pieces that nobody knows; it is no damaged object."""
        for name, parts in {"a": (6, 7, 5), "b": (6, 7, 5, 6)}.items():
            sizes = [size * MB for size in parts]
            place.s3.put("bucket", f"x/{name}", random(sum(sizes)), parts=sizes)
        done = place.download()

        assert (2, 0) == (done.files, done.checked)
        for name, data in place.files().items():
            version = place.s3.buckets["bucket"].live(f"x/{name}")
            assert version is not None
            assert data == version.data

    def test_bytes_that_are_always_wrong_are_refused(self, place: Place) -> None:
        """No file has them, and the error names the object."""
        place.s3.put("bucket", "x/a", random(MB))
        listing = place.listing()
        place.s3.corrupt(at=7, key="bucket/x/*", times=99)
        with pytest.raises(InputError, match="s3://bucket/x/a arrives with a wrong"):
            place.download(listing)
        assert not place.data.exists()

    def test_a_server_that_ignores_ranges_sends_the_object_whole(
        self, place: Place
    ) -> None:
        """Proxies exist that do."""
        data = random(40 * MB)
        place.s3.put("bucket", "x/a", data)
        listing = place.listing()
        place.s3.ignore_range(key="bucket/x/*", times=99)
        place.download(listing)

        assert data == place.files()["a"]

    def test_a_connection_that_always_breaks_is_an_error(self, place: Place) -> None:
        """A download that begins again and again is not further than before."""
        place.s3.put("bucket", "x/a", random(3 * MB))
        listing = place.listing()
        place.s3.cut(at=MB, key="bucket/x/*", times=999)
        with pytest.raises(BoxFailed, match="breaks") as error:
            place.download(listing)
        assert "the same command again" in error.value.next

    def test_an_expired_link_is_made_again(self, place: Place) -> None:
        """A download may take longer than a link is valid."""
        data = random(40 * MB)
        place.s3.put("bucket", "x/a", data)
        listing = place.listing()
        place.s3.fail(400, code="ExpiredToken", key="bucket/x/*", times=2)
        place.download(listing)

        assert data == place.files()["a"]

    def test_an_object_that_changes_meanwhile_is_reported(self, place: Place) -> None:
        """No file mixes two versions, and none has the version that was not listed."""
        place.s3.put("bucket", "x/a", random(40 * MB))
        place.s3.put("bucket", "x/b", b"1")
        listing = place.listing()
        fresh = random(40 * MB)
        place.s3.before(
            lambda: place.s3.put("bucket", "x/a", fresh), skip=1, key="bucket/x/a"
        )
        done = place.download(listing)

        assert [b"data/a"] == [file.path for file in done.changed]
        assert {"b": b"1"} == place.files()
        assert ((), 1) == (tuple(place.download().changed), done.checked)
        assert {"a": fresh, "b": b"1"} == place.files()

    def test_an_object_that_is_gone_is_reported(self, place: Place) -> None:
        """It was there when it was listed."""
        place.s3.put("bucket", "x/a", b"1")
        listing = place.listing()
        place.s3.buckets["bucket"].remove("x/a")

        assert [b"data/a"] == [file.path for file in place.download(listing).changed]

    def test_an_object_that_may_not_be_read_ends_the_download(
        self, place: Place
    ) -> None:
        """What has arrived stays, and the error names the object."""
        place.s3.put("bucket", "x/a", b"1")
        place.s3.put("bucket", "x/secret", b"2")
        place.s3.deny("s3:GetObject", "bucket/x/secret")
        with pytest.raises(NotAllowed, match=r"x/secret: HTTP 403 .* of 2 files"):
            place.download()

    def test_a_store_that_the_box_cannot_reach_is_named(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The box may have no route to it, although this machine has one."""
        place.s3.put("bucket", "x/a", b"1")
        listing = place.listing()
        file = listing.files[0]
        real = place.stores.of(file.source).link(file.source, file.found)
        assert real is not None
        address = urlsplit(real.url).netloc
        monkeypatch.setattr(
            place.stores.of(file.source),
            "link",
            lambda source, found: replace(
                real, url=real.url.replace(address, "127.0.0.1:9")
            ),
        )
        with pytest.raises(BoxFailed, match=r"127\.0\.0\.1 cannot be reached") as error:
            place.download(listing)
        assert "route to that host" in error.value.next

    def test_a_disk_that_is_too_small_is_refused_at_once(self, place: Place) -> None:
        """Nothing is read."""
        place.s3.put("bucket", "x/a", b"1")
        listing = place.listing()
        file = listing.files[0]
        huge = DataListing([file._replace(found=file.found._replace(size=1 << 60))])
        place.reads()
        with pytest.raises(BoxFailed, match="bytes free"):
            place.download(huge)
        assert [] == place.reads()

    def test_a_download_goes_on_after_its_agent_was_killed(self, place: Place) -> None:
        """Finished parts of a large object are not read again, nor finished files."""
        data = random(256 * MB)
        place.s3.put("bucket", "x/big", data)
        place.s3.put("bucket", "x/small", b"1")
        listing = place.listing()
        place.s3.bytes_per_second = 10 * MB
        place.reads()
        channel = place.box.connect()
        thread = threading.Thread(target=_expect_loss, args=(place, channel, listing))
        thread.start()
        partial = place.box.root / "files" / "downloads"
        # What was finished in the last second before a kill may be read again.
        until(lambda: any(_finished(path) > 8 for path in partial.glob("*.parts")))
        channel.process.send_signal(signal.SIGKILL)
        thread.join()
        until(lambda: not _workers(place.box))
        place.s3.bytes_per_second = 0
        time.sleep(0.5)
        first = len(place.reads())
        place.download(listing)

        assert data == (place.data / "big").read_bytes()
        again = [path for path, _ in place.reads() if path.endswith("big")]
        assert 0 < len(again) < 12 < first + len(again)
        assert [] == place.partial
        assert [] == _workers(place.box)

    def test_files_of_a_killed_download_are_known(self, place: Place) -> None:
        """They are read again or removed, and are no files of the job."""
        place.s3.put_many("bucket", (f"x/{n:03}" for n in range(300)), random(50_000))
        listing = place.listing()
        place.s3.bytes_per_second = 200_000
        channel = place.box.connect()
        thread = threading.Thread(target=_expect_loss, args=(place, channel, listing))
        thread.start()
        until(lambda: place.data.exists() and len([*place.data.iterdir()]) > 5)
        channel.process.send_signal(signal.SIGKILL)
        thread.join()
        place.s3.bytes_per_second = 0
        with place.box.connect() as channel:
            changes = channel.request("changes", since=0)
        assert [] == changes["names"]
        place.download(place.listing("s3://bucket/x/000 -> other/"))

        assert not place.data.exists()

    def test_a_file_counts_only_when_its_contents_are_on_the_disk(
        self, place: Place
    ) -> None:
        """After a power cut, a file may have its size and only zeros."""
        trace = place.box.root / "trace"
        place.box.tracer = ["strace", "-f", "-e", "trace=sync,fsync", "-o", str(trace)]
        place.s3.put("bucket", "x/a", random(MB))
        place.s3.put("bucket", "x/b", b"1")
        place.s3.deny("s3:GetObject", "bucket/x/b")
        with pytest.raises(NotAllowed):
            place.download()
        calls = re.findall(r"(sync|fsync)\(", trace.read_text())

        # The marks of files to come, and then those of complete files.
        assert ["fsync", "sync", "fsync"] == [
            call for n, call in enumerate(calls) if calls[n - 1 : n] != [call]
        ]

    def test_partial_files_of_another_version_take_no_room(self, place: Place) -> None:
        """They are removed before the space is compared."""
        staging = place.box.root / "files" / "downloads"
        staging.mkdir(parents=True)
        (staging / ("0" * 40)).write_bytes(random(MB))
        (staging / "folder").mkdir()
        place.s3.put("bucket", "x/a", b"1")
        place.s3.deny("s3:GetObject", "bucket/x/a")
        place.s3.put("bucket", "y", b"1")
        listing = place.listing("s3://bucket/y")
        file = listing.files[0]._replace(source=place.source)
        found = file.found._replace(key="x/a")
        with pytest.raises(NotAllowed):
            place.download(DataListing([file._replace(found=found)]))

        assert not (staging / "folder").exists()
        assert not (staging / ("0" * 40)).exists()

    def test_no_process_of_a_download_outlives_its_agent(self, place: Place) -> None:
        """A killed agent leaves nothing that reads or writes."""
        place.s3.put("bucket", "x/big", random(8 * MB))
        listing = place.listing()
        place.s3.stall(at=MB, key="bucket/x/*", times=9)
        channel = place.box.connect()
        thread = threading.Thread(target=_expect_loss, args=(place, channel, listing))
        thread.start()
        until(lambda: len(_workers(place.box)) > 1)
        channel.process.send_signal(signal.SIGKILL)
        thread.join()

        until(lambda: not _workers(place.box))


def _expect_loss(place: Place, channel: AgentChannel, listing: DataListing) -> None:
    with pytest.raises((ConnectionLost, OneboxError)):
        data_download.download(
            channel,
            listing,
            place.stores,
            lambda *numbers: None,
        )


def _finished(parts: Path) -> int:
    """Return how many parts of a partial file are complete."""
    return len(json.loads(parts.read_text())[4])


def _workers(box: AgentBox) -> list[int]:
    """Return the processes of the box's agent and of its downloads."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(box.pyz) in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


class TestHostileBox:
    @pytest.mark.parametrize(
        "frames",
        [
            [("S", {"links": [0]})] * 30,
            [("S", {"links": [1]})],
            [("S", {"links": [0] * 300})],
            [("S", {"links": ["0"]})],
            [("S", {"files": 2, "of_files": 1, "bytes": 1, "of_bytes": 1})],
            [("S", {"files": 1, "of_files": 1, "bytes": -1, "of_bytes": 1})],
            [("S", {"files": 1})],
            [("D", {})],
            [("A", {})],
            [("A", {"missing": 1, "problem": {"kind": "\x1b[2J"}})],
        ],
    )
    def test_an_answer_that_no_agent_gives_is_refused(
        self, place: Place, frames: list[tuple[str, object]]
    ) -> None:
        """The error is one line, and a box gets links to the listed objects only."""
        place.s3.put("bucket", "x/a", b"1")
        listing = place.listing()
        code = (
            "import json, struct, sys\n"
            f"for kind, value in {frames!r}:\n"
            "    data = json.dumps(value).encode()\n"
            "    head = struct.pack('>cI', kind.encode(), len(data))\n"
            "    sys.stdout.buffer.write(head + data)\n"
            "    sys.stdout.flush()\n"
            "sys.stdin.read()\n"
        )
        with AgentChannel([sys.executable, "-c", code]) as channel:
            with pytest.raises(ProtocolError):
                data_download.download(
                    channel, listing, place.stores, lambda *numbers: None
                )


class TestListing:
    @pytest.mark.parametrize("key", ["x//a", "x/../a", "x/./a", "x/" + "n" * 256])
    def test_a_key_that_is_no_path_is_refused(self, place: Place, key: str) -> None:
        """No file is written outside of its folder."""
        place.s3.put("bucket", key, b"1")
        with pytest.raises(InputError, match=r"no file can|too long"):
            place.listing()

    def test_a_file_that_would_be_a_folder_is_refused(self, place: Place) -> None:
        """A bucket may have both."""
        place.s3.put("bucket", "x/a", b"1")
        place.s3.put("bucket", "x/a/b", b"2")
        with pytest.raises(InputError, match="a file and a folder"):
            place.listing()

    @pytest.mark.parametrize(
        ("address", "words"),
        [
            ("s3://missing/", "there is no bucket missing"),
            ("s3://missing/a", "there is no bucket missing"),
            ("s3://bucket/none/", "there is no object below s3://bucket/none/"),
            ("s3://bucket/none", "s3://bucket/none does not exist"),
        ],
    )
    def test_an_address_that_leads_nowhere_is_an_error(
        self, place: Place, address: str, words: str
    ) -> None:
        """It is found when the objects are listed, before there is a box."""
        with pytest.raises(InputError, match=words):
            place.listing(address)

    def test_a_prefix_without_its_slash_is_named(self, place: Place) -> None:
        """Other tools take it as the folder."""
        place.s3.put("bucket", "x/a", b"1")
        with pytest.raises(InputError, match="there are objects below it") as error:
            place.listing("s3://bucket/x")
        assert "write s3://bucket/x/" == error.value.next

    @pytest.mark.parametrize("address", ["s3://bucket/x/", "s3://bucket/x/cold"])
    def test_an_archived_object_is_named(self, place: Place, address: str) -> None:
        """It is found before a box is created."""
        place.s3.put("bucket", "x/a", random(10))
        place.s3.put("bucket", "x/cold", b"1", storage_class="GLACIER")
        with pytest.raises(InputError, match="s3://bucket/x/cold is archived"):
            place.listing(address)

    @pytest.mark.parametrize("address", ["s3://bucket/x/", "s3://bucket/x/a"])
    def test_objects_that_may_be_listed_only_are_named(
        self, place: Place, address: str
    ) -> None:
        """Reading one byte shows it before a box is created."""
        place.s3.put("bucket", "x/a", b"1")
        place.s3.deny("s3:GetObject", "bucket/x")
        with pytest.raises(NotAllowed) as error:
            place.listing(address)
        assert "s3:GetObject" in error.value.next

    @pytest.mark.parametrize("address", ["s3://bucket/x/", "s3://bucket/x/a"])
    def test_a_wrong_key_is_no_missing_permission(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, address: str
    ) -> None:
        """The answers to HEAD do not tell the two apart."""
        place.s3.put("bucket", "x/a", b"1")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(NotAllowed, match="does not accept these credentials"):
            place.listing(address)

    def test_a_public_bucket_needs_no_credentials(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its objects are listed and read without a signature."""
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        place.s3.create_bucket("open", public=True)
        place.s3.put("open", "a", b"1" * 10)
        place.s3.put("bucket", "x/a", b"1")
        place.download(place.listing("s3://open/ -> data/"))

        assert {"a": b"1" * 10} == place.files()
        with pytest.raises(NotAllowed, match="is not public"):
            place.listing()

    def test_credentials_that_may_not_list_are_named(self, place: Place) -> None:
        """The message says which permission is missing."""
        place.s3.put("bucket", "x/a", b"1")
        place.s3.deny("s3:ListBucket", "bucket")
        with pytest.raises(NotAllowed) as error:
            place.listing()
        assert "s3:ListBucket" in error.value.next

    def test_the_digest_changes_with_a_version(self, place: Place) -> None:
        """`[run] when = "changed"` compares it."""
        place.s3.put("bucket", "x/a", b"1")
        first = place.listing().digest
        assert first == place.listing().digest
        place.s3.put("bucket", "x/a", b"2")
        assert first != place.listing().digest
