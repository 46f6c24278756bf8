"""The command that finds or installs JupyterLab for the job's environment on a box."""

from __future__ import annotations

import re

from onebox.images.python_env import INSTALL_UV, PYPI

# The last line of the command's output: the interpreter, and a free port of the box.
FOUND = re.compile(r"jupyter (?P<port>[0-9]{1,5}) (?P<python>/[^\0\n]+)")


def argv() -> list[str]:
    """
    Return the command that prints an interpreter with JupyterLab, and a free port.

    If the job's own environment has JupyterLab, its interpreter is used. Otherwise
    JupyterLab is installed with uv into an environment of its own. Its kernel is the
    job's interpreter, which finds the kernel's packages after its own ones. The job's
    environment stays as it is.
    """
    return ["sh", "-c", _SCRIPT, "onebox", INSTALL_UV.read_text("utf-8"), PYPI, _KERNEL]


# Register the job's interpreter as the kernel of Jupyter's environment. Its arguments
# are that interpreter, and the folder with ipykernel and what it needs.
_KERNEL = """\
import json, os, sys
python, packages = sys.argv[1:]
start = f"import sys; sys.path.append({packages!r}); "
start += "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
argv = [python, "-c", start, "-f", "{connection_file}"]
spec = {"argv": argv, "display_name": "Python of the job", "language": "python"}
folder = os.path.join(sys.prefix, "share", "jupyter", "kernels", "python3")
os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, "kernel.json"), "w") as file:
    json.dump(spec, file)
"""
_SCRIPT = """\
set -eu
install_uv=$1 pypi=$2 kernel=$3
python=$(command -v python3)
if ! "$python" -c 'import jupyterlab' 2>/dev/null; then
folder=$HOME/.local/share/onebox/jupyter
# The environment is made again for another Python of the job.
if [ "$(cat "$folder/of" 2>/dev/null)" != "$python $("$python" -V)" ]; then
# Nothing else uses the cache, which would double the number of files.
export UV_NO_CACHE="${UV_NO_CACHE-1}" UV_NO_PROGRESS="${UV_NO_PROGRESS-1}"
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS-1}" UV_NATIVE_TLS="${UV_NATIVE_TLS-1}"
PATH=$PATH:$HOME/.local/bin
rm -rf "$folder"
mkdir -p "$folder"
if ! uv=$(command -v uv); then
index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-$pypi}}}
"$python" -I -c "$install_uv" "$index" "$folder"
uv=$folder/uv
fi
unset VIRTUAL_ENV
"$uv" venv --allow-existing --python "$python" "$folder"
"$uv" pip install --python "$folder/bin/python" jupyterlab
"$uv" pip install --python "$python" --target "$folder/kernel" ipykernel
"$folder/bin/python" -c "$kernel" "$python" "$folder/kernel"
echo "$python $("$python" -V)" >"$folder/of"
fi
python=$folder/bin/python
fi
"$python" -c 'import socket, sys
free = socket.socket()
free.bind(("127.0.0.1", 0))
print("jupyter", free.getsockname()[1], sys.executable)'
"""
