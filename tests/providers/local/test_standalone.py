"""The process of a box runs without the rest of onebox."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from onebox.providers.local import box_processes
from onebox.providers.local.layout import MachineConfig, write_json

from .conftest import OpenBox

CONFIG = MachineConfig(
    box="b",
    deadline=1.0,
    faults={"boot_delay": 2.0},
    host_key="private",
    user="me",
    user_key="public",
    homes=("/home/me",),
    lang="C.UTF-8",
    proxies={"https_proxy": "http://proxy:3128"},
    login_shell="/bin/sh",
    python_path=("/lib",),
    read=("/data", "/lib"),
    work="work",
    agent={"poweroff": ["poweroff"]},
)


@pytest.mark.parametrize("module", ["box_supervisor", "machine", "mounts"])
def test_a_box_process_loads_only_the_local_package_and_the_agent(
    open_box: OpenBox, module: str
) -> None:
    """A process of a box imports nothing else of onebox, and no `__init__` of it."""
    boot = MachineConfig.load(open_box().layout.boot)
    assert boot is not None
    python, *options, code, _, path = box_processes.command(module, boot.python_path)
    code = code.replace(
        "main(sys.argv[3:])", "print(*(m for m in sys.modules if 'onebox' in m))"
    )
    done = subprocess.run(
        [python, *options, code, module, path], capture_output=True, text=True
    )
    loaded = set(done.stdout.split())
    assert f"onebox.providers.local.{module}" in loaded, done.stderr
    own = ("onebox.providers.local", "onebox.agent")
    assert {name for name in loaded if not name.startswith(own)} == {
        "onebox",
        "onebox.providers",
    }


def test_a_boot_configuration_is_read_as_it_was_written(tmp_path: Path) -> None:
    """A boot configuration survives its JSON file unchanged."""
    write_json(tmp_path / "boot.json", CONFIG.to_json())
    assert MachineConfig.load(tmp_path / "boot.json") == CONFIG


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"box": "b"}'])
def test_an_unknown_boot_configuration_is_none(tmp_path: Path, text: str) -> None:
    """A missing field or an invalid file is no configuration, and no crash."""
    path = tmp_path / "boot.json"
    path.write_text(text)
    assert MachineConfig.load(path) is None
    known = dataclasses.asdict(CONFIG)
    with pytest.raises(TypeError):
        MachineConfig.parse({**known, "unknown": 1})
