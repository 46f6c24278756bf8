"""What Jupyter prints on a box takes little memory and no disk of this machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from onebox.stages.notebook import TAIL, Tail

PRINTS = (
    "import os\nfor _ in range(64):\n    os.write(1, b'x' * (1 << 16))\nprint('end')"
)


@pytest.mark.fast
def test_only_the_end_of_the_output_is_kept() -> None:
    """A box that prints without an end fills nothing; the last lines are quoted."""
    process = subprocess.Popen([sys.executable, "-c", PRINTS], stdout=subprocess.PIPE)
    tail = Tail(process.stdout)
    process.wait()

    text = tail.text()

    assert TAIL == len(text)
    assert text.endswith("xend\n")
