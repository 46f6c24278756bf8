"""A key file of a service account, as Google issues it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

EMAIL = "tester@test-project.iam.gserviceaccount.com"


def key_file(path: Path, **changes: Any) -> Path:
    """Write a new key file; return its path."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    content = {
        "type": "service_account",
        "project_id": "test-project",
        "private_key_id": "0" * 40,
        "private_key": pem.decode(),
        "client_email": EMAIL,
        "client_id": "1",
        # Not used: the SDK signs its tokens with the key itself.
        "token_uri": "http://127.0.0.1:9/token",
        **changes,
    }
    path.write_text(json.dumps(content), "utf-8")
    return path
