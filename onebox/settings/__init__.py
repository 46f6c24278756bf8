"""
The settings of a project: onebox.toml, ONEBOX_* variables and flags over defaults.

`schema` declares every setting, on the fields of plain frozen dataclasses. msgspec and
attrs with cattrs would add 25 to 60 ms of import (measured with -X importtime), and
their errors lack the line, the example and the nearest name.
"""

from __future__ import annotations

from onebox.settings.load import check_files, load
from onebox.settings.schema import Settings, Size

__all__ = [
    "Settings",
    "Size",
    "check_files",
    "load",
]
