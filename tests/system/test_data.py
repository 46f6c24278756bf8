"""`[push] data` with addresses: what the box downloads, in whole `inv` lines."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import Project
from tests.fakes.agent_box import until
from tests.fakes.object_stores.s3 import S3
from tests.system.lines import finished_stages

MB = 1 << 20
TOML = """\
[push]
data = ["s3://bucket/census/ -> data/"]
[run]
command = "mkdir -p results; cat data/a data/b/c > results/all"
"""


@pytest.fixture
def s3(project: Project) -> Iterator[S3]:
    """A bucket with two objects, and a project whose data they are."""
    found = S3()
    found.put("bucket", "census/a", b"one\n")
    found.put("bucket", "census/b/c", b"two\n")
    project.write("onebox.toml", TOML)
    with found.running() as address:
        project.environ.update(
            {
                "AWS_ENDPOINT_URL_S3": address,
                "AWS_ACCESS_KEY_ID": found.user.key,
                "AWS_SECRET_ACCESS_KEY": found.user.secret,
                "AWS_REGION": "us-east-1",
            }
        )
        yield found


def reads(s3: S3) -> list[str]:
    """Return the objects that were read since the last call."""
    paths = [
        one.path.removeprefix("/bucket/census/")
        for one in s3.requests
        if one.method == "GET" and "list-type" not in one.query
        # A listing reads the first byte of one object.
        if one.range != "bytes=0-0"
    ]
    s3.requests.clear()
    return sorted(paths)


def test_a_job_has_what_the_box_downloads(project: Project, s3: S3) -> None:
    """The line `data` says what; the files are no results, and stay on the box."""
    done = project.inv("run")

    assert 0 == done.code, done.err
    assert "one\ntwo\n" == project.read("results/all")
    assert "s3://bucket/census/ → data/ (2 objects, 8 B), checksums equal" in done.err
    assert not (project.root / "data").exists()
    assert [] == project.boxes()


def test_a_kept_box_downloads_what_has_changed(project: Project, s3: S3) -> None:
    """`plan` knows it beforehand; only what differs is read."""
    assert 0 == project.inv("run", "--keep").code
    assert ["a", "b/c"] == reads(s3)
    assert "data       ✓ up to date" in project.inv("push").err
    assert [] == reads(s3)
    s3.put("bucket", "census/a", b"new\n")
    plan = project.inv("plan")
    assert (
        "would run  s3://bucket/census/ → data/ (2 objects, 8 B); 1 differs" in plan.out
    )
    assert [] == reads(s3)
    assert 0 == project.inv("run", "--keep").code
    assert ["a"] == reads(s3)
    assert "new\ntwo\n" == project.read("results/all")
    # Without the address, its files are removed.
    project.write(
        "onebox.toml", '[run]\ncommand = "mkdir -p results; ls > results/ls"\n'
    )
    assert 0 == project.inv("run").code
    assert "data" not in project.read("results/ls").split()


def test_a_job_is_up_to_date_until_an_object_changes(project: Project, s3: S3) -> None:
    """`when = "changed"` compares the versions of all objects."""
    project.write("onebox.toml", TOML + 'when = "changed"\n')
    assert 0 == project.inv("run").code
    assert "up to date" in project.inv("run").err
    s3.put("bucket", "census/b/c", b"2\n")
    done = project.inv("run")

    assert (0, "one\n2\n") == (done.code, project.read("results/all"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("s3://missing/", "there is no bucket missing"),
        ("s3://bucket/none/", "there is no object below s3://bucket/none/"),
        ("s3://bucket/census/ -> results/x", "among the outputs"),
        ("s3://bucket/census/a -> job.sh", "job.sh is pushed"),
        ("s3://bucket/census/a -> job.sh/x", "job.sh is pushed"),
    ],
)
def test_data_that_cannot_be_there_is_refused_before_a_box(
    project: Project, s3: S3, data: str, words: str
) -> None:
    """`plan` and `run` say the same, with the same exit code."""
    project.write("onebox.toml", TOML.replace("s3://bucket/census/ -> data/", data))
    planned, done = project.inv("plan"), project.inv("run")

    assert planned.code == done.code == 66
    assert words in planned.out
    assert words in done.err
    assert "provision" not in finished_stages(done.err)
    assert [] == project.boxes()


def test_the_plan_as_a_document_has_the_download(project: Project, s3: S3) -> None:
    """Its fields are in docs/json.md."""
    document = json.loads(project.inv("plan", "--json").out)

    assert {
        "sources": ["s3://bucket/census/"],
        "files": 2,
        "bytes": 8,
        "missing": 2,
        "missing_bytes": 8,
        "deleted": 0,
        "bytes_per_second": None,
    } == document["push"]["downloads"]


def test_doctor_has_a_line_for_each_address(project: Project, s3: S3) -> None:
    """An address that cannot be read fails the check."""
    text = TOML.replace('"]', '", "s3://missing/"]', 1)
    project.write("onebox.toml", text)
    done = project.inv("doctor")

    assert 78 == done.code
    assert "s3://bucket/census/ can be read" in done.out
    assert "there is no bucket missing" in done.out


def test_objects_that_keep_changing_are_refused(project: Project, s3: S3) -> None:
    """Three times they are listed anew."""

    def write() -> None:
        s3.put("bucket", "census/a", os.urandom(8))

    s3.before(write, key="bucket/census/a", times=99)
    done = project.inv("run")

    assert 66 == done.code
    assert "objects change while the box downloads them: data/a" in done.err
    assert [] == project.boxes()


def test_a_download_goes_on_after_ctrl_c(project: Project, s3: S3) -> None:
    """What has arrived is not read again."""
    s3.put("bucket", "census/big", os.urandom(192 * MB))
    s3.bytes_per_second = 10 * MB
    assert 0 == project.inv("provision").code
    line = project.start("push")
    until(lambda: [*project.home.rglob("*.parts")])
    line.send_signal(signal.SIGINT)
    assert 130 == line.wait(60)
    reads(s3)
    s3.bytes_per_second = 0
    done = project.inv("push")

    assert 0 == done.code, done.err
    # The big object has twelve parts.
    assert 0 < len(reads(s3)) < 12
    assert 0 == project.inv("teardown").code


def test_ray_jobs_read_their_data_themselves(project: Project, s3: S3) -> None:
    """A box of a Ray cluster is a folder of this machine."""
    done = project.inv("plan", "--provider=ray", env={"ONEBOX_RAY_HOST": "nowhere"})

    assert 64 == done.code
    assert "let the job read it from there" in done.out


def test_an_export_names_what_it_leaves_out(project: Project, s3: S3) -> None:
    """Slurm and SkyPilot download nothing for the job."""
    assert 0 == project.inv("export", "--to=slurm").code
    text = (project.root / "job.sbatch").read_text()

    assert "s3://bucket/census/ belongs in data" in text


def test_an_image_brings_the_data(project: Project, s3: S3) -> None:
    """Its boxes download only what has changed since it was built."""
    text = TOML.replace("[run]", "into_image = true\n[run]", 1)
    project.write("onebox.toml", text)
    first = project.inv("run")
    assert 0 == first.code, first.err
    assert "  data     ✓" in first.err
    assert "2 from the image" in first.err
    assert ["a", "b/c"] == reads(s3)
    assert "one\ntwo\n" == project.read("results/all")
    s3.put("bucket", "census/a", b"new\n")
    assert "from the image what has not changed" in project.inv("plan").out
    again = project.inv("run")

    assert 0 == again.code, again.err
    assert "1 from the image, 1 downloaded" in again.err
    assert ["a"] == reads(s3)
    assert "new\ntwo\n" == project.read("results/all")
    assert "unchanged, built" in again.err


def test_data_in_an_image_that_onebox_does_not_build_is_refused(
    project: Project, s3: S3
) -> None:
    """Packer's template downloads what it needs itself."""
    text = TOML.replace("[run]", "into_image = true\n[run]", 1)
    project.write("image.pkr.hcl", "")
    project.write("onebox.toml", text + '[image]\npacker = "image.pkr.hcl"\n')
    done = project.inv("plan")

    assert 66 == done.code
    assert "into_image excludes [image] packer" in done.out
