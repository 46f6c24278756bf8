"""The boot program in the create call is small, exact, and always the same."""

from __future__ import annotations

import ast
import gzip
import json
import subprocess
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from onebox import agent_bundle
from onebox.providers.kernel import user_data
from onebox.providers.values import BootConfig, HostKey, Offer, Request, Tags

# EC2's limit is 16,384 bytes before base64; a margin stays. Only EC2 accepts compressed
# data. Of the other clouds DigitalOcean has the lowest limit.
PACKED_AIM = 14_000
PLAIN_LIMIT = 64 << 10
PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\n" + 5 * ("x" * 70 + "\n")


def request(user_key: str = "ssh-ed25519 " + "A" * 68 + " me") -> Request:
    """Return a request with values as long as they get."""
    return Request(
        box="ob-0123456789abcdef",
        tags=Tags("o" * 16, "p" * 31, "n" * 31, 2e9, "10.10.10"),
        offer=Offer("s", "t", 1, 1, None, None),
        image=None,
        user_key=user_key,
        host_key=HostKey(private=PRIVATE, public="ssh-ed25519 " + "B" * 68),
        boot_config=BootConfig(
            2e9 + 0.123456, 2700, 1800, agent_bundle.bundle(), agent_bundle.seed()
        ),
    )


def test_user_data_fits_into_the_limit_of_every_cloud() -> None:
    """EC2 gets it compressed, with a margin."""
    plain = user_data.user_data(request(), notice="ec2")
    packed = user_data.user_data(request(), notice="ec2", packed=True)
    assert len(plain) < PLAIN_LIMIT
    assert len(packed) <= PACKED_AIM
    assert gzip.decompress(packed) == plain


def test_the_same_request_gives_the_same_user_data() -> None:
    """A repeated create call is therefore idempotent."""
    for packed in (False, True):
        first = user_data.user_data(request(), notice="ec2", packed=packed)
        assert user_data.user_data(request(), notice="ec2", packed=packed) == first
    script = user_data.startup_script(request(), notice="gce")
    assert user_data.startup_script(request(), notice="gce") == script


def test_a_private_host_key_is_sent_only_if_the_cloud_cannot_read_keys_back() -> None:
    """A cloud that reads host keys back is never given a private one."""
    assert b"PRIVATE KEY" in user_data.user_data(request(), notice="ec2")
    data = user_data.user_data(request(), notice="gce", host_key=False)
    assert b"PRIVATE KEY" not in data
    assert "PRIVATE KEY" not in user_data.startup_script(request(), notice="gce")


@pytest.mark.parametrize(
    "hostile", ["$(reboot)", "`reboot`", "'; reboot; '", '"$HOME"']
)
def test_text_in_a_key_is_never_executed(hostile: str, tmp_path: Path) -> None:
    """It is text for the shell and for YAML."""
    data = user_data.user_data(request(f"ssh-ed25519 {hostile}"), notice="")
    script = json.loads(data.partition(b"\n")[2])["bootcmd"][0]
    line = next(x for x in script.splitlines() if "authorized_keys" in x)
    line = line.replace("/home/onebox/.ssh", str(tmp_path))
    subprocess.run(["sh", "-c", line], check=True)
    written = (tmp_path / "authorized_keys").read_text()
    assert written.split()[:2] == ["ssh-ed25519", hostile.split()[0]]


def test_the_scripts_are_posix_shell() -> None:
    """dash runs them."""
    data = user_data.user_data(request(), notice="ec2")
    script = json.loads(data.partition(b"\n")[2])["bootcmd"][0]
    for text in (script, user_data.startup_script(request(), notice="gce")):
        subprocess.run(["sh", "-n"], input=text.encode(), check=True)


def test_the_seed_is_an_agent_for_the_start() -> None:
    """The seed is a part of the agent, for any Python on a box, and always the same."""
    small = zipfile.ZipFile(BytesIO(agent_bundle.seed()))
    names = set(small.namelist())
    assert names < set(zipfile.ZipFile(BytesIO(agent_bundle.bundle())).namelist())
    for name in names:
        ast.parse(small.read(name), feature_version=(3, 8))
    assert agent_bundle.seed() == agent_bundle.seed.__wrapped__()
