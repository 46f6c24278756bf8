"""Give the lines of a set-up script that create an environment of conda."""

from __future__ import annotations

import shlex

# The project's own releases, which are static programs: micromamba-linux-64 and
# micromamba-linux-aarch64.
RELEASES = "https://github.com/mamba-org/micromamba-releases/releases/latest/download"


def setup_script(file: str) -> str:
    """
    Return a script that creates ~/.venv from the conda file *file*.

    It fetches micromamba with Python, which every box has; some have no curl and no
    bzip2.
    """
    return f"""\
set -e
mkdir -p ~/.local/bin
python3 -c 'import sys, urllib.request as r; r.urlretrieve(*sys.argv[1:])' \\
  {RELEASES}/micromamba-linux-$(uname -m | sed s/x86_64/64/) \\
  ~/.local/bin/micromamba
chmod +x ~/.local/bin/micromamba
~/.local/bin/micromamba create -y -p ~/.venv -f {shlex.quote(file)}
"""
