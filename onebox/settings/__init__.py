"""
Load the settings of a project from files, Invoke's configuration, variables and flags.

`schema` declares every setting on a field of a plain frozen dataclass. msgspec, or
attrs with cattrs, would add 25 to 60 ms of import (measured with -X importtime), and
their errors name neither the line nor an example nor the nearest name.
"""

from __future__ import annotations

from onebox.settings.file_layers import USER_FILE, InvokeLevel
from onebox.settings.load import Places, check_files, file_problems, load
from onebox.settings.schema import Settings, Size

__all__ = [
    "USER_FILE",
    "InvokeLevel",
    "Places",
    "Settings",
    "Size",
    "check_files",
    "file_problems",
    "load",
]
