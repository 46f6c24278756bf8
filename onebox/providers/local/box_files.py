"""The record and the boot configuration of a box, which clients write."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

from onebox import subprocess_env
from onebox.errors import ProviderError
from onebox.providers.values import Request

from . import boot_config, fault_injection, path_shims
from .boot_config import BootConfig
from .instances import WORK
from .layout import Layout, read_json, write_json

_PROXY = re.compile("(https?|ftp|all|no)_proxy", re.IGNORECASE)

# The libraries that the machine imports from outside the standard library.
_LIBRARIES = ("asyncssh", "cryptography", "typing_extensions", "_cffi_backend")


def write(
    new: Layout,
    final: Layout,
    request: Request,
    now: float,
    faults: Mapping[str, float],
    read: Sequence[str],
) -> None:
    """
    Write a new box's files into *new*, for a box that will be at *final*.

    Args:
        read: Folders outside the box that jobs may read.
    """
    new.marker.write_text(request.box, "ascii")
    record = {
        "tags": asdict(request.tags),
        "offer": asdict(request.offer),
        "image": request.image.id if request.image else "",
        "host_key": request.host_key.public,
        "user": _user(),
        "created": now,
        "deadline": request.boot_config.deadline,
        "notes": fault_injection.notes(faults),
    }
    write_json(new.record, record)
    boot_config.save(new.boot, _boot(final, request, faults, read))


def renew(layout: Layout, deadline: float, faults: Mapping[str, float]) -> None:
    """Set a stopped box's deadline, faults and proxies for its next start."""
    boot, record = boot_config.load(layout.boot), read_json(layout.record)
    if boot is None or record is None:
        raise ProviderError(f"box {layout.path.name} has lost its own files")
    boot = replace(
        boot,
        deadline=deadline,
        faults=dict(faults),
        proxies=_proxies(),
        agent={**boot.agent, "deadline": deadline},
    )
    record["deadline"] = record["tags"]["expires"] = deadline
    record["notes"] = fault_injection.notes(faults)
    write_json(layout.record, record)
    boot_config.save(layout.boot, boot)


def _boot(
    final: Layout, request: Request, faults: Mapping[str, float], read: Sequence[str]
) -> BootConfig:
    config = request.boot_config
    library = _library_path()
    return BootConfig(
        box=request.box,
        deadline=config.deadline,
        faults=dict(faults),
        host_key=request.host_key.private,
        user=_user(),
        user_key=request.user_key,
        homes=tuple(sorted({str(Path.home().resolve()), _passwd_home()})),
        lang="C.UTF-8",
        proxies=_proxies(),
        login_shell=shutil.which("bash") or "/bin/sh",
        python_path=library,
        read=(*path_shims.python_folders(), *library, *read),
        work=WORK,
        agent={
            "box": request.box,
            "agent": hashlib.sha256(config.agent).hexdigest()[:12],
            "home": str(final.home),
            "work": str(final.home / WORK),
            "deadline": config.deadline,
            "setup_grace": config.setup_grace,
            "idle_grace": config.idle_grace,
            "poweroff": [str(final.bin / "poweroff")],
        },
    )


def _proxies() -> dict[str, str]:
    """Return the user's proxy variables: a box needs the same proxies."""
    ours = subprocess_env.environment()
    return {name: value for name, value in ours.items() if _PROXY.fullmatch(name)}


def _user() -> str:
    """Return the name of the user who runs onebox, which is the box's user too."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _passwd_home() -> str:
    try:
        return os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return "/"


def _library_path() -> tuple[str, ...]:
    """Return the folders of the libraries that the machine imports."""
    found = []
    for name in _LIBRARIES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            if name == "asyncssh":
                raise ProviderError(
                    "a local box needs asyncssh, which is not installed",
                    next="pip install asyncssh",
                )
            continue
        origin = Path(spec.origin)
        place = (
            origin.parent.parent if spec.submodule_search_locations else origin.parent
        )
        if str(place) not in found:
            found.append(str(place))
    return tuple(found)
