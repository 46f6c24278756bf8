"""The user's own Packer builds images, and is interrupted when onebox is."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shutil
import signal
import subprocess
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from onebox.images import build_log, packer_program
from onebox.images.packer_template import SSH_VARIABLES
from onebox.signals import Interrupted, signals_as_exceptions
from tests.conftest import Project
from tests.images.test_image_stage import open_context

RUN = '[run]\ncommand = "cat ~/made"\n'
TOML = f"""\
[image]
packer = "image.pkr.hcl"
include = ["data.txt"]
vars = {{ release = "2026.1" }}
{RUN}"""
HCL = (
    "".join(f'variable "{name}" {{ type = string }}\n' for name in SSH_VARIABLES)
    + """
variable "release" { type = string }
variable "tags" { type = map(string) }
source "null" "box" {
  communicator         = "ssh"
  ssh_host             = var.ssh_host
  ssh_port             = var.ssh_port
  ssh_username         = var.ssh_username
  ssh_private_key_file = var.ssh_private_key_file
}
build {
  sources = ["source.null.box"]
  provisioner "file" {
    source      = "data.txt"
    destination = "made"
  }
  provisioner "shell" {
    inline = ["echo ${var.release} ${var.tags["onebox:managed"]} >>~/made", "COMMAND"]
  }
}
"""
)
OLD = {
    "variables": dict.fromkeys(SSH_VARIABLES),
    "builders": [
        {
            "type": "null",
            "communicator": "ssh",
            **{name: f"{{{{user `{name}`}}}}" for name in SSH_VARIABLES},
        }
    ],
    "provisioners": [{"type": "shell", "inline": ["echo by json >~/made"]}],
}


@pytest.fixture
def packer_project(project: Project) -> Project:
    """A project with a template, if Packer is installed."""
    if shutil.which("packer") is None:
        pytest.skip("Packer is not installed (apt install packer)")
    project.write("onebox.toml", TOML)
    project.write("data.txt", "some data\n")
    project.write("image.pkr.hcl", HCL.replace("COMMAND", "echo done"))
    return project


def test_null_source_runs_on_a_builder_box_that_is_saved_once(
    packer_project: Project,
) -> None:
    """
    The image is found by the hash of template, files, variables and base, and is
    built once.
    """
    done = packer_project.inv("run")
    assert (0, "some data\n2026.1 1\n") == (done.code, done.out), done.err
    assert "    null.box: done\n" in done.err
    assert re.search(r"  packer +✓ .* image.pkr.hcl\n", done.err)
    (log,) = packer_project.root.glob(".onebox/images/*.log")
    assert "null.box: done" in log.read_text()
    assert [] == packer_project.boxes()

    assert "image.pkr.hcl unchanged" in packer_project.inv("image").err
    packer_project.write("data.txt", "other data\n")
    assert "data.txt changed" in packer_project.inv("plan").out
    packer_project.write("data.txt", "some data\n")
    packer_project.write("onebox.toml", TOML.replace("2026.1", "2026.2"))
    assert "[image] vars changed" in packer_project.inv("plan").out


def test_packer_gets_the_whole_environment_of_its_user(packer_project: Project) -> None:
    """
    [run] secrets hides cloud credentials from jobs, but not from the user's
    programs.
    """
    packer_project.write("onebox.toml", TOML + 'secrets = ["CLOUD_KEY"]\n')
    variable = 'variable "cloud" { default = env("CLOUD_KEY") }\n'
    text = variable + HCL.replace("COMMAND", "echo of ${length(var.cloud)} characters")
    packer_project.write("image.pkr.hcl", text)
    done = packer_project.inv("image", env={"CLOUD_KEY": "0123456"})

    assert 0 == done.code, done.err
    assert "null.box: of 7 characters\n" in done.err


def test_json_template_is_built(packer_project: Project) -> None:
    """The older language, in JSON, works too."""
    packer_project.write("image.json", json.dumps(OLD))
    packer_project.write("onebox.toml", f'[image]\npacker = "image.json"\n{RUN}')
    done = packer_project.inv("run")

    assert (0, "by json\n") == (done.code, done.out), done.err


def test_base_image_is_named_as_the_cloud_of_the_template_names_it() -> None:
    """A template gets the base image by its name at its own cloud."""
    for name, function in (
        ("aws.base_images", "packer_source"),
        ("gcp.base_images", "packer_source"),
        ("kernel.servers.provider", "ServerProvider.packer_source"),
    ):
        module = importlib.import_module(f"onebox.providers.{name}")
        (example,) = doctest.DocTestFinder().find(
            attrgetter(function)(module), "packer_source", globs=vars(module)
        )
        assert doctest.DocTestRunner().run(example) == (0, 1)


def test_failed_build_shows_packers_error_and_leaves_no_box(
    packer_project: Project,
) -> None:
    """The error is in Packer's own words."""
    packer_project.write("image.pkr.hcl", HCL.replace("COMMAND", "echo oh no; exit 3"))
    done = packer_project.inv("image")

    assert 70 == done.code
    assert "null.box: oh no" in done.err
    assert (
        "image.pkr.hcl failed: Script exited with non-zero exit status: 3" in done.err
    )
    assert [] == packer_project.boxes()
    assert not (packer_project.home / "local" / "images").exists()


