"""`ray start` without the server of Ray Client, which takes a second of CPU time."""

import importlib
import os
import sys
from typing import Any

HOOK = "RAY_START_HOOK"


def without_client(parameters: Any, head: bool) -> None:
    """Change the parameters of `ray start`, which calls this by its name."""
    parameters.ray_client_server_port = None
    # A job may start Ray by itself.
    del os.environ[HOOK]


if __name__ == "__main__":
    os.environ[HOOK] = "__main__.without_client"
    sys.argv[0] = "ray"
    # The project's own environment does not have it.
    importlib.import_module("ray.scripts.scripts").main()
