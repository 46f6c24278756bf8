"""Old names of functions in `output_paths`, until their users move."""

from __future__ import annotations

from onebox.jobs.output_paths import note_folder as note
from onebox.jobs.output_paths import noted_folders as noted

__all__ = ["note", "noted"]
