"""`inv ssh --install`: boxes that the user's own ssh and editors reach by a name."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from tests.conftest import Project

# Settings for all hosts that would each lead ssh astray.
ASTRAY = b"""\
# mine\r
Host *
  User nobody-of-this-name
  Port 1
  HostName 192.0.2.1
  ProxyJump 192.0.2.1
  ForwardAgent yes
  StrictHostKeyChecking no
  UserKnownHostsFile /dev/null
  PubkeyAuthentication no
  IdentityFile /nonexistent
  ControlPath /nonexistent/%C
  RemoteCommand false"""


def own_ssh(
    project: Project, alias: str, *words: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run the user's own ssh, with the user's own configuration."""
    config = project.home / ".ssh" / "config"
    return subprocess.run(
        ["ssh", "-F", str(config), *options, alias, *words],
        env=project.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_own_ssh_reaches_the_box_until_it_is_gone(project: Project) -> None:
    """It does so with a configuration of the user's that leads elsewhere."""
    config = project.home / ".ssh" / "config"
    config.parent.mkdir(mode=0o700)
    config.write_bytes(ASTRAY)
    config.chmod(0o640)
    project.inv("provision")
    done = project.inv("ssh", "--install")
    assert 0 == done.code, done.err
    assert "ssh onebox-census" in done.err
    assert "powers itself off 30 min after" in done.err

    found = own_ssh(project, "onebox-census", "echo in $HOME")

    (box,) = project.boxes()
    assert found.stdout.startswith("in "), found.stderr
    assert f"/{box}/" in found.stdout
    assert 0o640 == stat.S_IMODE(config.stat().st_mode)
    settings = own_ssh(project, "onebox-census", options=("-G",)).stdout
    assert "forwardagent no\n" in settings
    assert "stricthostkeychecking true\n" in settings
    # A second box of the project has a name of its own, and a later one is found too.
    project.inv("provision", "--name=second")
    second = own_ssh(project, "onebox-census-second", "echo in $HOME")
    assert second.stdout.startswith("in ")
    assert second.stdout != found.stdout
    project.inv("teardown", "--all")
    gone = own_ssh(project, "onebox-census", options=("-G",)).stdout
    assert "hostname 192.0.2.1\n" in gone
    assert 0 == project.inv("ssh", "--uninstall").code
    assert ASTRAY == config.read_bytes()


def test_host_key_stays_pinned(project: Project) -> None:
    """A machine with another key at the box's address is refused."""
    project.inv("provision")
    project.inv("ssh", "--install")
    (pinned,) = project.home.glob("state/projects/*/main/ssh/host.known")
    (box,) = project.boxes()
    key = project.home / "stranger"
    subprocess.run(["ssh-keygen", "-qt", "ed25519", "-N", "", "-f", key], check=True)
    public = key.with_suffix(".pub").read_text()
    pinned.write_text(f"{box} {public}")

    found = own_ssh(project, "onebox-census", "echo in")

    assert 255 == found.returncode
    assert "HOST IDENTIFICATION HAS CHANGED" in found.stderr
    assert "" == found.stdout


def test_new_configuration_is_private(project: Project) -> None:
    """It holds one line, and a second --install changes nothing."""
    assert 0 == project.inv("ssh", "--install").code
    config = project.home / ".ssh" / "config"
    (line,) = config.read_text().splitlines()
    assert line.startswith("Include ")
    assert 0o600 == stat.S_IMODE(config.stat().st_mode)
    assert 0o700 == stat.S_IMODE(config.parent.stat().st_mode)
    assert "up to date" in project.inv("ssh", "--install").err
    assert [line] == config.read_text().splitlines()


def test_nothing_is_written_through_a_link(project: Project) -> None:
    """The message has the line that the user can add by hand."""
    target = project.write("dotfiles/config", "Host *\n")
    folder = project.home / ".ssh"
    folder.mkdir()
    (folder / "config").symlink_to(target)

    done = project.inv("ssh", "--install")

    assert 64 == done.code
    assert 'add this line at its top: Include "' in done.err
    assert "Host *\n" == target.read_text()
    assert 64 == project.inv("ssh", "--uninstall").code


def test_pipe_in_place_of_the_configuration_is_refused(project: Project) -> None:
    """A read of it would wait forever."""
    config = project.home / ".ssh" / "config"
    config.parent.mkdir()
    os.mkfifo(config)

    for flag in ("--install", "--uninstall"):
        done = project.inv("ssh", flag, timeout=30)
        assert 64 == done.code
        assert f"{config} is no regular file\n  next: move it away" in done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="root can change an owner")
def test_owner_and_mode_stay(project: Project) -> None:
    """Root edits the configuration of the user whose home folder this is."""
    config = project.home / ".ssh" / "config"
    config.parent.mkdir()
    config.write_text("Host *\n")
    config.chmod(0o640)
    os.chown(config, 1000, 1001)

    for flag in ("--install", "--uninstall"):
        assert 0 == project.inv("ssh", flag).code
        st = config.stat()
        assert (1000, 1001, 0o640) == (st.st_uid, st.st_gid, st.st_mode & 0o7777)
    assert "Host *\n" == config.read_text()


def test_a_file_with_two_names_is_left_to_the_user(project: Project) -> None:
    """Its replacement would leave the other name, such as a backup's, behind."""
    config = project.home / ".ssh" / "config"
    config.parent.mkdir()
    other = project.write("dotfiles/config", "Host *\n")
    other.rename(project.home / "dotfile")
    os.link(project.home / "dotfile", config)

    done = project.inv("ssh", "--install")

    assert 64 == done.code
    line = done.err.partition("add this line at its top: ")[2].splitlines()[0]
    assert (2, "Host *\n") == (config.stat().st_nlink, config.read_text())
    config.write_text(f"{line}\nHost *\n")
    assert "up to date" in project.inv("ssh", "--install").err
    assert 64 == project.inv("ssh", "--uninstall").code


@pytest.mark.parametrize("comment", [" # onebox", "#mine", "  ", "\t# a"])
def test_own_line_is_known_with_a_comment(project: Project, comment: str) -> None:
    """No second line is added, and none is left behind."""
    project.inv("ssh", "--install")
    config = project.home / ".ssh" / "config"
    commented = f"{config.read_text().strip()}{comment}\nHost *\n"
    config.write_text(commented)

    assert "up to date" in project.inv("ssh", "--install").err
    assert commented == config.read_text()
    config.write_text(f"Host a\n{commented}")
    assert 0 == project.inv("ssh", "--install").code
    assert 1 == config.read_text().count("Include")
    assert config.read_text().endswith("Host a\nHost *\n")
    config.write_text(commented)
    assert 0 == project.inv("ssh", "--uninstall").code
    assert "Host *\n" == config.read_text()


def test_two_projects_of_one_name_have_two_names(project: Project) -> None:
    """The later one gets the project's unique id."""
    project.inv("provision")
    other = project.root.parent / "other" / "census"
    other.mkdir(parents=True)
    (other / "tasks.py").write_text(project.read("tasks.py"))
    project.inv("provision", cwd=other)

    assert "ssh onebox-census\n" in project.inv("ssh", "--install").err
    done = project.inv("ssh", "--install", cwd=other)

    alias = done.err.partition(": ssh ")[2].split()[0]
    assert alias.startswith("onebox-census-")
    first = own_ssh(project, "onebox-census", "echo $HOME").stdout
    second = own_ssh(project, alias, "echo $HOME").stdout
    assert first
    assert second
    assert first != second
