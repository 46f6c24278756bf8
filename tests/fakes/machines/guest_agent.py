"""
The parts of Google's guest environment that a box needs; it runs in a machine.

`keys` generates host keys for a new instance and publishes them as guest attributes;
`startup` runs the startup script, at every boot.
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
    """Run the part that the argument names."""
    if sys.argv[1] == "keys":
        keys()
    else:
        startup()


def keys() -> None:
    """Generate host keys if the instance is another one than at the last boot."""
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
    """Run the startup script as root."""
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
    """Get the value of a metadata path, or put *body* there."""
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
