"""The user's own Packer builds images, and is told when to stop."""

from __future__ import annotations

import doctest
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from onebox.images import builder, packer, packer_program
from onebox.images.packer_template import SSH_VARIABLES
from onebox.signals import Interrupted, signals_as_exceptions
from tests.conftest import Project
from tests.images.test_image_stage import opened

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
def packed(project: Project) -> Project:
    """A project with a template, where Packer is installed."""
    if shutil.which("packer") is None:
        pytest.skip("Packer is not installed (apt install packer)")
    project.write("onebox.toml", TOML)
    project.write("data.txt", "some data\n")
    project.write("image.pkr.hcl", HCL.replace("COMMAND", "echo done"))
    return project


def test_on_a_builder_box(packed: Project) -> None:
    """
    A null source is run against a builder box, which is saved; it is found by the
    hash of template, files, variables and base, and built once.
    """
    done = packed.inv("run")
    assert (0, "some data\n2026.1 1\n") == (done.code, done.out), done.err
    assert "    null.box: done\n" in done.err
    assert re.search(r"  packer +✓ .* image.pkr.hcl\n", done.err)
    (log,) = packed.root.glob(".onebox/images/*.log")
    assert "null.box: done" in log.read_text()
    assert [] == packed.boxes()

    assert "image.pkr.hcl unchanged" in packed.inv("image").err
    packed.write("data.txt", "other data\n")
    assert "data.txt changed" in packed.inv("plan").out
    packed.write("data.txt", "some data\n")
    packed.write("onebox.toml", TOML.replace("2026.1", "2026.2"))
    assert "[image] vars changed" in packed.inv("plan").out


def test_packer_sees_the_whole_environment_of_its_user(packed: Project) -> None:
    """
    Cloud credentials are kept from no program of the user's own by [run] secrets.
    """
    packed.write("onebox.toml", TOML + 'secrets = ["CLOUD_KEY"]\n')
    variable = 'variable "cloud" { default = env("CLOUD_KEY") }\n'
    text = variable + HCL.replace("COMMAND", "echo of ${length(var.cloud)} characters")
    packed.write("image.pkr.hcl", text)
    done = packed.inv("image", env={"CLOUD_KEY": "0123456"})

    assert 0 == done.code, done.err
    assert "null.box: of 7 characters\n" in done.err


def test_json(packed: Project) -> None:
    """
    The older language, in JSON, is as good.
    """
    packed.write("image.json", json.dumps(OLD))
    packed.write("onebox.toml", f'[image]\npacker = "image.json"\n{RUN}')
    done = packed.inv("run")

    assert (0, "by json\n") == (done.code, done.out), done.err


def test_a_base_as_its_cloud_names_it() -> None:
    """
    A template gets the base by the name that its own cloud's builder takes.
    """
    assert (0, 3) == tuple(doctest.testmod(packer))


def test_failure(packed: Project) -> None:
    """
    A build that fails is told in Packer's own words, and leaves no box.
    """
    packed.write("image.pkr.hcl", HCL.replace("COMMAND", "echo oh no; exit 3"))
    done = packed.inv("image")

    assert 70 == done.code
    assert "null.box: oh no" in done.err
    assert (
        "image.pkr.hcl failed: Script exited with non-zero exit status: 3" in done.err
    )
    assert [] == packed.boxes()
    assert not (packed.home / "local" / "images").exists()


def test_refused_before_it_costs(packed: Project) -> None:
    """
    What Packer, or we, can tell to be wrong is refused before any box is made.
    """
    packed.write("image.pkr.hcl", HCL.replace("var.ssh_host", "var.nothing"))
    done = packed.inv("image")
    assert (78, True) == (done.code, "packer validate refuses" in done.err)

    packed.write("image.pkr.hcl", 'source "amazon-ebs" "it" {}\n')
    packed.write("onebox.toml", f'[image]\npacker = "image.pkr.hcl"\n{RUN}')
    done = packed.inv("plan")
    assert (78, True) == (done.code, "builds amazon-ebs, which provider" in done.err)

    packed.write("onebox.toml", TOML.replace("release", "relaese"))
    packed.write("image.pkr.hcl", HCL)
    done = packed.inv("plan")
    assert (78, True) == (done.code, "declares no variable relaese, did" in done.err)
    assert not (packed.home / "local" / "boxes").exists()


def test_interrupted(packed: Project) -> None:
    """
    Ctrl-C reaches Packer, which cleans up; then the builder goes.
    """
    packed.write("image.pkr.hcl", HCL.replace("COMMAND", "echo here; sleep 60"))
    process = packed.start("image")
    packed.until("null.box: here")
    process.send_signal(signal.SIGINT)

    assert 130 == process.wait(60)
    assert "stopping Packer" in packed.err
    assert "Cleanly cancelled builds after being interrupted" in packed.err
    assert [] == packed.boxes()


def test_interrupted_at_its_start(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Ctrl-C at the very moment that Packer starts reaches it, too.
    """
    session = opened(project, monkeypatch)
    log = builder.Log(session, tmp_path / "log")
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


def test_killed(packed: Project) -> None:
    """
    When we are killed the next command removes the builder, and builds anew.
    """
    packed.write("image.pkr.hcl", HCL.replace("COMMAND", "echo here; sleep 5"))
    process = packed.start("image")
    packed.until("null.box: here")
    process.kill()
    process.wait()
    packed.write("image.pkr.hcl", HCL.replace("COMMAND", "true"))

    assert 0 == packed.inv("image").code
    assert [] == packed.boxes()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "Packer is not installed here"),
        ("#!/bin/sh\necho 1,,version,1.5.6\n", "Packer 1.5.6 is too old"),
        ("#!/bin/sh\necho skipping line: 1\n", "is not HashiCorp's Packer"),
    ],
)
def test_how_to_get_it(
    project: Project, tmp_path: Path, program: str | None, message: str
) -> None:
    """
    Without a Packer that will do, one line says where there is one.
    """
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

    assert 70 == done.code
    assert message in done.err
    assert "next: https://developer.hashicorp.com/packer/install" in done.err
