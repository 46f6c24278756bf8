"""Downloads from Cloud Storage and from web servers."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from onebox.errors import InputError, NotAllowed, OneboxError
from onebox.providers.gcp.settings import GCPSettings
from onebox.providers.object_stores import ObjectStores, StoredObject
from onebox.settings.data_sources import DataSource
from onebox.transfer import data_download, data_listing
from onebox.transfer.data_download import Downloaded
from tests.fakes.agent_box import AgentBox
from tests.fakes.object_stores.gcs import GCS
from tests.fakes.object_stores.web import File, Web

MB = 1 << 20


ACCOUNT = "reader@test-project.iam.gserviceaccount.com"


def unseen(*numbers: int) -> None:
    """Show no progress."""


def listed(gcs: GCS, key: str) -> StoredObject:
    """Return an object of the bucket as a listing has it."""
    version = gcs.buckets["bucket"].live(key)
    assert version is not None
    return StoredObject(key, version.size, str(version.generation), 0.0)


@contextlib.contextmanager
def metadata(token: str) -> Iterator[str]:
    """Serve the metadata of a machine whose service account has this token."""

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = "/computeMetadata/v1/instance/service-accounts/default/token"
            asked = self.headers.get("Metadata-Flavor") == "Google"
            ok = bool(token) and asked and self.path == path
            body = json.dumps({"access_token": token, "expires_in": 3599}).encode()
            self.send_response(200 if ok else 404)
            self.end_headers()
            self.wfile.write(body if ok else b"")

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def login(gcs: GCS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own login, which has no key."""
    file = tmp_path / "login.json"
    file.write_text(
        '{"type": "authorized_user", "client_id": "1", "client_secret": "2", '
        '"refresh_token": "3"}'
    )
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))


def download(box: AgentBox, stores: ObjectStores, address: str) -> Downloaded:
    """Have a box download what an address names."""
    listing = data_listing.find([DataSource.parse(address)], stores)
    with box.connect() as channel:
        return data_download.download(channel, listing, stores, lambda *numbers: None)


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GCS]:
    """A Cloud Storage, for which this process has the key of a service account."""
    found = GCS()
    with found.running():
        key = found.key_file(tmp_path / "key.json")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        yield found


def google(gcs: GCS) -> ObjectStores:
    """Return the stores of a user whose Cloud Storage is the fake one."""
    return ObjectStores({"gcp": GCPSettings(storage_endpoint=gcs.address)})


