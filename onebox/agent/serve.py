"""All that a client can ask of the whole agent."""

from __future__ import annotations

from typing import Dict

from . import files, hostkey, jobs, lanes, meeting

OPS: Dict[str, meeting.Op] = {
    **meeting.OPS,
    **jobs.OPS,
    **files.OPS,
    **lanes.OPS,
    **hostkey.OPS,
}
