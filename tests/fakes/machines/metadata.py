"""
The metadata server of a machine, at 169.254.169.254 inside it.

It is as strict as the clouds: it refuses a request without an IMDSv2 token (EC2) or
without the header `Metadata-Flavor` (Google).
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from onebox.providers.kernel.user_data import Notice


@dataclass(frozen=True)
class Boot:
    """
    The values that a cloud passes to one machine.

    Attributes:
        startup_script: Google's startup script, "" if there is none.
    """

    instance_id: str
    hostname: str
    user_data: bytes
    startup_script: str = ""


@dataclass(frozen=True)
class Kind:
    """
    The machines of one cloud: how cloud-init recognizes it, and its metadata server.

    Attributes:
        datasource: The name of cloud-init's data source for this cloud.

        dmi: The firmware's values by which that data source recognizes the cloud.
            "{id}" stands for the id of the machine.

        root: The path of the metadata.

        paths: Returns the paths of the metadata server with their bodies.

        notice: The cloud's notice of a preemption, "" if it gives none.
    """

    datasource: str
    dmi: Mapping[str, str]
    root: str
    paths: Callable[[Boot], dict[str, bytes]]
    notice: Notice = ""


class Metadata:
    """
    The metadata server of one machine.

    Attributes:
        known: The paths that never change, as the cloud has them.

        extra: Further paths below the root of *kind*; a test may change them.

        published: The guest attributes that the machine has published (Google).
    """

    def __init__(
        self,
        kind: Kind,
        listening: socket.socket,
        known: Mapping[str, bytes],
        extra: MutableMapping[str, str],
    ) -> None:
        self.kind = kind
        self.known = known
        self.extra = extra
        self.published: dict[str, str] = {}
        self.token = secrets.token_urlsafe(24)
        self._server = ThreadingHTTPServer(
            ("", 0), _handler(self), bind_and_activate=False
        )
        self._server.socket.close()
        self._server.socket = listening
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    def find(self, path: str) -> bytes | None:
        """Return the body of a path or the listing of a folder, None for others."""
        place = self.kind.root
        texts = {place + name: text.encode() for name, text in self.extra.items()}
        texts = {**self.known, **texts}
        if path in texts:
            return texts[path]
        folder = path if path.endswith("/") else f"{path}/"
        below = {p[len(folder) :] for p in texts if p.startswith(folder)}
        names = {n.split("/")[0] + "/" * ("/" in n) for n in below}
        return "\n".join(sorted(names)).encode() if names else None


def _ec2(boot: Boot) -> dict[str, bytes]:
    """Return the paths and bodies of an EC2 instance without a key pair."""
    document = {"instanceId": boot.instance_id, "region": "us-east-1"}
    root = "/latest/meta-data/"
    texts = {
        root + "instance-id": boot.instance_id,
        root + "ami-id": "ami-0123456789abcdef0",
        root + "hostname": boot.hostname,
        root + "local-hostname": boot.hostname,
        root + "placement/availability-zone": "us-east-1a",
        "/latest/dynamic/instance-identity/document": json.dumps(document),
    }
    known = {path: text.encode() for path, text in texts.items()}
    if boot.user_data:
        known["/latest/user-data"] = boot.user_data
    return known


def _gce(boot: Boot) -> dict[str, bytes]:
    """Return the paths and bodies of a Compute Engine instance."""
    root = "/computeMetadata/v1/"
    texts = {
        root + "instance/id": boot.instance_id,
        root + "instance/hostname": boot.hostname,
        root + "instance/zone": "projects/1/zones/us-central1-a",
        root + "instance/preempted": "FALSE",
        root + "project/project-id": "a-project",
        root + "instance/attributes/enable-guest-attributes": "TRUE",
    }
    if boot.startup_script:
        texts[root + "instance/attributes/startup-script"] = boot.startup_script
    if boot.user_data:
        texts[root + "instance/attributes/user-data"] = boot.user_data.decode()
    return {path: text.encode() for path, text in texts.items()}


# The metadata servers of these two demand a token or a header; see `_handler`.
EC2 = Kind(
    datasource="Ec2",
    dmi={
        "sys_vendor": "Amazon EC2",
        "product_uuid": "ec2e1916-9099-7caf-fd21-012345abcdef",
        "product_serial": "ec2e1916-9099-7caf-fd21-012345abcdef",
    },
    root="/latest/meta-data/",
    paths=_ec2,
    notice="ec2",
)
GCE = Kind(
    datasource="GCE",
    dmi={
        "sys_vendor": "Google",
        "product_name": "Google Compute Engine",
        "product_serial": "GoogleCloud-0123456789ABCDEF",
    },
    root="/computeMetadata/v1/",
    paths=_gce,
    notice="gce",
)


def _handler(service: Metadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if service.kind is EC2:
                if self.headers["X-aws-ec2-metadata-token"] != service.token:
                    return self._answer(401)
                version, _, rest = self.path[1:].partition("/")
                path = f"/latest/{rest}" if version[:2] == "20" else self.path
            elif service.kind is GCE:
                if self.headers["Metadata-Flavor"] != "Google":
                    return self._answer(403)
                if self.path.endswith("?recursive=True"):
                    return self._recursive()
                path = self.path.partition("?")[0]
            else:
                path = self.path
            found = service.find(path)
            return self._answer(404 if found is None else 200, found or b"")

        def do_PUT(self) -> None:
            length = int(self.headers["Content-Length"] or 0)
            body = self.rfile.read(length)
            guest = "/computeMetadata/v1/instance/guest-attributes/"
            if service.kind is EC2 and self.path == "/latest/api/token":
                if not self.headers["X-aws-ec2-metadata-token-ttl-seconds"]:
                    return self._answer(400)
                return self._answer(200, service.token.encode())
            if service.kind is GCE and self.path.startswith(guest):
                if self.headers["Metadata-Flavor"] != "Google":
                    return self._answer(403)
                service.published[self.path[len(guest) :]] = body.decode()
                return self._answer(200)
            return self._answer(405)

        def _recursive(self) -> None:
            folder = self.path.partition("?")[0]
            names = (service.find(folder) or b"").decode().split()
            values = {name: (service.find(folder + name) or b"") for name in names}
            texts = {name: value.decode() for name, value in values.items()}
            self._answer(200, json.dumps(texts).encode())

        def _answer(self, code: int, body: bytes = b"") -> None:
            self.send_response(code)
            if service.kind is GCE:
                self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            return

    return Handler
