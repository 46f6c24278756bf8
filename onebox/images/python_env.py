"""The command that creates or updates the job's environment, ~/.venv, with uv."""

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


def job_variables(image: ImageTable) -> dict[str, str]:
    """Return variables of the job: `uv run` uses the environment as onebox made it."""
    return {"UV_NO_SYNC": "1"} if image.requirements else {}


def argv(
    image: ImageTable,
    *,
    build_system: str = "",
    packages: bool = True,
    project: str = "",
) -> list[str]:
    """
    Return the command that creates or updates the environment on the box.

    The command uses the uv in PATH if there is one. Otherwise it installs uv in
    ~/.local/bin, from the package index that `[image] env` names, else from PyPI.

    Args:
        build_system: The [build-system] of pyproject.toml. If it is given, the programs
            that build the project are cached, so that a later build needs no network.

        packages: Whether the packages of `[image] requirements` are installed.

        project: What to install, editable, for the project itself; see
            `PythonProject.spec`. If it is "", the project is not installed.
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
        build_system,
        "yes" if packages else "",
        project,
    ]


_SCRIPT = """\
set -eu
install_uv=$1 python=$2 requirements=$3 pypi=$4 build_system=$5 packages=$6 project=$7
export UV_LINK_MODE="${UV_LINK_MODE-copy}" UV_NO_PROGRESS="${UV_NO_PROGRESS-1}"
export UV_COMPILE_BYTECODE="${UV_COMPILE_BYTECODE-1}"
# Trust the certificates of the system, as the box's other programs do.
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS-1}"
# uv reads its own variables only, but the variables of pip are widely known.
if [ -z "${UV_DEFAULT_INDEX-}${UV_INDEX_URL-}" ] && [ -n "${PIP_INDEX_URL-}" ]; then
export UV_DEFAULT_INDEX="$PIP_INDEX_URL"
fi
PATH=$PATH:$HOME/.local/bin
if ! uv=$(command -v uv); then
mkdir -p "$HOME/.local/bin"
index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-$pypi}}
python3 -I -c "$install_uv" "$index" "$HOME/.local/bin"
uv=$HOME/.local/bin/uv
fi
venv=$HOME/.venv
export UV_PROJECT_ENVIRONMENT="$venv"
unset VIRTUAL_ENV
folder=$(dirname "$requirements") file=$(basename "$requirements")
[ -z "$requirements" ] || cd "$folder"
# An environment that the set-up script has created there is kept, unless another
# Python is requested.
if [ -n "$python" ]; then
"$uv" venv --quiet --allow-existing --python "$python" "$venv"
elif [ ! -x "$venv/bin/python" ]; then
"$uv" venv --quiet "$venv"
fi
itself='^[[:space:]]*((-e|--editable)[[:space:]=]*)?\\.(\\[[^]]*\\])?/?[[:space:]]*(#.*)?$'
sync() { "$uv" sync --frozen --inexact ${python:+--python "$python"} "$@"; }
if [ -n "$packages" ]; then
if [ -n "$requirements" ] && [ ! -f "$file" ]; then
echo "$requirements is not on the box: add it to [push] code" >&2
exit 66
fi
case $file in
'') ;;
pyproject.toml) "$uv" pip install --python "$venv/bin/python" -r "$file" ;;
uv.lock) sync --no-install-workspace ;;
*)
# The line of the project itself is left out: an image does not hold its files.
list=.onebox-$file
trap 'rm -f "$list"' EXIT
grep -Ev "$itself" "$file" >"$list" || true
"$uv" pip install --python "$venv/bin/python" -r "$list" ;;
esac
fi
# What builds the project is kept in a cache of its own. The cache of packages is not
# part of an image.
builders=$HOME/.local/share/onebox/uv
if [ -n "$build_system" ]; then
probe=$(mktemp -d)
mkdir -p "$probe/src/onebox_probe"
: >"$probe/src/onebox_probe/__init__.py"
printf '%s\\n\\n[project]\\nname = "onebox-probe"\\nversion = "0"\\n' \
"$build_system" >"$probe/pyproject.toml"
UV_CACHE_DIR=$builders "$uv" pip install --quiet --no-deps \
--python "$venv/bin/python" --target "$probe/out" -e "$probe" 2>/dev/null || true
rm -rf "$probe"
fi
install_project() {
case $file in
uv.lock) sync "$@"; return ;;
pyproject.toml) set -- --no-deps "$@" ;;
esac
"$uv" pip install --python "$venv/bin/python" "$@" -e "$project"
}
if [ -n "$project" ] && { [ -f pyproject.toml ] || [ -f setup.py ]; }; then
# A version that comes from git cannot be found: .git is not on the box.
export SETUPTOOLS_SCM_PRETEND_VERSION="${SETUPTOOLS_SCM_PRETEND_VERSION-0}"
UV_CACHE_DIR=$builders install_project --offline 2>/dev/null || install_project
fi
"$venv/bin/python" -c 'import sys; sys.stdout.write(sys.version + "\\n")'
"""
