"""The life of a box in a process that a test can kill."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from onebox.providers.aws.client import Cloud, _models
from onebox.providers.aws.provider import AWS
from onebox.providers.aws.settings import AWSSettings
from onebox.providers.values import Box, Request

FASTER = 40.0

# Loading the service models takes longest: the fork server does it once.
for _service in ("ec2", "ssm", "cloudwatch"):
    _models(None).load_service_model(_service, "service-2")
_models(None).load_data("endpoints")


def provider() -> AWS:
    """Return a provider with the settings of the tests."""
    return AWS(
        AWSSettings(ssh_cidr="198.51.100.7/32"),
        Path("/"),
        cloud=Cloud(sleep=lambda seconds: time.sleep(seconds / FASTER)),
    )


def live(environ: Mapping[str, str], request: Request, gate: str) -> None:
    """Create a box, stop, start and delete it."""
    os.environ.update(environ)
    # Wait until the test has chosen the call at which this process is killed.
    with Path(gate).open("rb") as opened:
        opened.read()
    aws = provider()
    box = _running(aws, aws.create(request))
    aws.stop(box)
    stopped = aws.get(box.id, box.place)
    assert stopped is not None
    box = _running(aws, aws.start(stopped, time.time() + 900))
    box = aws.set_host_key(box, "ssh-ed25519 AAAAnew")
    aws.delete(box)
    assert not aws.leftovers(box.id, box.place)


def _running(aws: AWS, box: Box) -> Box:
    while box.state == "starting":
        time.sleep(1 / FASTER)
        box = aws.get(box.id, box.place) or box
    return box
