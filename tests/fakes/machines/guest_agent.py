"""
Google's guest environment, as far as a box depends on it; runs in a machine.

`keys` gives a new instance host keys of its own and publishes them as guest
attributes; `startup` runs the startup script, as it does at every boot.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

ROOT = "http://metadata.google.internal/computeMetadata/v1/instance"
KNOWN = Path("/etc/google_instance_id")


def main() -> None:
    """Do the one or the other."""
    if sys.argv[1] == "keys":
        keys()
    else:
        startup()


def keys() -> None:
    """Make host keys for an instance that is not the one of the last boot."""
    instance = ask("id")
    if not KNOWN.exists() or KNOWN.read_text() != instance:
        for path in Path("/etc/ssh").glob("ssh_host_*"):
            path.unlink()
        subprocess.run(["ssh-keygen", "-A"], check=True)
        KNOWN.write_text(instance)
    for path in Path("/etc/ssh").glob("ssh_host_*_key.pub"):
        kind, key, *_ = path.read_text().split()
        ask(f"guest-attributes/hostkeys/{kind}", key.encode())


def startup() -> None:
    """Run the startup script from a file, as root."""
    try:
        script = ask("attributes/startup-script")
    except urllib.error.HTTPError:
        return
    fd, path = tempfile.mkstemp()
    with os.fdopen(fd, "w") as file:
        file.write(script)
    Path(path).chmod(0o700)
    subprocess.run([path], check=False)


def ask(path: str, body: bytes | None = None) -> str:
    """Get a value, or put one."""
    request = urllib.request.Request(
        f"{ROOT}/{path}",
        data=body,
        headers={"Metadata-Flavor": "Google"},
        method="GET" if body is None else "PUT",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    main()
