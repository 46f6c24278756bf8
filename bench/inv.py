"""Run `inv` with the bench's box instead of one from a provider."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from invoke.main import program

from onebox import providers
from onebox.providers.base import Provider
from onebox.providers.values import Box, Offer, Tags
from onebox.settings.fields import Table


def bench_box() -> Box:
    """Return the box that `lab` has described in a file."""
    values = json.loads(Path(os.environ["BENCH_BOX"]).read_text())
    values["tags"], values["offer"] = Tags(**values["tags"]), Offer(**values["offer"])
    return Box(**values)


def load(name: str, settings: Table, root: Path) -> Provider:
    """Return the local provider, with the bench's box as its only one."""
    from onebox.providers.local.provider import Local
    from onebox.providers.local.settings import LocalSettings

    class BenchProvider(Local):
        def find(
            self, owner: str, also: Sequence[str] = (), *, everywhere: bool = False
        ) -> Sequence[Box]:
            return [bench_box()]

        def get(self, box: str, place: str = "") -> Box:
            return bench_box()

    return BenchProvider(cast(LocalSettings, settings), root)


if __name__ == "__main__":
    providers.load = load
    sys.argv[0] = "inv"
    program.run()