class TestCloudStorage:
    def test_objects_become_files(self, gcs: GCS, agent_box: AgentBox) -> None:
        """A compressed object is stored as it is; large ones are read in parts."""
        packed = gzip.compress(b"x" * 1000)
        objects = {
            "a": b"1",
            "ü n%2F+&<>/b~c": b"2",
            "packed.gz": packed,
            "big": os.urandom(40 * MB),
            "empty": b"",
        }
        for name, data in objects.items():
            how = {"Content-Encoding": "gzip"} if name == "packed.gz" else {}
            gcs.put("bucket", f"x/{name}", data, headers=how)
        gcs.put("bucket", "x/composed", b"3", composite=True)
        done = download(agent_box, google(gcs), "gs://bucket/x/ -> data/")

        for name, data in {**objects, "composed": b"3"}.items():
            assert data == (agent_box.work / "data" / name).read_bytes(), name
        assert (6, 5) == (done.files, done.checked)

    def test_the_listed_generation_is_read(self, gcs: GCS, agent_box: AgentBox) -> None:
        """Another one is reported as a change."""
        gcs.put("bucket", "a", b"1")
        gcs.before(lambda: gcs.put("bucket", "a", b"2"), key="bucket/a")
        done = download(agent_box, google(gcs), "gs://bucket/a")

        assert [b"a"] == [file.path for file in done.changed]
        assert not (agent_box.work / "a").exists()

    def test_many_pages_are_listed(self, gcs: GCS) -> None:
        """A page has 1,000 objects."""
        gcs.put_many("bucket", (f"x/{n:05}" for n in range(2500)), b"1")
        source = DataSource.parse("gs://bucket/x/")

        assert 2500 == len(data_listing.find([source], google(gcs)).files)

    @pytest.mark.parametrize(
        ("address", "words"),
        [
            ("gs://missing/", "gs://missing/ does not exist"),
            ("gs://bucket/none", "gs://bucket/none does not exist"),
            ("gs://bucket/none/", "there is no object below"),
        ],
    )
    def test_an_address_that_leads_nowhere_is_an_error(
        self, gcs: GCS, address: str, words: str
    ) -> None:
        """It is found when the objects are listed."""
        gcs.create_bucket("bucket")
        with pytest.raises(InputError, match=words):
            data_listing.find([DataSource.parse(address)], google(gcs))

    def test_an_account_that_may_not_list_is_named(self, gcs: GCS) -> None:
        """The message says which permissions are missing."""
        gcs.put("bucket", "a", b"1")
        gcs.deny("storage.objects.list", "bucket")
        with pytest.raises(NotAllowed) as error:
            data_listing.find([DataSource.parse("gs://bucket/")], google(gcs))
        assert "storage.objects.list" in error.value.next

    def test_a_login_that_cannot_sign_is_told_what_to_do(
        self, gcs: GCS, login: None
    ) -> None:
        """A user's own login has no key."""
        source = DataSource.parse("gs://bucket/a")
        found = StoredObject("a", 1, "1", 0.0)
        # The box of another cloud has no identity that Google knows.
        table = GCPSettings(storage_endpoint=gcs.address, service_account=ACCOUNT)
        for stores in (google(gcs), ObjectStores({"gcp": table}, "aws")):
            with pytest.raises(NotAllowed, match="cannot sign") as error:
                stores.of(source).link(source, found)
            assert "[gcp] service_account" in error.value.next

    @pytest.mark.parametrize("has_identity", [True, False])
    def test_a_box_with_a_service_account_reads_as_that(
        self,
        gcs: GCS,
        login: None,
        agent_box: AgentBox,
        monkeypatch: pytest.MonkeyPatch,
        has_identity: bool,
    ) -> None:
        """The token comes from the box's metadata service, and stays on the box."""
        gcs.put("bucket", "a", b"1" * 5)
        table = GCPSettings(storage_endpoint=gcs.address, service_account=ACCOUNT)
        source = DataSource.parse("gs://bucket/a")
        listing = data_listing.DataListing(
            [data_listing.DataFile(b"a", source, listed(gcs, "a"))]
        )
        token = gcs.token(ACCOUNT)
        with metadata(token if has_identity else "") as host:
            monkeypatch.setenv("GCE_METADATA_HOST", host)
            with agent_box.connect() as channel:
                stores = ObjectStores({"gcp": table}, "gcp")
                if not has_identity:
                    with pytest.raises(NotAllowed, match="the box has no identity"):
                        data_download.download(channel, listing, stores, unseen)
                    return
                data_download.download(channel, listing, stores, unseen)

        assert b"11111" == (agent_box.work / "a").read_bytes()
        for path in [*agent_box.root.rglob("*"), *agent_box.home.rglob("*")]:
            assert not path.is_file() or token.encode() not in path.read_bytes()


@pytest.fixture
def web() -> Iterator[Web]:
    """A web server without files."""
    found = Web()
    with found.running():
        yield found


