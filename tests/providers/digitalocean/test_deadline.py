"""A droplet reads its deadline from its tags at every boot."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess

from onebox.providers.digitalocean import deadline
from onebox.providers.digitalocean import metadata as metadata_module
from onebox.providers.kernel.user_data import user_data
from onebox.providers.values import Request

from ..boxes import MakeRequest
from ..post_boot import METADATA, metadata_server

TAGS = "/metadata/v1/tags/"


def boot(request: Request, service: str) -> int:
    """Run the boot program of a droplet; return the deadline that it reads."""
    script = deadline.at_boot(request).replace(METADATA, service)
    script = script.replace("time.sleep(1)", "time.sleep(0.01)")
    done = subprocess.run(
        ["sh", "-c", f"{script}echo $deadline"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == ""
    return int(done.stdout)


def test_a_changed_tag_is_the_deadline_of_the_next_boot(
    make_request: MakeRequest,
) -> None:
    """It was changed while the droplet was off."""
    request = make_request()
    later = request.boot_config.deadline + 5000.25
    words = [
        *metadata_module.of_box(request),
        metadata_module.tag("expires", repr(later)),
        "web",
    ]
    tags = "\n".join(word.upper() for word in words).encode()
    with metadata_server(tags, path=TAGS) as service:
        assert boot(request, service) == math.ceil(later)


def test_the_first_boot_reads_the_deadline_of_the_create_call(
    make_request: MakeRequest,
) -> None:
    """The tag has the same deadline."""
    request = make_request()
    tags = "\n".join(metadata_module.of_box(request)).encode()
    with metadata_server(tags, path=TAGS) as service:
        assert boot(request, service) == math.ceil(request.boot_config.deadline)


def test_without_a_valid_answer_the_first_deadline_holds(
    make_request: MakeRequest,
) -> None:
    """The metadata service fails, or returns nonsense."""
    request = make_request()
    made = math.ceil(request.boot_config.deadline)
    with metadata_server(b"", status=500, path=TAGS) as service:
        assert boot(request, service) == made
    nonsense = b"\xff\xfeonebox-expires:soon\nonebox-expires:\n"
    with metadata_server(nonsense, path=TAGS) as service:
        assert boot(request, service) == made
    assert boot(request, "http://127.0.0.1:1") == made


def test_the_user_data_uses_the_deadline_of_the_tags(make_request: MakeRequest) -> None:
    """No other deadline is in it."""
    boot_config = dataclasses.replace(make_request().boot_config, deadline=1765432109.5)
    request = make_request(boot_config=boot_config)
    text = user_data(request, notice="", until=deadline.at_boot(request)).decode()
    [script] = json.loads(text.partition("\n")[2])["bootcmd"]
    first, _, rest = script.partition("\numask 022\n")
    assert "1765432110" in first
    assert "1765432110" not in rest
    assert "1765432109" not in rest
    assert len(text) < 64 << 10
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
