"""Folders and files that must not leave this machine: credentials, keys and state."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from onebox.store.paths import config_dir, local_root, state_dir

# Files and folders in which programs keep keys, tokens and passwords. They match in
# every folder, not only in a home folder.
_FOLDERS = (
    *(".ssh", ".aws", ".azure", ".gnupg", ".kube", ".oci", ".password-store"),
    *(".kaggle", ".config/gcloud", ".config/doctl", ".config/gh", ".config/onebox"),
    *(".config/op", ".config/rclone", ".local/share/keyrings"),
)
_FILES = (
    *(".netrc", "_netrc", ".pgpass", ".my.cnf", ".git-credentials", ".pypirc"),
    *(".s3cfg", ".boto", ".databrickscfg", ".dockercfg", ".docker/config.json"),
    *(".vault-token", ".terraform.d/credentials.tfrc.json", "credentials.tfrc.json"),
    *(".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials"),
    *("application_default_credentials.json", "kaggle.json", "rclone.conf"),
    *(".cache/huggingface/token", ".huggingface/token", ".snowsql/config"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk"),
)
_CREDENTIALS = re.compile(
    b"(?:^|/)(?:%s)(?=/|$)"
    % b"|".join(re.escape(os.fsencode(name)) for name in (*_FOLDERS, *_FILES)),
    re.IGNORECASE,
)


def credentials_in(path: bytes) -> bytes | None:
    """Return the part of a path up to a credential file or folder in it, if any."""
    match = _CREDENTIALS.search(path)
    return path[: match.end()] if match else None


def own_folders(environ: Mapping[str, str]) -> dict[str, Path]:
    """Return the folders of onebox's key, state and local boxes, by description."""
    return {
        "onebox's own key": config_dir(environ),
        "onebox's state": state_dir(environ),
        "the local boxes": local_root(environ),
    }


def own_folder_near(path: Path, environ: Mapping[str, str]) -> tuple[str, Path] | None:
    """Return the first of onebox's own folders that contains *path* or lies in it."""
    real = path.resolve()
    for name, folder in own_folders(environ).items():
        place = folder.resolve()
        if holds(real, place) or holds(place, real):
            return name, folder
    return None


def no_project(root: Path, environ: Mapping[str, str]) -> str | None:
    """Return the reason not to push a folder as a project, None if there is none."""
    real = root.resolve()
    for home in _homes(real, environ):
        if real == home:
            return f"{root} is a home folder"
        if holds(real, home):
            return f"{root} holds a home folder, {home}"
    for name, folder in own_folders(environ).items():
        if holds(real, folder.resolve()):
            return f"{root} holds {name}, in {folder}"
    return None


def holds(outer: Path, inner: Path) -> bool:
    """Return whether *inner* is *outer* or lies in it."""
    return outer == inner or outer in inner.parents


def _homes(root: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the home folders of the user, the account and the owner of *root*."""
    if Path(environ.get("HOME", "")).is_absolute():
        yield Path(environ["HOME"]).resolve()
    for uid in dict.fromkeys((os.getuid(), root.stat().st_uid)):
        # In a container, the account may have no entry in the password file.
        with suppress(KeyError):
            yield Path(pwd.getpwuid(uid).pw_dir).resolve()
