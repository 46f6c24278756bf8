"""The command that creates the job's Python environment, ~/.venv, with uv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebox.settings.job_tables import ImageTable

PYPI = "https://pypi.org/simple"
# install_uv.py runs on the box; onebox only reads its text and never imports it.
INSTALL_UV = Path(__file__).with_name("install_uv.py")


def is_requested(image: ImageTable) -> bool:
    """Return whether onebox.toml asks for a Python environment."""
    return bool(image.python or image.requirements)


def title(image: ImageTable) -> str:
    """Return the environment's title, such as "Python 3.12, requirements.txt"."""
    python = f"Python {image.python}" if image.python else ""
    return ", ".join(part for part in (python, image.requirements) if part)


def argv(image: ImageTable) -> list[str]:
    """
    Return the command that creates the environment on the box.

    The command uses the uv in PATH if there is one. Otherwise it downloads uv to a
    temporary folder, from the package index that `[image] env` names, else from PyPI.
    """
    return [
        "sh",
        "-c",
        _SCRIPT,
        "onebox",
        INSTALL_UV.read_text("utf-8"),
        image.python or "",
        image.requirements or "",
        PYPI,
    ]


_SCRIPT = """\
set -eu
install_uv=$1 python=$2 requirements=$3 pypi=$4
export UV_LINK_MODE="${UV_LINK_MODE-copy}" UV_NO_PROGRESS="${UV_NO_PROGRESS-1}"
export UV_COMPILE_BYTECODE="${UV_COMPILE_BYTECODE-1}"
# Trust the certificates of the system, as the box's other programs do.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS-1}"
PATH=$PATH:$HOME/.local/bin
if ! uv=$(command -v uv); then
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-$pypi}}}
python3 -I -c "$install_uv" "$index" "$folder"
uv=$folder/uv
fi
"$uv" --version
venv=$HOME/.venv
# An environment that the set-up script has created there is kept, unless another
# Python is requested.
unset VIRTUAL_ENV
if [ -n "$python" ]; then
"$uv" venv --allow-existing --python "$python" "$venv"
elif [ ! -x "$venv/bin/python" ] &&
[ "${requirements%uv.lock}" = "$requirements" ]; then
"$uv" venv "$venv"
fi
case $requirements in
'') ;;
*uv.lock)
cd "$(dirname "$requirements")"
export UV_PROJECT_ENVIRONMENT="$venv"
"$uv" sync --frozen --inexact --no-install-workspace ${python:+--python "$python"}
;;
*) "$uv" pip install --python "$venv/bin/python" -r "$requirements" ;;
esac
"$venv/bin/python" -c 'import sys; sys.stdout.write(sys.version + "\\n")'
"""
