"""
Write docs/run.svg, the picture of the README, from a real run on the local box.

    python docs/picture.py

The job is a few lines long, in a folder of its own; nothing of the user's is touched.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 84
JOB = """\
import pathlib, time
pathlib.Path("results").mkdir(exist_ok=True)
for epoch in range(1, 4):
    time.sleep(0.3)
    print(f"epoch {epoch}   loss {1.9 / epoch:.3f}", flush=True)
pathlib.Path("results/model.bin").write_bytes(bytes(40_000_000))
"""
TOML = '[run]\ncommand = "python3 train.py"\n'
# What a line's parts look like on a terminal.
STYLES = {r"^(onebox|[a-z]+)(?=  )": "bold", "✓": "green", "•": "yellow"}


def main() -> None:
    """Run the job and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "census")
        project.mkdir()
        (project / "train.py").write_text(JOB)
        (project / "onebox.toml").write_text(TOML)
        # The paths of sockets must be short.
        home = Path(folder, "home")
        env = {
            **os.environ,
            "ONEBOX_STATE": str(home / "state"),
            "ONEBOX_IDENTITY": str(home / "identity"),
            "ONEBOX_LOCAL_ROOT": str(home / "local"),
        }
        done = subprocess.run(
            [sys.executable, "-m", "onebox", "run", "--vm=large"],
            cwd=project,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print(Text("$ onebox run --vm=large", "bold"))
    for line in done.stdout.rstrip().splitlines():
        text = Text(_aligned(line))
        for pattern, style in STYLES.items():
            text.highlight_regex(pattern, style)
        console.print(text)
    # The fonts of the template would be loaded from the web.
    template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.S)
    picture = console.export_svg(title="onebox", code_format=template)
    Path(__file__).with_name("run.svg").write_text(picture, "utf-8")


def _aligned(line: str) -> str:
    """Return a stage's line with its columns as on a terminal; a pipe has none."""
    found = re.match(r"(\w+ +[✓•✗!]) (\S.*?)  (.*)", line)
    return f"{found[1]} {found[2]:<12} {found[3]}" if found else line


if __name__ == "__main__":
    main()
