"""A Python environment for the job, made on the builder by uv, in ~/.venv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onebox.settings.schema import Image

PYPI = "https://pypi.org/simple"
# Run on the box, never here.
FIND_UV = Path(__file__).with_name("find_uv.py")


def wanted(image: Image) -> bool:
    """Tell whether the settings ask for one."""
    return bool(image.python or image.requirements)


def title(image: Image) -> str:
    """Say what it is made of."""
    python = f"Python {image.python}" if image.python else ""
    return ", ".join(part for part in (python, image.requirements) if part)


def argv(image: Image) -> list[str]:
    """
    Return the command that makes it; the agent gives every job its programs.

    Where uv is in PATH already it is used. Else the box brings it from the index
    that `[image] env` names, and keeps it no longer than it is needed.
    """
    return [
        "sh",
        "-c",
        _MAKE,
        "onebox",
        FIND_UV.read_text("utf-8"),
        image.python or "",
        image.requirements or "",
        PYPI,
    ]


_MAKE = """\
set -eu
find_uv=$1 python=$2 wanted=$3 pypi=$4
export UV_LINK_MODE="${UV_LINK_MODE-copy}" UV_NO_PROGRESS="${UV_NO_PROGRESS-1}"
export UV_COMPILE_BYTECODE="${UV_COMPILE_BYTECODE-1}"
# As everything else on the box, it trusts whom the system trusts.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS-1}"
PATH=$PATH:$HOME/.local/bin
if ! uv=$(command -v uv); then
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-$pypi}}}
python3 -I -c "$find_uv" "$index" "$folder"
uv=$folder/uv
fi
"$uv" --version
venv=$HOME/.venv
# What a set-up script has made there stays, unless another Python is asked for.
unset VIRTUAL_ENV
if [ -n "$python" ]; then
"$uv" venv --allow-existing --python "$python" "$venv"
elif [ ! -x "$venv/bin/python" ] && [ "${wanted%uv.lock}" = "$wanted" ]; then
"$uv" venv "$venv"
fi
case $wanted in
'') ;;
*uv.lock)
cd "$(dirname "$wanted")"
export UV_PROJECT_ENVIRONMENT="$venv"
"$uv" sync --frozen --inexact --no-install-workspace ${python:+--python "$python"}
;;
*) "$uv" pip install --python "$venv/bin/python" -r "$wanted" ;;
esac
"$venv/bin/python" -c 'import sys; sys.stdout.write(sys.version + "\\n")'
"""
