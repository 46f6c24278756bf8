"""A box without a machine, for the programs that clouds run on a box as root."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

METADATA = "http://169.254.169.254"


@contextmanager
def metadata_server(body: bytes, *, path: str, status: int = 200) -> Iterator[str]:
    """A metadata server that answers one path with *body*; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Send the body."""
            found = self.path == path
            self.send_response(status if found else 404)
            self.end_headers()
            self.wfile.write(body if found else b"")

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class BoxFolders:
    """The directories of a box below a test's folder, and its environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("run", "lib", "sudoers.d", "bin"):
            (root / name).mkdir()
        (root / "sudoers.d" / "90-onebox").write_text("onebox ALL=(ALL) NOPASSWD:ALL")
        (root / "bin" / "systemctl").write_text(f"#!/bin/sh\necho $* >>{root}/did\n")
        (root / "bin" / "systemctl").chmod(0o755)
        self.configure(deadline=time.time() + 3600)

    def configure(self, **facts: object) -> None:
        """Write box.json."""
        config = {"box": "ob-1", "poweroff_force": ["systemctl", "poweroff", "-ff"]}
        (self.root / "lib" / "box.json").write_text(json.dumps({**config, **facts}))

    @property
    def config(self) -> dict[str, object]:
        """Return the content of box.json."""
        found: dict[str, object] = json.loads((self.root / "lib/box.json").read_text())
        return found

    @property
    def systemctl_calls(self) -> str:
        """Return the arguments of all systemctl calls."""
        file = self.root / "did"
        return file.read_text().strip() if file.exists() else ""

    def deliver(self, program: bytes) -> subprocess.CompletedProcess[str]:
        """Run the post-boot script in these directories instead of the box's."""
        text = program.decode("ascii")
        for path, own in (
            ("/run/onebox-end", "run/onebox-end"),
            ("/var/lib/onebox", "lib"),
            ("/etc/sudoers.d", "sudoers.d"),
        ):
            text = text.replace(path, str(self.root / own))
        return self.run(text)

    def run(self, program: str) -> subprocess.CompletedProcess[str]:
        """Run a program as root would on the box."""
        return subprocess.run(
            [sys.executable, "-I", "-S", "-"],
            input=program,
            text=True,
            capture_output=True,
            check=True,
            timeout=60,
            env={"PATH": f"{self.root}/bin:{os.environ['PATH']}"},
        )

    def end(self, service: str) -> None:
        """Run the command that the watchdog runs instead of a power-off."""
        argv = self.config["poweroff"]
        assert isinstance(argv, list)
        assert argv[:3] == ["python3", "-I", "-S"]
        program = Path(argv[3]).read_text().replace(METADATA, service)
        self.run(program.replace("time.sleep(5)", "break").replace("+ 25", "+ 3"))
