"""A root on a cluster, with the stopped builder `ob-1`, as plain files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onebox.agent.folders.root import Root
from onebox.agent.slurm import images

TAGS = {"owner": "me", "project": "p", "name": "main", "kind": "box"}
IMAGE = {"id": "oi-1", "name": "env", "tags": {**TAGS, "kind": "image"}}


def new_root(tmp_path: Path) -> Root:
    """Create a root with the stopped builder `ob-1`."""
    root = Root(str(tmp_path / "root"))
    root.claim()
    builder(root, "ob-1")
    return root


def builder(root: Root, id: str, owner: str = "me") -> None:
    """Create a stopped builder, with an environment in its home."""
    home = Path(root.home(id))
    packages = home / ".venv/lib/python3/site-packages"
    packages.mkdir(parents=True)
    (home / ".venv/bin").mkdir()
    (packages / "tool.py").write_text("print(1)\n")
    (home / ".venv/pyvenv.cfg").write_text(f"command = {home}\n")
    (home / ".venv/bin/tool").write_text(f"#!{home}/.venv/bin/python\n")
    (home / ".venv/bin/Activate.ps1").write_text("nothing\n")
    (home / ".venv/lib64").symlink_to("lib")
    tags = {**TAGS, "owner": owner, "kind": "builder"}
    record = {"tags": tags, "stopped": True}
    Path(root.box(id), "record.json").write_text(json.dumps(record))


def save(root: Root) -> dict[str, Any]:
    """Save the home of the builder."""
    tags = {**TAGS, "kind": "builder"}
    return images.save(root, {"image": IMAGE, "box": "ob-1", "tags": tags})


def content(folder: str) -> dict[str, str]:
    """Return the files below a folder, and what links say."""
    return {
        str(path.relative_to(folder)): (
            str(path.readlink()) if path.is_symlink() else path.read_text()
        )
        for path in sorted(Path(folder).rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def request(kind: str) -> dict[str, Any]:
    """Return the request that saves the box, which is of this kind."""
    return {"image": IMAGE, "box": "ob-1", "tags": {**TAGS, "kind": kind}}


def as_user(folder: Path, work: Callable[[], object]) -> None:
    """Run *work* as a user who owns all below a folder, and is not root."""
    if os.getuid() == 0:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, 1000, 1000, follow_symlinks=False)
        for above in folder.parents:
            if above.is_relative_to("/tmp/") or above.name.startswith("pytest-"):
                above.chmod(above.stat().st_mode | 0o011)
    process = os.fork()
    if process == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(1000)
                os.setuid(1000)
            work()
            os._exit(0)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
    assert 0 == os.WEXITSTATUS(os.waitpid(process, 0)[1])