def test_invalid_template_is_refused_before_a_box_is_created(
    packer_project: Project,
) -> None:
    """Mistakes that Packer or onebox can detect cost nothing."""
    packer_project.write("image.pkr.hcl", HCL.replace("var.ssh_host", "var.nothing"))
    done = packer_project.inv("image")
    assert (78, True) == (done.code, "packer validate refuses" in done.err)

    packer_project.write("image.pkr.hcl", 'source "amazon-ebs" "it" {}\n')
    packer_project.write("onebox.toml", f'[image]\npacker = "image.pkr.hcl"\n{RUN}')
    done = packer_project.inv("plan")
    assert (78, True) == (done.code, "builds amazon-ebs, which provider" in done.err)

    packer_project.write("onebox.toml", TOML.replace("release", "relaese"))
    packer_project.write("image.pkr.hcl", HCL)
    done = packer_project.inv("plan")
    assert (78, True) == (done.code, "declares no variable relaese, did" in done.err)
    assert not (packer_project.home / "local" / "boxes").exists()


def test_ctrl_c_is_passed_to_packer_before_the_builder_is_deleted(
    packer_project: Project,
) -> None:
    """Packer cleans up first; then the builder is deleted."""
    packer_project.write("image.pkr.hcl", HCL.replace("COMMAND", "echo here; sleep 60"))
    process = packer_project.start("image")
    packer_project.until("null.box: here")
    process.send_signal(signal.SIGINT)

    assert 130 == process.wait(60)
    assert "stopping Packer" in packer_project.err
    assert "Cleanly cancelled builds after being interrupted" in packer_project.err
    assert [] == packer_project.boxes()


def test_ctrl_c_at_the_start_of_packer_is_passed_to_packer(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal right at the start of Packer is not lost."""
    session = open_context(project, monkeypatch)
    log = build_log.BuildLog(session, tmp_path / "log")
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen.__init__

    def interrupted(self: subprocess.Popen[bytes], *args: Any, **options: Any) -> None:
        start(self, *args, **options)
        started.append(self)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("subprocess.Popen.__init__", interrupted)
    argv = ["sh", "-c", "while :; do sleep 0.1; done"]
    try:
        with pytest.raises(Interrupted), signals_as_exceptions(str):
            packer_program.follow(session, log, argv, tmp_path / "out")
        (process,) = started
        assert -signal.SIGINT == process.poll()
    finally:
        log.close()
        for process in started:
            process.kill()
            process.wait()


def test_killed_build_is_cleaned_up_by_the_next_command(
    packer_project: Project,
) -> None:
    """The next command deletes the builder, and builds again."""
    packer_project.write("image.pkr.hcl", HCL.replace("COMMAND", "echo here; sleep 5"))
    process = packer_project.start("image")
    packer_project.until("null.box: here")
    process.kill()
    process.wait()
    packer_project.write("image.pkr.hcl", HCL.replace("COMMAND", "true"))

    assert 0 == packer_project.inv("image").code
    assert [] == packer_project.boxes()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "Packer is not installed here"),
        ("#!/bin/sh\necho 1,,version,1.5.6\n", "Packer 1.5.6 is too old"),
        ("#!/bin/sh\necho skipping line: 1\n", "is not HashiCorp's Packer"),
    ],
)
def test_missing_or_old_packer_is_reported_with_its_source(
    project: Project, tmp_path: Path, program: str | None, message: str
) -> None:
    """One line says where a usable Packer is available."""
    project.write("onebox.toml", f'[image]\npacker = "image.pkr.hcl"\n{RUN}')
    project.write("image.pkr.hcl", HCL)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("ssh", "ssh-keygen", "git"):
        (folder / name).symlink_to(shutil.which(name) or "/nonexistent")
    if program is not None:
        (folder / "packer").write_text(program)
        (folder / "packer").chmod(0o755)
    done = project.inv("plan", env={"PATH": str(folder)})

    assert 78 == done.code
    assert message in done.err
    assert "next: https://developer.hashicorp.com/packer/install" in done.err
