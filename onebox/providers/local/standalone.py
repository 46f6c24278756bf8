"""Run a module of this package in a process of its own, without the rest of onebox."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

_ONEBOX = Path(__file__).resolve().parent.parent.parent

# The parent packages are replaced with empty ones: their own `__init__` would import
# the rest of onebox, and the libraries it needs.
_CODE = """import sys
sys.path += sys.argv[2].split(":")
for name, folder in (("onebox", {onebox!r}), ("onebox.providers", {providers!r})):
    sys.modules[name] = type(sys)(name)
    sys.modules[name].__path__ = [folder]
from onebox.providers.local.{module} import main
main(sys.argv[3:])
"""


def command(module: str, path: Sequence[str], *arguments: str) -> list[str]:
    """
    Return the command that calls `main(arguments)` of a module in this package.

    *path* is added to `sys.path`: the folders of the libraries that it needs.
    """
    code = _CODE.format(
        module=module, onebox=str(_ONEBOX), providers=str(_ONEBOX / "providers")
    )
    # -I and -S: neither the user's PYTHON* variables nor .pth files have an effect.
    options = ["-I", "-S", "-c", code]
    return [sys.executable, *options, module, ":".join(path), *arguments]
