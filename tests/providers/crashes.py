"""Kill a client in the middle of a box's life: what the crash tests share."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from onebox.providers.base import Provider
from onebox.providers.values import Request

from .boxes import image_of, public_key, when_up


def live(provider: Provider, request: Request) -> None:
    """Lead the life of a box: create, pin its key, stop, save, start, delete all."""
    box = when_up(provider, provider.create(request))
    if box.bootstrap_key:
        box = provider.set_host_key(box, public_key(14))
    provider.stop(box)
    image = provider.save(box, image_of(request))
    box = when_up(provider, provider.start(box, time.time() + 600))
    provider.delete_image(image)
    provider.delete(box)


def fork(work: Callable[[], None]) -> int:
    """
    Run *work* in a forked process; return its id.

    The process exits with 0 if *work* returns. Forking beside the threads of a fake's
    server is safe: the process uses none of them.
    """
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return process
