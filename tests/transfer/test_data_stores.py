"""Downloads from Cloud Storage and from web servers."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from pathlib import Path

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
        self,
        gcs: GCS,
        agent_box: AgentBox,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A user's own login has no key."""
        login = tmp_path / "login.json"
        login.write_text(
            '{"type": "authorized_user", "client_id": "1", "client_secret": "2", '
            '"refresh_token": "3"}'
        )
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(login))
        stores = google(gcs)
        source = DataSource.parse("gs://bucket/a")
        found = StoredObject("a", 1, "1", 0.0)
        with pytest.raises(NotAllowed, match="cannot sign") as error:
            stores.of(source).link(source, found)
        assert "--impersonate-service-account" in error.value.next


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

    def test_a_server_that_lies_about_the_length_is_an_error(
        self, web: Web, agent_box: AgentBox
    ) -> None:
        """No file is left that is too short."""
        web.put("/a", File(b"1" * 100, ranges=False, declared=200))
        with pytest.raises(OneboxError, match="breaks off"):
            download(agent_box, ObjectStores({}), f"{web.address}/a")
        assert not (agent_box.work / "a").exists()
