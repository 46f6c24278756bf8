"""
Create a box: its directory, its files, and its first start.

The directory has the prefix `.new-` until it is complete. A command that finds such a
directory unlocked knows that the creating command has died.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

from onebox import agent_bundle, subprocess_env
from onebox.errors import ProviderError
from onebox.providers.values import Request

from . import directories, images, path_shims, power
from .instances import NEW, WORK
from .layout import Layout, MachineConfig, make_fifo, read_json, write_json
from .locks import locked
from .settings import LocalSettings, Rehearse

# A login shell reads /etc/profile, which sets PATH without the box's `bin` folder. So
# the box's .profile adds the folder again.
_PROFILE = 'PATH="{bin}:$PATH"\n[ -r ~/.bashrc ] && . ~/.bashrc\n'

_PROXY = re.compile("(https?|ftp|all|no)_proxy", re.IGNORECASE)

# The machine process imports these libraries, which are not in the standard library.
_LIBRARIES = ("asyncssh", "cryptography", "typing_extensions", "_cffi_backend")


def make(
    final: Layout,
    request: Request,
    image: Path | None,
    now: float,
    settings: LocalSettings,
) -> bool:
    """
    Create a box and start it; return False if another command is creating it.

    Args:
        final: The place where the box will be once it is complete.

        image: The folder of the image from which the box is created. If it is None,
            the box starts without an image.
    """
    new = Layout(final.path.with_name(f"{NEW}{request.box}"))
    new.path.mkdir(mode=0o700, exist_ok=True)
    with locked(new.lock) as lock:
        if lock is None:
            return False
        try:
            _empty(new)
            _write_files(new, final, request, now, settings)
            _furnish(new, final, request.boot_config.agent)
            if image is not None:
                _restore(image, final, new)
            new.path.rename(final.path)
        except BaseException:
            directories.remove(new.path)
            raise
        power.start(final, lock)
    return True


def renew(layout: Layout, deadline: float, rehearse: Rehearse) -> None:
    """Set a stopped box's deadline, faults and proxies for its next start."""
    boot, record = MachineConfig.load(layout.boot), read_json(layout.record)
    if boot is None or record is None:
        raise ProviderError(f"box {layout.path.name} has lost its own files")
    boot = replace(
        boot,
        deadline=deadline,
        faults=rehearse.faults,
        proxies=_proxies(),
        agent={**boot.agent, "deadline": deadline},
    )
    record["deadline"] = record["tags"]["deadline"] = deadline
    record["notes"] = rehearse.notes
    write_json(layout.record, record)
    write_json(layout.boot, boot.to_json())


def _empty(new: Layout) -> None:
    """Remove all files that a crashed command has left in *new*, except the lock."""
    for entry in new.path.iterdir():
        # The lock file stays, because this process holds the lock on it.
        if entry != new.lock:
            directories.remove(entry) if entry.is_dir() else entry.unlink()


def _furnish(new: Layout, final: Layout, agent: bytes) -> None:
    """
    Create the directories, commands and pipes in *new*.

    The directory is later renamed to *final*.
    """
    for directory in (new.disk, new.home, new.tmp, new.var_tmp, new.agent):
        directory.mkdir(mode=0o700)
    (new.home / ".profile").write_text(_PROFILE.format(bin=final.bin), "utf-8")
    (new.agent / "agent.pyz").write_bytes(agent)
    # The box's Python is the one that runs here.
    name, code = agent_bundle.bytecode()
    (new.agent / name).write_bytes(code)
    path_shims.write(new.bin, final.power)
    make_fifo(new.control)
    make_fifo(new.power)


def _restore(image: Path, final: Layout, new: Layout) -> None:
    paths = images.paths(image)
    if paths is None:
        raise ProviderError(f"there is no image {image.name} here")
    images.restore(image / "home", paths, final.path, new.home)


def _write_files(
    new: Layout,
    final: Layout,
    request: Request,
    now: float,
    settings: LocalSettings,
) -> None:
    """
    Write the files that describe a box into *new*.

    The directory is later renamed to *final*.
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
        "notes": settings.rehearse.notes,
    }
    write_json(new.record, record)
    write_json(new.boot, _boot(final, request, settings).to_json())


def _boot(final: Layout, request: Request, settings: LocalSettings) -> MachineConfig:
    config = request.boot_config
    library = _library_path()
    return MachineConfig(
        box=request.box,
        deadline=config.deadline,
        faults=settings.rehearse.faults,
        host_key=request.host_key.private,
        user=_user(),
        user_key=request.user_key,
        homes=tuple(sorted({str(Path.home().resolve()), _passwd_home()})),
        lang="C.UTF-8",
        proxies=_proxies(),
        login_shell=shutil.which("bash") or "/bin/sh",
        python_path=library,
        read=(*path_shims.python_folders(), *library, *settings.readable),
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
    """Return the user's proxy variables; a box needs the same proxies."""
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
    """
    Return the folders that hold the libraries in _LIBRARIES.

    Raises ProviderError if asyncssh is not installed.
    """
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
