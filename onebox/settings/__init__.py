"""
The settings of a project: onebox.toml, ONEBOX_* variables and flags over defaults.

`schema` declares every setting, on the fields of plain frozen dataclasses. msgspec and
attrs with cattrs would add 25 to 60 ms of import (measured with -X importtime), and
their errors lack the line, the example and the nearest name.
"""

from __future__ import annotations

from onebox.settings.load import check_files, load, project_name
from onebox.settings.schema import Settings, Size
from onebox.settings.units import format_bytes, parse_bytes, parse_duration

__all__ = [
    "Settings",
    "Size",
    "check_files",
    "format_bytes",
    "load",
    "parse_bytes",
    "parse_duration",
    "project_name",
]
