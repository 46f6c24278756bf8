#!/bin/sh
# Prepare the image: a virtualenv in $HOME with what the job imports.
# Runs once, as an ordinary user, on the machine the image is made of.
set -eu

here=$(cd "$(dirname "$0")" && pwd)

python3 -m venv "$HOME/.venv"
"$HOME/.venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --only-binary :all: --requirement "$here/requirements.txt"

# A broken install is found here, not an hour later by the job.
"$HOME/.venv/bin/python" -c 'import duckdb; print("duckdb", duckdb.__version__)'
"$HOME/.venv/bin/tpchgen-cli" --version
