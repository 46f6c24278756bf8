"""Pack the agent into the one file that goes to the box."""

from __future__ import annotations

import functools
import hashlib
import io
import zipfile
from pathlib import Path

MAIN = "from agent.main import main\n\nmain()\n"


@functools.lru_cache(maxsize=1)
def bundle() -> bytes:
    """Return the agent as a zip archive that python3 runs; same in, same out."""
    files = {"__main__.py": MAIN}
    for path in sorted((Path(__file__).parent.parent / "agent").glob("*.py")):
        files[f"agent/{path.name}"] = path.read_text("utf-8")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            # A fixed date: the same sources give the same bytes.
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            archive.writestr(info, text, zipfile.ZIP_DEFLATED, 9)
    return out.getvalue()


def version() -> str:
    """Return a short hash of the agent, by which both ends compare theirs."""
    return hashlib.sha256(bundle()).hexdigest()[:12]
