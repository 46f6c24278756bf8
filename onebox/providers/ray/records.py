"""The two files of a box: its record for the provider, and the one for its agent."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from onebox.agent.folders.root import Root
from onebox.errors import ProviderError
from onebox.providers.ray.settings import RaySettings
from onebox.providers.values import Box, Offer, Request, Tags


def new(
    request: Request, cluster: Mapping[str, Any], settings: RaySettings
) -> dict[str, Any]:
    """
    Return the record of a new box.

    Args:
        cluster: The name of the cluster, and `where` it is.
    """
    return {
        "tags": asdict(request.tags),
        "offer": asdict(request.offer),
        "cluster": dict(cluster),
        "storage": settings.storage or "",
        "created": time.time(),
        "stopped": False,
    }


def box_json(
    request: Request, root: Root, cluster: Mapping[str, Any], settings: RaySettings
) -> dict[str, Any]:
    """Return the configuration of the agent; see `onebox.agent.box.BoxConfig`."""
    seconds = max(request.boot_config.deadline - time.time(), 60)
    return {
        "box": request.box,
        "work": root.work(request.box),
        "home": root.home(request.box),
        "armed": time.time(),
        "deadline": 0.0,
        "setup_grace": 0.0,
        "idle_grace": 0.0,
        "poweroff": [],
        "scheduler": {
            "engine": "ray",
            "reach": cluster["where"],
            "cpus": request.offer.cpus,
            "memory": request.offer.memory,
            "minutes": -(-int(seconds) // 60),
            "storage": settings.storage or "",
            "most": settings.max_outputs,
            "retries": settings.retries,
        },
    }


def box(id: str, folder: str, record: Mapping[str, Any]) -> Box:
    """Return a box. Raises ProviderError if its record is not valid."""
    try:
        offer = Offer.read(record["offer"])
        name = str(record["cluster"]["name"])
        return Box(
            id=id,
            tags=Tags.parse(record["tags"]),
            state="stopped" if record["stopped"] is True else "running",
            offer=replace(offer, place=name),
            image="",
            place=name,
            host=name,
            port=0,
            user="",
            host_key="",
            created=float(record["created"]),
            deadline=0.0,
            agent=f"{folder}/agent.pyz",
            work=f"{folder}/work",
            home=f"{folder}/home",
            python=sys.executable or "python3",
            is_folder=True,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ProviderError(
            f"{folder}/record.json is damaged: {error!r}",
            next="repair the file, or remove its folder",
        ) from error
