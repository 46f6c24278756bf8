"""The bundle of the agent is the same on every box; its bytecode is only a cache."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from onebox import agent_bundle
from onebox.providers.local.layout import Layout
from onebox.providers.local.path_shims import base_python
from tests.conftest import Project
from tests.fakes.agent_box import AgentBox

pytestmark = pytest.mark.slow

# Threads take turns in the middle of a parse where garbage is collected in it.
AT_ONCE = """
import gc, sys
from concurrent.futures import ThreadPoolExecutor
from onebox import agent_bundle

class Slow:
    def __init__(self):
        self.me = self

    def __del__(self):
        sum(range(50))

def pack(_):
    for _ in range(20):
        Slow()
    return agent_bundle.seed()

gc.set_threshold(3)
sys.setswitchinterval(1e-6)
packed = set()
for _ in range(30):
    agent_bundle.seed.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        packed.update(pool.map(pack, range(4)))
print(len(packed))
"""


def test_threads_that_pack_at_once_get_the_same_bundle() -> None:
    """All boxes that are created at the same time start with the same agent."""
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE], capture_output=True, text=True, check=False
    )

    assert (0, "1\n") == (done.returncode, done.stdout), done.stderr


def test_agent_reads_its_modules_from_the_bytecode_beside_it(
    agent_box: AgentBox,
) -> None:
    """Python compiles none of the agent's modules, except the start of the archive."""
    name, _ = agent_bundle.bytecode()

    assert {name} == archives(agent_box.pyz)


def test_new_local_box_has_the_bytecode_of_its_agent(project: Project) -> None:
    """The Python of a local box is the one that runs onebox, so it can be used."""
    assert 0 == project.inv("provision").code

    (box,) = project.boxes()
    agent = Layout(project.home / "local" / "boxes" / box).agent
    used = archives(agent / "agent.pyz", base_python())
    assert {agent_bundle.bytecode()[0]} == used


@pytest.mark.parametrize("part", ["bytecode-", "-cpython", f"{sys.hexversion:x}"])
def test_bytecode_of_another_agent_or_python_is_ignored(
    agent_box: AgentBox, part: str
) -> None:
    """The name of the file tells of which sources and for which Python it is."""
    name, code = agent_bundle.bytecode()
    (agent_box.root / name).unlink()
    (agent_box.root / name.replace(part, f"0{part}")).write_bytes(code)

    assert {"agent.pyz"} == archives(agent_box.pyz)


@pytest.mark.parametrize("length", [0, 1000, 100_000])
def test_agent_starts_without_a_damaged_file_of_bytecode(
    agent_box: AgentBox, length: int
) -> None:
    """An incomplete archive has no list of its files, so Python takes the agent."""
    name, code = agent_bundle.bytecode()
    (agent_box.root / name).write_bytes(code[:length])

    assert {"agent.pyz"} == archives(agent_box.pyz)


def test_agent_that_is_compiled_where_it_runs_needs_no_further_compilation(
    agent_box: AgentBox,
) -> None:
    """A cluster's Python is seldom the client's, so the first box compiles."""
    name, _ = agent_bundle.bytecode()
    (agent_box.root / name).unlink()
    words = "from agent.bytecode import compiled; print(compiled())"
    start = "import runpy, sys\ntry: runpy.run_path(sys.argv[0])\nexcept SystemExit: "
    made = subprocess.run(
        [
            *(sys.executable, "-I", "-S", "-c"),
            f"import sys; sys.argv = sys.argv[1:]\n{start}{words}",
            str(agent_box.pyz),
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert made.stdout == f"{agent_box.root / name}\n"
    assert {name} == archives(agent_box.pyz)


def test_change_of_a_source_changes_the_name_of_the_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replaced agent does not run the bytecode of the one before it."""
    names = set()
    for text in ("A = 1\n", "A = 2\n"):
        (tmp_path / "main.py").write_text(text)
        monkeypatch.setattr(agent_bundle, "_folder", lambda: tmp_path)
        for cached in (agent_bundle._sources, agent_bundle.bytecode):
            cached.cache_clear()
        names.add(agent_bundle.bytecode()[0])
    for cached in (agent_bundle._sources, agent_bundle.bytecode):
        cached.cache_clear()

    assert 2 == len(names)


def archives(pyz: Path, python: str = sys.executable) -> set[str]:
    """Return the names of the archives from which an agent reads its modules."""
    done = subprocess.run(
        [python, "-v", "-I", "-S", str(pyz), "no such mode"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "usage: " in done.stderr, done.stderr[-6000:]
    found = re.findall(
        r"import 'agent\S*' # <zipimporter object \"(.*)\">", done.stderr
    )
    folder = f"{pyz.parent}/"
    return {place.removeprefix(folder).partition("/")[0] for place in found}
