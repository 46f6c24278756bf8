"""
Compile the agent where it runs, if its client's Python has another version.

Python compiles an archive at each start. On a cluster that takes 0.1 s of CPU time for
each request, so the first box of a version brings the bytecode with it. `agent_bundle`
names the file, and makes the same one for a box whose Python is the client's.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import io
import marshal
import os
import sys
import zipfile

from .box import replace_file

# The header of a .pyc file that is valid without a look at its source.
_PYC = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)


def compiled() -> str:
    """
    Return the path of this agent's bytecode, and make the file if it is missing.

    Return "" if it cannot be made; the agent works without it.
    """
    # The first lines of the archive put it into the search path.
    for path in sys.path:
        if os.path.basename(path).startswith("bytecode-"):
            break
    else:
        return ""
    try:
        if not os.path.exists(path):
            replace_file(path, _pack(os.path.abspath(sys.argv[0])), sync=False)
    except (OSError, zipfile.BadZipFile):
        return ""
    return path


def _pack(agent: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(agent) as sources, zipfile.ZipFile(out, "w") as archive:
        for name in sources.namelist():
            if name.startswith("agent/"):
                loader = importlib.machinery.SourceFileLoader(name, name)
                code = loader.source_to_code(sources.read(name), name)
                archive.writestr(name + "c", _PYC + marshal.dumps(code))
    return out.getvalue()
