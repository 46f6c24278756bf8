"""Run the whole pipeline: make the data, ask every query, write the report."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tpch import read_scale


def main() -> int:
    """Run one script after the other; the first that fails ends it with its code."""
    scale = read_scale(__doc__)
    here = Path(__file__).parent
    queries = sorted(here.glob("q[0-9][0-9].py"))
    environment = {**os.environ, "SCALE": f"{scale:g}"}
    start = time.perf_counter()
    for script in [here / "make_data.py", *queries, here / "report.py"]:
        code = subprocess.run([sys.executable, script], env=environment).returncode
        if code != 0:
            print(f"{script.name} failed: the rest was not run", file=sys.stderr)
            return code if code > 0 else 128 - code  # as a shell tells a signal
    print(f"all done in {time.perf_counter() - start:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