class TestWeb:
    @pytest.mark.parametrize(
        "file",
        [
            File(b"1"),
            File(b""),
            File(os.urandom(40 * MB)),
            File(os.urandom(20 * MB), ranges=False, etag=""),
            File(os.urandom(20 * MB), etag="weak", modified=1.7e9),
            File(b"2" * 5, head=False, modified=1.7e9),
        ],
    )
    def test_a_file_is_downloaded_from_any_server(
        self, web: Web, agent_box: AgentBox, file: File
    ) -> None:
        """Ranges, entity tags and times are used where the server has them."""
        web.put("/d/a b.bin", file)
        done = download(
            agent_box, ObjectStores({}), f"{web.address}/d/a%20b.bin -> raw/"
        )

        assert file.read() == (agent_box.work / "raw" / "a b.bin").read_bytes()
        assert ((), 1) == (tuple(done.changed), done.files)

    def test_a_redirect_is_followed_here(self, web: Web, agent_box: AgentBox) -> None:
        """The box connects to the place where the file is."""
        web.put("/real", File(b"1"))
        web.redirect("/a", f"{web.address}/real")
        download(agent_box, ObjectStores({}), f"{web.address}/a")

        assert b"1" == (agent_box.work / "a").read_bytes()

    @pytest.mark.parametrize(
        ("location", "words"),
        [
            ("/a", "again and again"),
            ("http://169.254.169.254/latest/meta-data/", "is not https"),
            ("http://10.0.0.1/x", "is not https"),
            ("ftp://127.0.0.1/x", "is not https"),
            ("file:///etc/passwd", "is not https"),
        ],
    )
    def test_a_redirect_that_leads_elsewhere_is_refused(
        self, web: Web, location: str, words: str
    ) -> None:
        """A server cannot send the box to its metadata service, nor to a file."""
        web.redirect("/a", location)
        with pytest.raises(OneboxError, match=words):
            data_listing.find([DataSource.parse(f"{web.address}/a")], ObjectStores({}))

    @pytest.mark.parametrize(
        ("file", "words"),
        [
            (None, "does not exist"),
            (File(b"1", chunked=True, ranges=False), "how big"),
        ],
    )
    def test_a_file_that_cannot_be_downloaded_is_refused(
        self, web: Web, file: File | None, words: str
    ) -> None:
        """It is found when the objects are listed."""
        if file is not None:
            web.put("/a", file)
        with pytest.raises(InputError, match=words):
            data_listing.find([DataSource.parse(f"{web.address}/a")], ObjectStores({}))

    def test_a_file_that_changes_is_reported(
        self, web: Web, agent_box: AgentBox
    ) -> None:
        """The entity tag is another one."""
        web.put("/a", File(b"1"))
        web.before(lambda: web.put("/a", File(b"2")), skip=1, key="a")
        done = download(agent_box, ObjectStores({}), f"{web.address}/a")

        assert [b"a"] == [file.path for file in done.changed]
        assert not (agent_box.work / "a").exists()

    @pytest.mark.parametrize("etag", ["weak", "strong", ""])
    def test_no_file_mixes_two_versions(
        self, web: Web, agent_box: AgentBox, etag: Literal["weak", "strong", ""]
    ) -> None:
        """Also if the server does not look at the condition of a request."""
        modified = None if etag else 1.6e9
        web.put("/a", File(os.urandom(40 * MB), etag=etag, modified=modified))
        listing = data_listing.find(
            [DataSource.parse(f"{web.address}/a")], ObjectStores({})
        )
        fresh = File(os.urandom(40 * MB), etag="weak" if etag else "", modified=1.7e9)
        web.before(lambda: web.put("/a", fresh), skip=2, key="a")
        with agent_box.connect() as channel:
            done = data_download.download(channel, listing, ObjectStores({}), unseen)

        assert [b"a"] == [file.path for file in done.changed]
        assert not (agent_box.work / "a").exists()

    def test_a_file_without_a_version_is_read_each_time(
        self, web: Web, agent_box: AgentBox
    ) -> None:
        """It may have changed, and it is read in one piece."""
        address = f"{web.address}/a"
        for _ in range(2):
            data = os.urandom(40 * MB)
            web.put("/a", File(data, etag=""))
            assert 1 == download(agent_box, ObjectStores({}), address).files
            assert data == (agent_box.work / "a").read_bytes()
        assert 2 == sum(not one.range for one in web.requests)

    def test_a_link_that_is_too_old_is_made_again(
        self, web: Web, agent_box: AgentBox
    ) -> None:
        """A server need not say why it refuses."""
        data = os.urandom(40 * MB)
        web.put("/real", File(data))
        web.redirect("/a", f"{web.address}/real?sig=1")
        listing = data_listing.find(
            [DataSource.parse(f"{web.address}/a")], ObjectStores({})
        )
        web.fail(403, key="real", skip=2)
        with agent_box.connect() as channel:
            data_download.download(channel, listing, ObjectStores({}), unseen)

        assert data == (agent_box.work / "a").read_bytes()

    @pytest.mark.parametrize(
        "location", ["/x y?sig=SECRET", "http://\x1b]0;owned\x07/", "https://a b/c"]
    )
    def test_what_a_server_sends_is_not_printed_as_it_is(
        self, web: Web, location: str
    ) -> None:
        """Neither control characters nor the query of a redirect."""
        web.redirect("/a", location)
        with pytest.raises(OneboxError) as error:
            data_listing.find([DataSource.parse(f"{web.address}/a")], ObjectStores({}))
        assert "SECRET" not in error.value.message
        assert error.value.message.isprintable()

    def test_a_server_that_lies_about_the_length_is_an_error(
        self, web: Web, agent_box: AgentBox
    ) -> None:
        """No file is left that is too short."""
        web.put("/a", File(b"1" * 100, ranges=False, declared=200))
        with pytest.raises(OneboxError, match="breaks off"):
            download(agent_box, ObjectStores({}), f"{web.address}/a")
        assert not (agent_box.work / "a").exists()
